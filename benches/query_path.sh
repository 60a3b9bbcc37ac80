#!/usr/bin/env bash
# What does a query cost on its way through the proxy, compared with asking influxd itself?
#
#   small   one short answer, asked again and again by 1 and by 16 connections (wrk): added p50 and p99
#   stream  one long chunked answer: CPU seconds of the proxy per GB, and its largest resident size
#   merge   SHOW SERIES of 100,000 series that lie on two backends: seconds, and CPU seconds of the proxy
#
# Two circles, of one and of two real influxd. The proxy has the first CPU to itself. Results go to benches/baselines/.
#
#   SECONDS_PER_ROW=5  STREAM_ROWS=3000000  SERIES=100000  OUT=FILE  FLUXGATE=BINARY
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
seconds=${SECONDS_PER_ROW:-5}
stream_rows=${STREAM_ROWS:-3000000}
series=${SERIES:-100000}

fail() { echo "query_path.sh: $*" >&2; exit 1; }
for tool in influxd wrk curl; do command -v "$tool" > /dev/null || fail "$tool is not installed"; done

commit=unknown
if [ -z "${FLUXGATE:-}" ]; then
  commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
  [ -z "$(git status --porcelain -- src control dataplane Cargo.toml Cargo.lock 2>/dev/null)" ] || commit+=+changes
  cargo build --release --quiet
  FLUXGATE=${CARGO_TARGET_DIR:-target}/release/fluxgate
fi
FLUXGATE=$(realpath "$FLUXGATE")

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
machine=$(echo "${model:-$(uname -m)}-$(nproc)cpu" | tr 'A-Z' 'a-z' | sed 's/([a-z]*)//g; s/[^a-z0-9]\+/-/g; s/^-//; s/-$//')
out=${OUT:-benches/baselines/$machine/$(date +%F)-queries.csv}
mkdir -p "$(dirname "$out")" target
dir=$(mktemp -d "$PWD/target/bench.XXXXXX")
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT

ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
until_it_answers() { # url
  for _ in $(seq 300); do curl -s -o "$dir/ping" "$1/ping" && return; sleep 0.1; done
  fail "$1 does not answer"
}

ports=()
for n in 0 1 2; do
  port=$(free_port); ports+=("$port")
  mkdir -p "$dir/influxd-$n"
  INFLUXDB_REPORTING_DISABLED=true INFLUXDB_META_DIR="$dir/influxd-$n/meta" INFLUXDB_DATA_DIR="$dir/influxd-$n/data" \
    INFLUXDB_DATA_WAL_DIR="$dir/influxd-$n/wal" INFLUXDB_HTTP_BIND_ADDRESS="127.0.0.1:$port" \
    INFLUXDB_BIND_ADDRESS="127.0.0.1:$(free_port)" INFLUXDB_HTTP_LOG_ENABLED=false INFLUXDB_MONITOR_STORE_ENABLED=false \
    influxd run -config /dev/null > "$dir/influxd-$n.log" 2>&1 &
  pids+=("$!")
done
for port in "${ports[@]}"; do until_it_answers "http://127.0.0.1:$port"; done

proxy_port=$(free_port)
cat > "$dir/proxy.json" <<JSON
{"circles": [
   {"name": "circle-1", "backends": [{"name": "influxdb-1-1", "url": "http://127.0.0.1:${ports[0]}"}]},
   {"name": "circle-2", "backends": [{"name": "influxdb-2-1", "url": "http://127.0.0.1:${ports[1]}"}, {"name": "influxdb-2-2", "url": "http://127.0.0.1:${ports[2]}"}]}],
 "listen_addr": "127.0.0.1:$proxy_port", "data_dir": "$dir/data", "workers": 1, "max_body_bytes": 0}
JSON
taskset -c 0 "$FLUXGATE" -config "$dir/proxy.json" 2> "$dir/proxy.log" &
proxy=$!
pids+=("$proxy")
through=http://127.0.0.1:$proxy_port
direct=http://127.0.0.1:${ports[0]}
until_it_answers "$through"

