#!/usr/bin/env bash
# Does an admin request of any kind change the p99 of writes by more than noise?
#
# A steady, paced load of writes, while admin endpoints are asked ASKS times per second, a profile is taken, or a migration
# runs. Before each such row there is a row `none`, in which the same client asks a backend instead of the proxy, or reads
# one backend and writes the other as a migration would: their p99 without the lowest and the highest tenth is the noise. All
# rows are measured ROUNDS times in turn, and the medians are judged.
#
# Two setups of 2 circles: one of sinks (`fluxgate sink`), and for migrations one of real influxd, which are given
# databases that only the first circle has. The proxy has the first CPU to itself; all others share the last one, so that
# `none` of the second setup is slower. Latencies are those from when a request was due. Results go to benches/baselines/.
#
#   ROUNDS=3  SECONDS_PER_ROW=5  RATE=20000 (points/s; a quarter with influxd)  LINES=10  ASKS=20  JOB_RATE=500000 (bytes/s)
#   DURABILITY=disk (os leaves out the noise of the disk)  SETUPS="sinks influxd"  OUT=FILE  FLUXGATE=BINARY
. "$(dirname "$0")/common.sh"
rounds=${ROUNDS:-3}
seconds=${SECONDS_PER_ROW:-5}
rate=${RATE:-20000}
lines=${LINES:-10}
asks=${ASKS:-20}
job_rate=${JOB_RATE:-500000}
durability=${DURABILITY:-disk}
setups=${SETUPS:-sinks influxd}

declare -A path=(
  [health]=/health
  [replica]='/replica?db=bench&meas=cpu'
  [state]=/migrate/state
  [stats]='/migrate/stats?circle_id=0&type=recovery'
  [jobs]=/migrate/jobs
  [encrypt]='/encrypt?msg=secret'
  [ledger]=/ledger
  [heap]=/debug/pprof/heap
  [threads]='/debug/pprof/goroutine?debug=1'
)
results -admin "# $rounds rounds, $seconds s per row, requests of $lines points, $asks admin requests/s, durability $durability, migrations of $job_rate bytes/s" \
  "setup,what,round,write_requests,p50_us,p99_us,p999_us,asked,noise_p99_us,verdict"

# ask URL: again and again for the length of a row; a line per answer. What follows # is not sent.
ask() {
  taskset -c "$load_cpu" curl -sS --rate "$asks/s" -o /dev/null -w '%{http_code}\n' "$1#[1-$((asks * seconds))]" > "$dir/answers" &
  asker=$!
}

begin_job() { # path with parameters
  curl -sS -D "$dir/begun" -o "$dir/answer" -XPOST "$url$1&cpus=1&rate=$job_rate"
  job=$(sed -n 's/^[Xx]-[Ff]luxgate-[Mm]igration: *\([0-9]*\).*/\1/p' "$dir/begun")
  [ -n "$job" ] || fail "$1 did not begin: $(cat "$dir/answer")"
}
# What a migration asks of the backends, without the proxy: as many bytes read, as many points (of some 90 bytes) written.
load_backends() {
  taskset -c "$load_cpu" curl -sS --limit-rate "$job_rate" -m "$seconds" -o /dev/null -G "${backends[0]}/query?db=recovery1&chunked=true" \
    --data-urlencode 'q=SELECT * FROM /.*/' 2> /dev/null &
  others=("$!")
  taskset -c "$load_cpu" "$FLUXGATE" load --url "${backends[1]}" --db elsewhere --connections 1 --lines 5000 \
    --rate $((job_rate / 90)) --seconds "$seconds" > /dev/null 2>&1 &
  others+=("$!")
}
running() { curl -sS -o "$dir/job" "$url/migrate/jobs/$job" && grep -q '"state": *"running"' "$dir/job"; }
end_job() {
  running || fail "the migration ended before its row did: $(cat "$dir/job")"
  curl -sS -o "$dir/answer" -XDELETE "$url/migrate/jobs/$job"
  while running; do sleep 0.1; done
}

