#!/usr/bin/env bash
# How long do acks take while backends fail, and how long until a backend that is back has everything?
#
# Two circles of two real influxd. A paced load of writes to one database; meanwhile a server does not answer, or one of
# them refuses other databases, which are written to as well: one that its user may not write to, one that it lacks, one
# at its limit of series; then all of this at once. Then the fault ends. Latencies are those from when a request was due.
# `queued`: points that wait for delivery when the fault ends. Results go to benches/baselines/.
#
#   SECONDS_PER_ROW=20  RATE=20000 (points/s; an eighth to each other database)  LINES=100  FLUXGATE=BINARY  OUT=FILE
. "$(dirname "$0")/common.sh"
seconds=${SECONDS_PER_ROW:-20}
rate=${RATE:-20000}
lines=${LINES:-100}

# The one that refuses: its user may write to some databases only.
INFLUXDB_HTTP_AUTH_ENABLED=true INFLUXDB_DATA_MAX_SERIES_PER_DATABASE=1000 start_influxd 1 "$load_cpu"
refuses=${backends[0]}
admin() { curl -sS -o "$dir/answer" -u admin:secret -XPOST "$refuses/query" --data-urlencode "q=$1" && ! grep -q error "$dir/answer" || fail "$1: $(cat "$dir/answer")"; }
admin "CREATE USER admin WITH PASSWORD 'secret' WITH ALL PRIVILEGES"
admin "CREATE USER writer WITH PASSWORD 'secret'"
start_influxd 3 "$load_cpu"
for db in bench forbidden missing limited; do
  admin "CREATE DATABASE $db"
  for backend in "${backends[@]}"; do
    curl -sS -o /dev/null -XPOST "$backend/query" --data-urlencode "q=CREATE DATABASE $db"
  done
done
for db in bench missing limited; do admin "GRANT ALL ON $db TO writer"; done
circles="$(circle 1 "${backends[0]}" "${backends[1]}"), {\"name\": \"circle-2\", \"backends\": [
  {\"name\": \"refuses\", \"url\": \"$refuses\", \"username\": \"writer\", \"password\": \"secret\"},
  {\"name\": \"other\", \"url\": \"${backends[2]}\"}]}"
start_proxy "${cpus[0]}" "$circles"
results -faults "# $seconds s per row, $rate points/s in requests of $lines points to one database, an eighth of that to each of the others" \
  "fault,write_requests,p50_us,p99_us,max_us,queued,seconds_until_empty"

# Lines of 2,000 series, twice what the limit is.
other_load() {
  taskset -c "$load_cpu" "$FLUXGATE" load --url "$url" --db "$1" --rate $((rate / 8)) --lines "$lines" --hosts 100 \
    --connections 4 --first "$first" --seconds "$seconds" > /dev/null 2>&1 &
  others+=("$!")
}
# Written to meanwhile: which are refused.
declare -A writes=([none]="" [hung]="" [forbidden]=forbidden [missing]=missing [limited]=limited [all]="forbidden missing limited")

first=1
for fault in none hung forbidden missing limited all; do
  others=()
  case $fault in
    forbidden) admin "REVOKE ALL ON forbidden FROM writer" ;;
    missing) admin "DROP DATABASE missing" ;;
    all) admin "REVOKE ALL ON forbidden FROM writer"; admin "DROP DATABASE missing" ;;
  esac
  case $fault in hung | all) kill -STOP "${influxds[1]}" ;; esac
  for db in ${writes[$fault]}; do other_load "$db"; done
  load --url "$url" --db bench --rate "$rate" --lines "$lines" --hosts 5 --first "$first" --seconds "$seconds"
  for pid in ${others[@]+"${others[@]}"}; do wait "$pid" || true; done
  first=$((first + 2 * rate * seconds))
  waits=$(queued)
  case $fault in hung | all) kill -CONT "${influxds[1]}" ;; esac
  case $fault in
    forbidden) admin "GRANT ALL ON forbidden TO writer" ;;
    missing) admin "CREATE DATABASE missing"; admin "GRANT ALL ON missing TO writer" ;;
    all) admin "GRANT ALL ON forbidden TO writer"; admin "CREATE DATABASE missing"; admin "GRANT ALL ON missing TO writer" ;;
  esac
  began=$(date +%s%N)
  drain 600
  took=$(($(date +%s%N) - began))
  echo "$fault,$(number requests),$(number p50),$(number p99),$(number max),$waits,$(awk "BEGIN {printf \"%.1f\", $took / 1e9}")" | tee -a "$out"
done
