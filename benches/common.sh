# Sourced by the bench scripts: the binary, a work folder, servers that end with the script, and what they cost.
#
# Every script takes: FLUXGATE=BINARY (default: a release build of this tree), OUT=FILE (default: benches/baselines/<machine>/).
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.."
hz=$(getconf CLK_TCK)

fail() { echo "$(basename "$0"): $*" >&2; exit 1; }
for tool in curl taskset awk; do command -v "$tool" > /dev/null || fail "$tool is not installed"; done

commit=unknown
if [ -z "${FLUXGATE:-}" ]; then
  commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
  [ -z "$(git status --porcelain -- src control dataplane Cargo.toml Cargo.lock 2>/dev/null)" ] || commit+=+changes
  echo "building (FLUXGATE=BINARY uses another one) ..." >&2
  cargo build --release --quiet
  FLUXGATE=${CARGO_TARGET_DIR:-target}/release/fluxgate
fi
FLUXGATE=$(realpath "$FLUXGATE")

# CPUs this shell may use. Proxies get the first ones, loads and sinks the last one.
cpus=()
for part in $(taskset -pc $$ | sed 's/.*: //; s/,/ /g'); do
  mapfile -t -O ${#cpus[@]} cpus < <(seq "${part%-*}" "${part#*-}")
done
[ ${#cpus[@]} -ge 2 ] || fail "two CPUs are needed, one for the proxy and one for the load"
load_cpu=${cpus[-1]}
all_cpus=$(IFS=,; echo "${cpus[*]}")

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
machine=$(echo "${model:-$(uname -m)}-${#cpus[@]}cpu" | tr 'A-Z' 'a-z' | sed 's/([a-z]*)//g; s/[^a-z0-9]\+/-/g; s/^-//; s/-$//')

# On the project's own file system: the system's temporary directory may have no disk under it.
mkdir -p target
dir=$(mktemp -d "$PWD/target/bench.XXXXXX")
pids=()
stop_all() {
  # None yet is no mistake.
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2> /dev/null || true
  wait 2> /dev/null || true
  pids=()
}
cleanup() { stop_all; rm -rf "$dir"; }
trap cleanup EXIT

# results SUFFIX LINE... : opens the file of results and says in it what is measured, on what.
results() {
  out=${OUT:-benches/baselines/$machine/$(date +%F)$1.csv}
  mkdir -p "$(dirname "$out")"
  shift
  {
    echo "# $(date -u +%FT%TZ) commit $commit, $("$FLUXGATE" --version), $(rustc --version 2>/dev/null || echo 'rustc unknown'), influxd $(influxd version 2>/dev/null | cut -d' ' -f2)"
    echo "# ${model:-unknown CPU}, ${#cpus[@]} CPUs, kernel $(uname -r | cut -d- -f1), log on $(df --output=fstype "$dir" | tail -1), load average before $(cut -d' ' -f1-3 /proc/loadavg)"
    printf '%s\n' "$@"
  } | tee -a "$out" | grep '^#'
}

# CPU in ticks: of a process, of the whole machine.
ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'; }
busy_ticks() { awk '/^cpu /{print $2 + $3 + $4 + $7 + $8 + $9}' /proc/stat; }
# Resident kB: now (VmRSS), or the most there have been (VmHWM).
resident() { awk -v what="$2:" '$1 == what {print $2}' "/proc/$1/status"; }

# start_sinks COUNT: InfluxDB stand-ins that throw everything away; sets backends (urls) and sink (pid).
start_sinks() {
  local addrs=() n
  for n in $(seq "$1"); do addrs+=(127.0.0.1:0); done
  : > "$dir/sinks"
  taskset -c "$load_cpu" "$FLUXGATE" sink "${addrs[@]}" > "$dir/sinks" &
  sink=$!
  pids+=("$sink")
  for n in $(seq 100); do [ "$(wc -l < "$dir/sinks")" = "$1" ] && break; sleep 0.05; done
  mapfile -t backends < <(sed 's|^|http://|' "$dir/sinks")
  [ ${#backends[@]} = "$1" ] || fail "the sinks did not start"
}

# A port nobody listens on, below those that the kernel gives away.
free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); do
    (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || { echo "$port"; return; }
  done
}

# start_influxd COUNT CPUS: real ones, empty, with the environment's keys; sets backends (urls) and influxds (pids).
start_influxd() {
  local n port own
  command -v influxd > /dev/null || fail "influxd is not installed"
  backends=()
  influxds=()
  for n in $(seq "$1"); do
    port=$(free_port)
    own=$dir/influxd-$port
    mkdir -p "$own"
    INFLUXDB_REPORTING_DISABLED=true INFLUXDB_META_DIR="$own/meta" INFLUXDB_DATA_DIR="$own/data" \
      INFLUXDB_DATA_WAL_DIR="$own/wal" INFLUXDB_HTTP_BIND_ADDRESS="127.0.0.1:$port" \
      INFLUXDB_BIND_ADDRESS="127.0.0.1:$(free_port)" INFLUXDB_HTTP_LOG_ENABLED=false INFLUXDB_MONITOR_STORE_ENABLED=false \
      taskset -c "$2" influxd run -config /dev/null > "$own.log" 2>&1 &
    influxds+=("$!")
    backends+=("http://127.0.0.1:$port")
  done
  pids+=("${influxds[@]}")
  local backend
  for backend in "${backends[@]}"; do
    for n in $(seq 300); do curl -s "$backend/ping" && continue 2; sleep 0.1; done
    fail "influxd at $backend does not answer"
  done
}

# circle NUMBER URL... : one circle of the configuration.
circle() {
  local number=$1 place=0 url comma=
  shift
  printf '{"name": "circle-%d", "backends": [' "$number"
  for url in "$@"; do
    place=$((place + 1))
    printf '%s{"name": "influxdb-%d-%d", "url": "%s"}' "$comma" "$number" "$place" "$url"
    comma=', '
  done
  printf ']}'
}

# start_proxy CPUS CIRCLES [KEYS]: with an empty data directory; sets proxy (pid) and url. KEYS: more of the configuration.
start_proxy() {
  local port= n
  rm -rf "$dir/data"
  : > "$dir/proxy.log"
  echo "{\"circles\": [$2], \"listen_addr\": \"127.0.0.1:0\", \"data_dir\": \"$dir/data\", \"mlog_dir\": \"$dir/mlog\"${3:+, $3}}" > "$dir/proxy.json"
  taskset -c "$1" "$FLUXGATE" -config "$dir/proxy.json" 2> "$dir/proxy.log" &
  proxy=$!
  pids+=("$proxy")
  for n in $(seq 200); do
    port=$(sed -n 's/.*listening on .*:\([0-9]*\) .*/\1/p' "$dir/proxy.log")
    [ -n "$port" ] && break
    kill -0 "$proxy" 2> /dev/null || break
    sleep 0.05
  done
  [ -n "$port" ] || fail "the proxy did not start: $(cat "$dir/proxy.log")"
  url=http://127.0.0.1:$port
}

# stop PID: and wait for it; fails when it had not ended well.
stop() {
  local pid rest=()
  kill "$1"
  wait "$1" || fail "process $1 ended badly: $(tail -5 "$dir/proxy.log")"
  for pid in "${pids[@]}"; do [ "$pid" = "$1" ] || rest+=("$pid"); done
  pids=(${rest[@]+"${rest[@]}"})
}

# load OPTION... : the load generator on its own CPU; its figures: see number.
load() {
  taskset -c "$load_cpu" "$FLUXGATE" load --json "$@" 2> "$dir/load.log" > "$dir/load.json" || {
    cat "$dir/load.json" "$dir/load.log" >&2
    fail "the load had failures (above); the proxy said: $(tail -5 "$dir/proxy.log" 2> /dev/null)"
  }
}
# number NAME [FILE]: out of indented JSON.
number() { sed -n "s/^ *\"$1\": *\([0-9.]*\),\{0,1\}\$/\1/p" "${2:-$dir/load.json}" | head -1; }

# queued: points that wait for delivery.
queued() { curl -s "$url/ledger" | sed -n 's/.*"totals":{[^}]*"queued":\([0-9]*\).*/\1/p'; }

# drain [SECONDS]: waits until all backends have everything.
drain() {
  local deadline=$((SECONDS + ${1:-60})) left
  until left=$(queued) && [ "$left" = 0 ]; do
    [ $SECONDS -lt $deadline ] || fail "$left points are still queued ${1:-60} s after the load"
    sleep 0.1
  done
}

# quantiles FILE Q... : of the numbers in a file, one per line.
quantiles() {
  sort -g "$1" | awk -v wanted="${*:2}" '{v[NR] = $1} END {
    count = split(wanted, q, " ")
    for (i = 1; i <= count; i++) { at = int(q[i] * NR); if (at < q[i] * NR) at++; printf "%s%s", v[at < 1 ? 1 : at], i < count ? " " : "\n" } }'
}