row() { # what round
  local asker= job= asked=1 others=()
  case $1 in
    none) if [ "$setup" = sinks ]; then ask "${backends[0]}/ping"; else load_backends; fi ;;
    profile)
      taskset -c "$load_cpu" curl -sS -o /dev/null -w '%{http_code}\n' \
        "$url/debug/pprof/profile?seconds=$(((seconds + 1) / 2))" > "$dir/answers" &
      asker=$! ;;
    recovery) begin_job "/recovery?from_circle_id=0&to_circle_id=1&dbs=recovery$2" ;;
    resync) begin_job "/resync?dbs=resync$2" ;;
    *) ask "$url${path[$1]}" ;;
  esac
  load --url "$url" --db bench --rate "$rate" --lines "$lines" --seconds "$seconds"
  [ -z "$job" ] || end_job
  # The reader ends by its time limit, which is no success to curl.
  [ ${#others[@]} = 0 ] || wait "${others[@]}" || true
  if [ -n "$asker" ]; then
    wait "$asker" || fail "$1 could not be asked"
    awk '!/^20[04]$/ {print "an answer was " $0; exit 1}' "$dir/answers" >&2 || fail "$1 was not answered well"
    asked=$(wc -l < "$dir/answers")
  fi
  echo "$setup,$1,$2,$(number requests),$(number p50),$(number p99),$(number p999),$asked,," | tee -a "$out" >> "$dir/rows-$setup"
}

judge() { # the rows of a setup: each kind's medians, and whether its p99 is within those of `none`
  sort -t, -k2,2 -k6,6n "$dir/rows-$setup" | awk -F, -v OFS=, -v names="$*" '
    { n[$2]++; p50[$2, n[$2]] = $5; p99[$2, n[$2]] = $6; p999[$2, n[$2]] = $7; requests[$2] += $4; asked[$2] += $8; setup = $1 }
    function median(values, name,   i, j, t, v) {
      for (i = 1; i <= n[name]; i++) v[i] = values[name, i]
      for (i = 1; i <= n[name]; i++) for (j = i + 1; j <= n[name]; j++) if (v[j] < v[i]) { t = v[i]; v[i] = v[j]; v[j] = t }
      return v[int((n[name] + 1) / 2)]
    }
    END {
      # One hiccup of the machine must not excuse everything.
      tenth = int(n["none"] / 10)
      low = p99["none", 1 + tenth]; high = p99["none", n["none"] - tenth]
      count = split("none " names, name, " ")
      for (k = 1; k <= count; k++) {
        it = name[k]; middle = median(p99, it)
        verdict = it == "none" ? "the noise" : middle <= high ? "within noise" : sprintf("%.0f us above noise", middle - high)
        print setup, it, "median", requests[it], median(p50, it), middle, median(p999, it), asked[it], low ".." high, verdict
      }
    }' | tee -a "$out" | awk -F, '{printf "%-8s %-10s %9.3f %9.3f %9.3f %7d  %s\n", $1, $2, $5/1e3, $6/1e3, $7/1e3, $8, $10 ($2 == "none" ? ": p99 " $9 " us" : "")}'
}

for setup in $setups; do
  if [ "$setup" = sinks ]; then
    start_sinks 2
    kinds=(health replica state stats jobs encrypt ledger heap threads profile)
  else
    start_influxd 2 "$load_cpu"
    rate=$((rate / 4))
    kinds=(recovery resync)
  fi
  start_proxy "${cpus[0]}" "$(circle 1 "${backends[0]}"), $(circle 2 "${backends[1]}")" "\"workers\": 1, \"durability\": \"$durability\""
  if [ "$setup" = influxd ]; then
    curl -sSf -o "$dir/created" -XPOST "$url/query" --data-urlencode 'q=CREATE DATABASE bench'
    # At least 100 bytes a point: enough for nearly twice the length of a row.
    for kind in "${kinds[@]}"; do
      for round in $(seq "$rounds"); do
        load --url "${backends[0]}" --db "$kind$round" --create-db --connections 1 --lines 5000 --points $((seconds * job_rate / 55 + 10000))
      done
    done
    load --url "${backends[1]}" --db elsewhere --create-db --connections 1 --points 1
    # A new shard's first request comes alone.
    load --url "$url" --db bench --connections 1 --points 1
  fi
  load --url "$url" --db bench --rate "$rate" --lines "$lines" --seconds 2
  drain
  for round in $(seq "$rounds"); do
    for kind in "${kinds[@]}"; do
      row none "$round"
      row "$kind" "$round"
    done
  done
  printf '%-8s %-10s %9s %9s %9s %7s  %s\n' setup asked 'p50 ms' 'p99 ms' 'p99.9 ms' asked verdict
  judge "${kinds[@]}"
  stop "$proxy"
  stop_all
done
echo "results: $out"
