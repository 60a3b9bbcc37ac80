#!/usr/bin/env bash
# What does a point cost on its whole way: HTTP in, validated, logged, acknowledged, delivered to 2 circles of 2 backends?
#
# The proxy has the first CPU(s) to itself; load generator and sinks (`fluxgate load`, `fluxgate sink`) run on the last
# one. CPU is that of the whole process, kernel workers of its rings included, from before the load until the last point
# is delivered. One row per durability, request size and number of workers; results go to benches/baselines/.
#
#   SECONDS_PER_ROW=8  DURABILITIES="disk memory"  LINES_PER_REQUEST="1000 10 1"  WORKERS="1"  CONNECTIONS=32  OUT=FILE  FLUXGATE=BINARY
. "$(dirname "$0")/common.sh"
seconds=${SECONDS_PER_ROW:-8}
durabilities=${DURABILITIES:-disk memory}
line_counts=${LINES_PER_REQUEST:-1000 10 1}
worker_counts=${WORKERS:-1}
connections=${CONNECTIONS:-32}
warm_seconds=1
disturbed=

columns=workers,durability,lines,requests,points,points_per_s,cpu_s,cpu_s_per_million_points,cpu_us_per_request,cores
results "" "# 2 circles x 2 backends, $connections connections, $seconds s per row" \
  "$columns,p50_us,p99_us,rss_peak_mb,load_cores,sink_cores,other_cores,load_average"

writes() { # seconds lines
  load --url "$url" --db bench --connections "$connections" --seconds "$1" --lines "$2"
  drain
}

row() { # workers durability lines
  local workers=$1 durability=$2 lines=$3
  start_sinks 4
  start_proxy "$(IFS=,; echo "${cpus[*]:0:workers}")" "$(circle 1 "${backends[@]:0:2}"), $(circle 2 "${backends[@]:2:2}")" \
    "\"workers\": $workers, \"durability\": \"$durability\""
  writes "$warm_seconds" "$lines"
  local cpu0 cpu1 sink0 sink1 busy0 busy1 start=${EPOCHREALTIME/./} end
  cpu0=$(ticks "$proxy"); sink0=$(ticks "$sink"); busy0=$(busy_ticks)
  writes "$seconds" "$lines"
  cpu1=$(ticks "$proxy"); sink1=$(ticks "$sink"); busy1=$(busy_ticks); end=${EPOCHREALTIME/./}
  awk -v workers="$workers" -v durability="$durability" -v lines="$lines" -v requests="$(number requests)" \
    -v points="$(number acked_points)" -v rate="$(number points_per_second)" -v p50="$(number p50)" -v p99="$(number p99)" \
    -v load_cpu="$(number cpu_seconds)" -v load_s="$(number seconds)" \
    -v cpu="$((cpu1 - cpu0))" -v sink="$((sink1 - sink0))" -v busy="$((busy1 - busy0))" -v us="$((end - start))" \
    -v hz="$hz" -v rss="$(resident "$proxy" VmHWM)" -v la="$(cut -d' ' -f1 /proc/loadavg)" 'BEGIN {
      cpu /= hz; sink /= hz; busy /= hz; s = us / 1e6
      other = (busy - cpu - sink - load_cpu) / s; if (other < 0) other = 0
      printf "%d,%s,%d,%d,%d,%.0f,%.2f,%.3f,%.2f,%.2f,%d,%d,%d,%.2f,%.2f,%.2f,%s\n", workers, durability, lines, requests,
        points, rate, cpu, cpu * 1e6 / points, cpu * 1e6 / requests, cpu / s, p50, p99, rss / 1024, load_cpu / load_s,
        sink / s, other, la }' | tee -a "$out" > "$dir/row"
  awk -F, '$16 > 0.2 {exit 1}' "$dir/row" || disturbed=1
  awk -F, '{printf "%7d  %-8s %5d %11.0f %13s %11s %6s %9.3f %9.3f %8d %6s %6s\n", $1, $2, $3, $6, $8, $9, $10, $11/1e3, $12/1e3, $13, $14, $16}' "$dir/row"
  stop "$proxy"
  stop_all
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
