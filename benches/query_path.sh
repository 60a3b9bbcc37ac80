#!/usr/bin/env bash
# What does a query cost on its way through the proxy, compared with asking influxd itself?
#
#   small   one short answer, asked again and again by 1 and by 16 connections: added p50 and p99, CPU per request
#   stream  one long chunked answer: CPU seconds of the proxy per GB, and its largest resident size
#   merge   SHOW of 100,000 series that lie on two backends: seconds, and CPU seconds of the proxy
#
# Both ways are asked in turn (small: request by request; stream: answer by answer), so that what drifts meanwhile, drifts
# for both. Two circles, of one and of two real influxd. The proxy has the first CPU to itself; influxd has the others,
# and shares the last one with the clients. Results go to benches/baselines/.
#
#   PAIRS=2000  STREAM_ROWS=3000000  STREAM_PAIRS=3  SERIES=100000  MERGES=3  OUT=FILE  FLUXGATE=BINARY
. "$(dirname "$0")/common.sh"
pairs=${PAIRS:-2000}
stream_rows=${STREAM_ROWS:-3000000}
stream_pairs=${STREAM_PAIRS:-3}
series=${SERIES:-100000}
merges=${MERGES:-3}

start_influxd 3 "$(IFS=,; echo "${cpus[*]:1}")"
start_proxy "${cpus[0]}" "$(circle 1 "${backends[0]}"), $(circle 2 "${backends[@]:1}")" '"workers": 1, "max_body_bytes": 0'
declare -A asked=([direct]=${backends[0]} [through]=$url)

echo "loading $stream_rows rows and $series series ..." >&2
curl -sSf -o "$dir/created" -XPOST "$url/query" --data-urlencode 'q=CREATE DATABASE bench'
write() { curl -sSf -o "$dir/written" -XPOST "$url/write?db=bench" -T - -H 'Expect:' || fail "$(cat "$dir/written")"; }
awk -v n="$stream_rows" -v pad="$(printf 'the quick brown fox jumps over the lazy dog %.0s' {1..6})" 'BEGIN { for (i = 0; i < n; i++) printf "long,host=h%d a=%d.5,b=%di,c=\"%s%d\" %.0f000000\n", i % 4, i, i * 7, pad, i, 1700000000000 + i }' | write
awk -v n="$series" 'BEGIN { for (i = 0; i < n; i++) printf "many%d,host=host-%07d v=1i 1700000000000000000\n", i % 20, i }' | write
drain 600

results -queries "what,asked,connections,requests,p50_ms,p99_ms,added_p50_ms,added_p99_ms,seconds,megabytes,proxy_cpu_s,proxy_cpu_us_per_request,proxy_cpu_s_per_gb,rss_peak_mb"
tail -1 "$out"

small() { # connections
  local short='SELECT%20last(a)%20FROM%20long%20WHERE%20time%20%3E%3D%201700000000s%20AND%20time%20%3C%201700000001s'
  local each=$((pairs / $1)) cpu0 cpu1 n way clients=()
  for n in $(seq "$each"); do
    for way in direct through; do
      printf 'url = "%s/query?db=bench&q=%s"\noutput = "/dev/null"\n' "${asked[$way]}" "$short"
    done
  done > "$dir/urls"
  cpu0=$(ticks "$proxy")
  for n in $(seq "$1"); do
    # The first pair opens the connections.
    taskset -c "$load_cpu" curl -sS -K "$dir/urls" -w '%{http_code} %{time_total}\n' > "$dir/times-$n" &
    clients+=("$!")
  done
  for n in "${clients[@]}"; do wait "$n" || fail "a client failed"; done
  cpu1=$(ticks "$proxy")
  sort "$dir"/times-* | awk '$1 != 200 {print; exit 1}' || fail "a query was not answered 200"
  awk 'FNR > 2 && FNR % 2 == 1 {print $2 * 1000}' "$dir"/times-* > "$dir/direct"
  awk 'FNR > 2 && FNR % 2 == 0 {print $2 * 1000}' "$dir"/times-* > "$dir/through"
  awk -v c="$1" -v n="$((each * $1))" -v direct="$(quantiles "$dir/direct" 0.5 0.99)" \
    -v through="$(quantiles "$dir/through" 0.5 0.99)" -v cpu="$((cpu1 - cpu0))" -v hz="$hz" 'BEGIN {
      split(direct, d, " "); split(through, t, " ")
      printf "small,direct,%d,%d,%.3f,%.3f,,,,,,,,\n", c, n, d[1], d[2]
      printf "small,through,%d,%d,%.3f,%.3f,%.3f,%.3f,,,%.2f,%.1f,,\n", c, n, t[1], t[2], t[1] - d[1], t[2] - d[2], cpu / hz, cpu / hz / n * 1e6 }' | tee -a "$out"
  rm "$dir"/times-*
}
for connections in 1 16; do small "$connections"; done

long() { # what way query parameters
  local cpu0 cpu1 start end told
  cpu0=$(ticks "$proxy"); start=${EPOCHREALTIME/./}
  told=$(curl -s -o "$dir/answer" -w '%{size_download} %{http_code}' -G "${asked[$2]}/query?db=bench$4" --data-urlencode "q=$3")
  end=${EPOCHREALTIME/./}; cpu1=$(ticks "$proxy")
  [ "${told#* }" = 200 ] || fail "$3: $(head -c 300 "$dir/answer")"
  awk -v what="$1" -v way="$2" -v us="$((end - start))" -v bytes="${told% *}" -v cpu="$((cpu1 - cpu0))" -v hz="$hz" \
    -v rss="$(resident "$proxy" VmHWM)" 'BEGIN {
      printf "%s,%s,1,1,,,,,%.2f,%.1f,", what, way, us / 1e6, bytes / 1e6
      if (way == "direct") print ",,,"
      else printf "%.2f,,%.2f,%d\n", cpu / hz, cpu / hz / (bytes / 1e9), rss / 1024 }' | tee -a "$out"
}
for n in $(seq "$stream_pairs"); do
  for way in direct through; do long stream "$way" 'SELECT * FROM long' '&chunked=true'; done
done
cmp -s <(curl -s "${asked[direct]}/query?db=bench&q=SHOW%20SERIES") <(curl -s "$url/query?db=bench&q=SHOW%20SERIES") || fail "the answers differ"
# The circle of one backend passes it through; without it the two others are merged.
stop "${influxds[0]}"
until curl -s "$url/health" | grep -q '"active":false'; do sleep 0.2; done
for n in $(seq "$merges"); do
  long merge through 'SHOW SERIES' ''
  long merge through 'SHOW TAG VALUES WITH KEY = host' ''
done
echo "results: $out"
