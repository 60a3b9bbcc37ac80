#!/usr/bin/env bash
# run.sh [SECONDS] [TARGET...]: builds the fuzz targets and runs each for SECONDS (default 30), starting from
# fuzz/corpus/TARGET. What libFuzzer adds stays in fuzz/target/found/TARGET; a crash ends the run and leaves its input in
# fuzz/artifacts/. Needs rustup's stable toolchain and a C++ compiler, neither nightly nor cargo-fuzz.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-30}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(request_head body line_protocol log_open influxql prometheus)
command -v c++ >/dev/null || { echo "fuzz/run.sh: a C++ compiler is needed (Debian: apt-get install g++)" >&2; exit 2; }

# libFuzzer wants a counter on every edge and to see comparisons; these are rustc's and LLVM's switches for it.
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0"
# The address sanitizer comes with stable but its switch is not stable yet. Its memory is not for leaks at exit.
flags+=" -Zsanitizer=address"
export RUSTC_BOOTSTRAP=1 ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=$flags
# A named target keeps the flags away from build scripts and procedural macros.
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$triple"

mkdir -p artifacts
for target in "${targets[@]}"; do
  mkdir -p "target/found/$target"
  echo "== $target, $seconds s"
  # -rss_limit_mb and -timeout (seconds for one input) make growth and endless loops a crash as well.
  "target/$triple/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
    -artifact_prefix="artifacts/$target-" -print_final_stats=1 "target/found/$target" "corpus/$target" 2>&1 |
    grep -E 'INITED|DONE|stat::(number|average|peak)|panicked|ERROR|SUMMARY|^thread|^artifact|Test unit' -A1 --no-group-separator
done
