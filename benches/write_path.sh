#!/usr/bin/env bash
# What does a point cost on its whole way: HTTP in, validated, logged, acknowledged, delivered to 2 circles of 2 backends?
#
# The proxy has the first CPU(s) to itself; load generator and sinks (`fluxgate load`, `fluxgate sink`) run on the last
# one. CPU is that of the whole process, kernel workers of its rings included, from before the load until the last point
# is delivered. One row per durability, request size and number of workers; results go to benches/baselines/.
#
#   SECONDS_PER_ROW=8  DURABILITIES="disk memory"  LINES_PER_REQUEST="1000 10 1"  WORKERS="1"  CONNECTIONS=32  OUT=FILE  FLUXGATE=BINARY
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
seconds=${SECONDS_PER_ROW:-8}
durabilities=${DURABILITIES:-disk memory}
line_counts=${LINES_PER_REQUEST:-1000 10 1}
worker_counts=${WORKERS:-1}
connections=${CONNECTIONS:-32}
warm_seconds=1
disturbed=
drain_seconds_max=60

fail() { echo "write_path.sh: $*" >&2; exit 1; }

commit=unknown
if [ -z "${FLUXGATE:-}" ]; then
  commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
  [ -z "$(git status --porcelain -- src control dataplane Cargo.toml Cargo.lock 2>/dev/null)" ] || commit+=+changes
  cargo build --release --quiet
  FLUXGATE=${CARGO_TARGET_DIR:-target}/release/fluxgate
fi
FLUXGATE=$(realpath "$FLUXGATE")