echo "loading $stream_rows rows and $series series ..." >&2
curl -sf -XPOST "$through/query" --data-urlencode 'q=CREATE DATABASE bench' > "$dir/created"
awk -v n="$stream_rows" -v pad="$(printf 'the quick brown fox jumps over the lazy dog %.0s' {1..6})" 'BEGIN { for (i = 0; i < n; i++) printf "long,host=h%d a=%d.5,b=%di,c=\"%s%d\" %.0f000000\n", i % 4, i, i * 7, pad, i, 1700000000000 + i }' \
  | curl -sS -o "$dir/written" -w "%{http_code}\n" -XPOST "$through/write?db=bench" -T - -H 'Expect:' >&2
awk -v n="$series" 'BEGIN { for (i = 0; i < n; i++) printf "many%d,host=host-%07d v=1i 1700000000000000000\n", i % 20, i }' \
  | curl -sS -o "$dir/written" -w "%{http_code}\n" -XPOST "$through/write?db=bench" --data-binary @- >&2
for _ in $(seq 3000); do
  curl -s "$through/ledger" | grep -q '"totals":{[^}]*"queued":0' && break
  sleep 0.2
done

{
  echo "# $(date -u +%FT%TZ) commit $commit, $("$FLUXGATE" --version), influxd $(influxd version | cut -d' ' -f2)"
  echo "# ${model:-unknown CPU}, $(nproc) CPUs, load average $(cut -d' ' -f1-3 /proc/loadavg)"
  echo "what,asked,connections,requests_per_s,p50_ms,p99_ms,seconds,megabytes,proxy_cpu_s,rss_peak_mb"
} | tee -a "$out"

small() { # name url connections
  local cpu0 cpu1
  cpu0=$(ticks "$proxy")
  wrk -t1 -c"$3" -d"${seconds}s" --latency "$2/query?db=bench&q=SELECT%20last(a)%20FROM%20long%20WHERE%20time%20%3E%3D%201700000001s%20AND%20time%20%3C%201700000002s" > "$dir/wrk"
  cpu1=$(ticks "$proxy")
  awk -v name="$1" -v c="$3" -v cpu="$((cpu1 - cpu0))" -v hz="$(getconf CLK_TCK)" -v s="$seconds" '
    function ms(t) { return t ~ /us$/ ? t / 1000 : t ~ /ms$/ ? t + 0 : t * 1000 }
    $1 == "50%" { p50 = ms($2) } $1 == "99%" { p99 = ms($2) } /Requests\/sec/ { rate = $2 }
    END { printf "small,%s,%d,%.0f,%.3f,%.3f,%d,,%.2f,\n", name, c, rate, p50, p99, s, name == "direct" ? 0 : cpu / hz }' "$dir/wrk" | tee -a "$out"
}
for connections in 1 16; do
  small direct "$direct" "$connections"
  small through "$through" "$connections"
done

long() { # what name url query extra
  local cpu0 cpu1 start end bytes
  cpu0=$(ticks "$proxy"); start=${EPOCHREALTIME/./}
  bytes=$(curl -s -o "$dir/answer" -w '%{size_download} %{http_code}' -G "$3/query?db=bench$5" --data-urlencode "q=$4")
  end=${EPOCHREALTIME/./}; cpu1=$(ticks "$proxy")
  [ "${bytes#* }" = 200 ] || fail "$4: $(head -c 300 "$dir/answer")"
  awk -v what="$1" -v name="$2" -v us="$((end - start))" -v bytes="${bytes% *}" -v cpu="$((cpu1 - cpu0))" -v hz="$(getconf CLK_TCK)" \
    -v rss="$(awk '/^VmHWM/{print $2}' "/proc/$proxy/status")" 'BEGIN {
      printf "%s,%s,1,,,,%.2f,%.1f,%.2f,%d\n", what, name, us / 1e6, bytes / 1e6, name == "direct" ? 0 : cpu / hz, rss / 1024 }' | tee -a "$out"
}
for who in direct through; do
  long stream "$who" "${!who}" 'SELECT * FROM long' '&chunked=true'
done
cmp -s <(curl -s "$direct/query?db=bench&q=SHOW%20SERIES") <(curl -s "$through/query?db=bench&q=SHOW%20SERIES") || fail "the answers differ"
# The circle of one backend passes it through; without it the two others are merged.
kill "${pids[0]}"
until curl -s "$through/health" | grep -q '"active":false'; do sleep 0.2; done
long merge through "$through" 'SHOW SERIES' ''
long merge through "$through" 'SHOW TAG VALUES WITH KEY = host' ''
echo "results: $out"
