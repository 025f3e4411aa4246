#!/usr/bin/env bash
# Fuzzes every target, two at a time, each for as long as is said.
#
# usage: fuzz/run.sh SECONDS_PER_TARGET [BUILD_DIR]     BUILD_DIR: build/fuzz, built by
#        cmake --preset fuzz && cmake --build build/fuzz --target fuzzers
#
# FUZZ_SEED=N begins each target at random number N, so that a second run on the same corpus tries
# the same inputs in the same order; without it each run tries others. FUZZ_TARGETS="NAME..." names
# the targets; all if it is unset.
#
# A line "// libFuzzer: OPTION..." in a target adds options or overrides these. Little memory shows
# what takes more than its input is worth.
#
# New inputs go to BUILD_DIR/corpus, not to the source tree; what breaks a target is left, named, in
# BUILD_DIR/found: minimise it, fix, and put it into fuzz/corpus/NAME. Fails when anything was found.
set -uo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 1 ] || { sed -n '4,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
seconds=$1
build=${2:-$top/build/fuzz}
mkdir -p "$build/found"

one() {
  local name=$1 log=$build/found/$1.log own
  own=$(sed -n 's#^// libFuzzer: ##p' "$top/fuzz/$name.cpp")
  mkdir -p "$build/corpus/$name"
  if "$build/fuzz/fuzz-$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=512 \
    -max_len=65536 -seed="${FUZZ_SEED:-0}" $own -print_final_stats=1 -artifact_prefix="$build/found/$name-" \
    "$build/corpus/$name" "$top/fuzz/corpus/$name" >"$log" 2>&1; then
    printf '%-20s %s runs\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    rm "$log"
  else
    printf '%-20s FAILED, see %s\n' "$name" "$log"
    tail -n 40 "$log"
    return 1
  fi
}
export -f one
export build seconds top
export ASAN_OPTIONS=quarantine_size_mb=32:${ASAN_OPTIONS:-}

names=${FUZZ_TARGETS:-$(cd "$top/fuzz" && ls ./*.cpp | sed 's#^\./##;s/\.cpp$//' | grep -v _main)}
[ -n "$names" ] || { echo "no fuzz targets" >&2; exit 1; }
printf '%s\n' $names | xargs -P 2 -I{} bash -c 'one {}'