# CPUs this shell may use.
cpus=()
for part in $(taskset -pc $$ | sed 's/.*: //; s/,/ /g'); do
  mapfile -t -O ${#cpus[@]} cpus < <(seq "${part%-*}" "${part#*-}")
done
[ ${#cpus[@]} -ge 2 ] || fail "two CPUs are needed, one for the proxy and one for the load"
load_cpu=${cpus[-1]}

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
machine=$(echo "${model:-$(uname -m)}-${#cpus[@]}cpu" | tr 'A-Z' 'a-z' | sed 's/([a-z]*)//g; s/[^a-z0-9]\+/-/g; s/^-//; s/-$//')
out=${OUT:-benches/baselines/$machine/$(date +%F).csv}
mkdir -p "$(dirname "$out")"

# On the project's own file system: the system's temporary directory may have no disk under it.
mkdir -p target
dir=$(mktemp -d "$PWD/target/bench.XXXXXX")
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT

{
  echo "# $(date -u +%FT%TZ) commit $commit, $("$FLUXGATE" --version), $(rustc --version 2>/dev/null || echo 'rustc unknown')"
  echo "# ${model:-unknown CPU}, ${#cpus[@]} CPUs, kernel $(uname -r | cut -d- -f1), log on $(df --output=fstype "$dir" | tail -1), load average before $(cut -d' ' -f1-3 /proc/loadavg)"
  echo "# 2 circles x 2 backends, $connections connections, $seconds s per row"
  columns=workers,durability,lines,requests,points,points_per_s,cpu_s,cpu_s_per_million_points,cpu_us_per_request,cores
  echo "$columns,p50_us,p99_us,rss_peak_mb,load_cores,sink_cores,other_cores,load_average"
} | tee -a "$out" | grep '^#'

# seconds of CPU: of a process, of a CPU set since boot (busy), all in ticks of 10 ms
ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'; }
busy_ticks() { awk '/^cpu /{print $2 + $3 + $4 + $7 + $8 + $9}' /proc/stat; }
number() { sed -n "s/^ *\"$1\": *\([0-9.]*\),\{0,1\}\$/\1/p" "$2" | head -1; }
answer() { # path: the body of a GET from the proxy
  exec 3<>"/dev/tcp/127.0.0.1/$port"
  printf 'GET %s HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n' "$1" >&3
  timeout 10 cat <&3 | sed '1,/^\r$/d'
  exec 3>&-
}
queued() { answer /ledger | sed -n 's/.*"totals":{[^}]*"queued":\([0-9]*\).*/\1/p'; }
load() { # seconds lines
  taskset -c "$load_cpu" "$FLUXGATE" load --url "http://127.0.0.1:$port" --db bench --connections "$connections" \
    --lines "$2" --seconds "$1" --json 2>/dev/null > "$dir/load.json" || {
    cat "$dir/load.json" >&2
    fail "the load had failures (above); the proxy said: $(tail -5 "$dir/proxy.log")"
  }
}
drain() {
  local deadline=$((SECONDS + drain_seconds_max)) left
  until left=$(queued) && [ "$left" = 0 ]; do
    [ $SECONDS -lt $deadline ] || fail "$left points are still queued $drain_seconds_max s after the load"
    sleep 0.1
  done
}

row() { # workers durability lines
  local workers=$1 durability=$2 lines=$3 proxy sink port server_cpus
  rm -rf "$dir/data" "$dir/sinks" "$dir/proxy.log"
  taskset -c "$load_cpu" "$FLUXGATE" sink 127.0.0.1:0 127.0.0.1:0 127.0.0.1:0 127.0.0.1:0 > "$dir/sinks" &
  sink=$!
  pids=("$sink")
  for _ in $(seq 100); do [ "$(wc -l < "$dir/sinks")" = 4 ] && break; sleep 0.05; done
  mapfile -t sinks < "$dir/sinks"
  [ ${#sinks[@]} = 4 ] || fail "the sinks did not start"
  cat > "$dir/proxy.json" <<JSON
{"circles": [
   {"name": "circle-1", "backends": [{"name": "influxdb-1-1", "url": "http://${sinks[0]}"}, {"name": "influxdb-1-2", "url": "http://${sinks[1]}"}]},
   {"name": "circle-2", "backends": [{"name": "influxdb-2-1", "url": "http://${sinks[2]}"}, {"name": "influxdb-2-2", "url": "http://${sinks[3]}"}]}],
 "listen_addr": "127.0.0.1:0", "data_dir": "$dir/data", "workers": $workers, "durability": "$durability"}
JSON
  server_cpus=$(IFS=,; echo "${cpus[*]:0:workers}")
  taskset -c "$server_cpus" "$FLUXGATE" -config "$dir/proxy.json" 2> "$dir/proxy.log" &
  proxy=$!
  pids+=("$proxy")
  port=
  for _ in $(seq 200); do
    port=$(sed -n 's/.*listening on .*:\([0-9]*\) .*/\1/p' "$dir/proxy.log")
    [ -n "$port" ] && break
    kill -0 "$proxy" 2>/dev/null || break
    sleep 0.05
  done
  [ -n "$port" ] || fail "the proxy did not start: $(cat "$dir/proxy.log")"

  load "$warm_seconds" "$lines"
  drain
  local cpu0 cpu1 sink0 sink1 busy0 busy1 start=${EPOCHREALTIME/./} end
  cpu0=$(ticks "$proxy"); sink0=$(ticks "$sink"); busy0=$(busy_ticks)
  load "$seconds" "$lines"
  drain
  cpu1=$(ticks "$proxy"); sink1=$(ticks "$sink"); busy1=$(busy_ticks); end=${EPOCHREALTIME/./}
  awk -v workers="$workers" -v durability="$durability" -v lines="$lines" -v requests="$(number requests "$dir/load.json")" \
    -v points="$(number acked_points "$dir/load.json")" -v rate="$(number points_per_second "$dir/load.json")" \
    -v p50="$(number p50 "$dir/load.json")" -v p99="$(number p99 "$dir/load.json")" \
    -v load_cpu="$(number cpu_seconds "$dir/load.json")" -v load_s="$(number seconds "$dir/load.json")" \
    -v cpu="$((cpu1 - cpu0))" -v sink="$((sink1 - sink0))" -v busy="$((busy1 - busy0))" -v us="$((end - start))" \
    -v hz="$(getconf CLK_TCK)" -v rss="$(awk '/^VmHWM/{print $2}' "/proc/$proxy/status")" \
    -v la="$(cut -d' ' -f1 /proc/loadavg)" 'BEGIN {
      cpu /= hz; sink /= hz; busy /= hz; s = us / 1e6
      other = (busy - cpu - sink - load_cpu) / s; if (other < 0) other = 0
      printf "%d,%s,%d,%d,%d,%.0f,%.2f,%.3f,%.2f,%.2f,%d,%d,%d,%.2f,%.2f,%.2f,%s\n", workers, durability, lines, requests,
        points, rate, cpu, cpu * 1e6 / points, cpu * 1e6 / requests, cpu / s, p50, p99, rss / 1024, load_cpu / load_s,
        sink / s, other, la }' | tee -a "$out" > "$dir/row"
  awk -F, '$16 > 0.2 {exit 1}' "$dir/row" || disturbed=1
  awk -F, '{printf "%7d  %-8s %5d %11.0f %13s %11s %6s %9.3f %9.3f %8d %6s %6s\n", $1, $2, $3, $6, $8, $9, $10, $11/1e3, $12/1e3, $13, $14, $16}' "$dir/row"
  kill "$proxy"
  wait "$proxy" || fail "the proxy ended badly: $(tail -5 "$dir/proxy.log")"
  kill "$sink"
  wait "$sink" || true
  pids=()
}

printf '%7s  %-8s %5s %11s %13s %11s %6s %9s %9s %8s %6s %6s\n' workers ack lines points/s 'CPU s/Mpoint' 'us/request' cores 'p50 ms' 'p99 ms' 'RSS MB' load other
for workers in $worker_counts; do
  [ "$workers" -lt ${#cpus[@]} ] || echo "# $workers workers share a CPU with the load" | tee -a "$out"
  for durability in $durabilities; do
    for lines in $line_counts; do
      row "$workers" "$durability" "$lines"
    done
  done
done
echo "results: $out (cores: CPU of the proxy; load, other: cores of the load generator and of what else ran)"
[ -z "$disturbed" ] || echo "other programs took more than 0.2 cores during some rows: those figures are not to be trusted"
