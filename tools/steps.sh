# Sourced by check and .ci/run: named steps, their count, and what failed.

passed=0 failed=0 skipped=0
broken=()

# step NAME COMMAND...: one thing that passes or fails as a whole.
step() {
  local name=$1 start=$SECONDS
  shift
  if quietly "${name//[ \/]/-}" "$@"; then
    passed=$((passed + 1))
    printf 'ok      %s (%d s)\n' "$name" $((SECONDS - start))
    return 0
  fi
  failed=$((failed + 1))
  broken+=("$name")
  printf 'FAILED  %s (%d s)\n' "$name" $((SECONDS - start))
  return 1
}

# tests NAME BUILD_DIR [CTEST ARGUMENT...]: every ctest counts for itself.
tests() {
  local name=$1 dir=$2 start=$SECONDS result=$logs/${1//[ \/]/-}.xml
  shift 2
  rm -f "$result"
  mkdir -p "$logs"
  ctest --test-dir "$dir" -j "$(nproc)" --no-tests=error --output-junit "$result" "$@" \
    >"$logs/${name//[ \/]/-}.log" 2>&1 </dev/null
  local p=0 f=1 s=0
  read -r p f s < <(python3 "$top/tools/ctest_counts.py" "$result")
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  local word='ok     '
  if [ "$f" != 0 ]; then
    word='FAILED '
    broken+=("$name")
  fi
  printf '%s %s: %d passed, %d failed, %d skipped (%d s)\n' \
    "$word" "$name" "$p" "$f" "$s" $((SECONDS - start))
  if [ "$f" != 0 ]; then echo "whole log: $logs/${name//[ \/]/-}.log"; fi
}
