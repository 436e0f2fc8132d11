#!/usr/bin/env bash
# run.sh SECONDS [TARGET...] - fuzzes each target for that long; fails where one finds something.
#
# Needs the toolchain of the repository and a C++ compiler, nothing else. What a run learns is kept
# in fuzz/grown, which git ignores; what makes a target fail is in fuzz/artifacts, and is tried again
# with `fuzz/target/*/release/TARGET FILE`. FUZZ_SEED=N begins with the same inputs each time; without
# it they are random. A file that was mended for belongs into fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?"usage: run.sh SECONDS [TARGET...]"}
shift
targets=("$@")
if ((${#targets[@]} == 0)); then
  for file in targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# Coverage for libFuzzer, as sancov makes it; build scripts must not have it, hence --target.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares"
host=$(rustc -vV | sed -n 's/^host: //p')
"${CARGO:-cargo}" build --release --locked --target "$host"

for target in "${targets[@]}"; do
  echo "+ fuzz $target for $seconds s"
  mkdir -p "grown/$target" "artifacts/$target"
  log=$(mktemp)
  if ! "target/$host/release/$target" "grown/$target" "corpus/$target" \
    -dict=dictionary.txt -artifact_prefix="artifacts/$target/" \
    -seed="${FUZZ_SEED:-0}" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
    -print_final_stats=1 >"$log" 2>&1; then
    cat "$log" >&2
    rm "$log"
    exit 1
  fi
  sed -n 's/^stat::number_of_executed_units: */  runs: /p' "$log"
  rm "$log"
done
