#!/usr/bin/env bash
# Runs all tests, and each bench once as a test, so that no bench stops working unseen. All output is shown. At the end:
# the names of what failed, and as the last line the totals over all runners. The exit status is 0 if nothing failed.
set -uo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# All run to their end, whatever fails, so that the totals are over everything.
status=0
$cargo test --workspace --no-fail-fast 2>&1 | tee "$output" || status=1
$cargo test --package fluxgate-sim --features sim --profile sim --no-fail-fast 2>&1 | tee -a "$output" || status=1
$cargo test --package fluxgate --bench '*' --no-fail-fast 2>&1 | tee -a "$output" || status=1

# A runner of tests prints a result line. A bench prints "Success" for each case. A runner that died printed neither for
# what it did not reach: cargo names it, and it counts as one failure.
awk -v status=$status '
  { gsub(/\033\[[0-9;]*m/, "") }
  /^ +(Running|Doc-tests) / { seen = 0 }
  /^test .* \.\.\. FAILED/ { names[++n] = $2 }
  /^test result: / { passed += $4; failed += $6; skipped += $8; seen = $6 }
  /^Success$/ { passed++ }
  /^error: .*failed, to rerun pass/ && !seen {
    failed++; sub(/^.*to rerun pass /, ""); names[++n] = $0 " ended without a result"
  }
  END {
    if (status && !failed) { failed = 1; names[++n] = "cargo, see above" }
    if (n) print "\nfailed:"
    for (i = 1; i <= n; i++) print "  " names[i]
    print passed + 0 " passed, " failed + 0 " failed, " skipped + 0 " skipped"
  }' "$output"
exit $status
