#!/usr/bin/env bash
# What does a migration cost? A recovery of POINTS points to an empty circle by THREADS copy threads, between two real influxd.
#
# The points, in 4,000 series with fields of all types and over several shard groups, are written to the first circle's
# influxd directly, in batches of 10,000 lines over one connection: the time that takes is what the copy is compared with.
# Then the proxy copies them (reads, writes, verifies). Nothing is pinned: the proxy and both influxd share all CPUs. The CPU
# time of both influxd is given too: unlike the seconds, it hardly changes when other programs use the machine.
# Results go to benches/baselines/: see the names of the columns.
#
#   POINTS=5000000  THREADS=1  OUT=FILE  FLUXGATE=BINARY
. "$(dirname "$0")/common.sh"
points=${POINTS:-5000000}
threads=${THREADS:-1}

start_influxd 2 "$all_cpus"
start_proxy "$all_cpus" "$(circle 1 "${backends[0]}"), $(circle 2 "${backends[1]}")"
echo "writing $points points to influxd ..." >&2
# One second apart, so that a shard group holds 604,800 of them. One connection: no two requests are the first in a shard.
influxd_ticks() { echo $(($(ticks "${influxds[0]}") + $(ticks "${influxds[1]}"))); }
influxd0=$(influxd_ticks)
load --url "${backends[0]}" --db bench --create-db --points "$points" --lines 10000 --connections 1 --precision s --all-types --timeout 120
direct_s=$(number seconds)
[ "$(number acked_points)" = "$points" ] || fail "influxd took $(number acked_points) of $points points"
sleep 2 # The proxy learns which databases there are.
influxd1=$(influxd_ticks)

rss_before=$(resident "$proxy" VmRSS)
# From here on VmHWM is the most since now.
echo 5 > "/proc/$proxy/clear_refs"
cpu0=$(ticks "$proxy"); start=${EPOCHREALTIME/./}
curl -sS -D "$dir/begun" -o "$dir/answer" -XPOST "$url/recovery?from_circle_id=0&to_circle_id=1&cpus=$threads"
job=$(sed -n 's/^[Xx]-[Ff]luxgate-[Mm]igration: *\([0-9]*\).*/\1/p' "$dir/begun")
[ -n "$job" ] || fail "the recovery did not begin: $(cat "$dir/answer")"
while curl -sS -o "$dir/job" "$url/migrate/jobs/$job"; grep -q '"state": *"running"' "$dir/job"; do sleep 0.2; done
end=${EPOCHREALTIME/./}; cpu1=$(ticks "$proxy"); influxd2=$(influxd_ticks)
grep -q '"state": *"done"' "$dir/job" || fail "the recovery failed: $(cat "$dir/job")"
rss_peak=$(resident "$proxy" VmHWM)
sleep 2
rss_after=$(resident "$proxy" VmRSS)
copied=$(curl -sS -G "${backends[1]}/query?db=bench" --data-urlencode 'q=SELECT count(n) FROM /.*/' |
  grep -o '"1970-01-01T00:00:00Z",[0-9]*' | awk -F, '{n += $2} END {print n + 0}')
[ "$copied" = "$points" ] || fail "$copied of $points points are there"

results -migration "points,copy_threads,seconds,points_per_s_and_thread,direct_s,ratio_to_direct,proxy_cpu_s_per_million_points,rss_before_mb,rss_peak_mb,rss_after_mb,load_average,direct_influxd_cpu_s_per_million_points,copy_influxd_cpu_s_per_million_points"
awk -v n="$points" -v threads="$threads" -v us="$((end - start))" -v direct="$direct_s" -v cpu="$((cpu1 - cpu0))" -v hz="$hz" -v before="$rss_before" \
  -v peak="$rss_peak" -v after="$rss_after" -v la="$(cut -d' ' -f1 /proc/loadavg)" \
  -v i1="$((influxd1 - influxd0))" -v i2="$((influxd2 - influxd1))" 'BEGIN {
    s = us / 1e6
    printf "%d,%d,%.1f,%.0f,%.1f,%.2f,%.2f,%.1f,%.1f,%.1f,%s,%.2f,%.2f\n", n, threads, s, n / s / threads, direct, s / direct, cpu / hz / (n / 1e6),
      before / 1024, peak / 1024, after / 1024, la, i1 / hz / (n / 1e6), i2 / hz / (n / 1e6) }' | tee -a "$out" > "$dir/row"
awk -F, '{
  printf "%d points by %d threads in %.1f s: %.2f times the %.1f s that influxd needs to take them directly\n", $1, $2, $3, $6, $5
  printf "CPU s per million points: proxy %.2f, both influxd %.2f, influxd alone for direct writes %.2f\n", $7, $13, $12
  printf "resident: %.1f MB before, %.1f at most, %.1f after\n", $8, $9, $10 }' "$dir/row"
echo "results: $out"
