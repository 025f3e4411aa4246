#!/usr/bin/env bash
# Says which lines of include/ the tests run: a table by folder, and for each file under 80 % the lines
# that none of them runs. Builds with clang in build/coverage.
#
# usage: tests/coverage.sh [unit | all]
#          unit   the unit tests
#          all    these, the integration tests and the simulation; what runs as another user, in a guest
#                 or until it is killed leaves no trace
#        Default: all. JOBS: compilers at a time. Default: as many as there are processors.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
. tools/build.sh

dir=$top/build/coverage
what=${1:-all}
flags='-O0 -g0 -fprofile-instr-generate -fcoverage-mapping'
case $what in
  unit) targets=(--target unit_tests) tests=(-R '^unit/' -E '^unit/(tool|snapshotter)/') ;;
  all) targets=() tests=(-R '^(unit|integration|simulation)/') ;;
  *) echo "usage: tests/coverage.sh [unit | all]" >&2 && exit 2 ;;
esac

tools/packages.sh build check
if [ ! -f "$dir/build.ninja" ]; then
  quietly configure-coverage configure clang -B "$dir" "-DCMAKE_CXX_FLAGS_DEBUG=$flags"
fi
quietly build-coverage cmake --build "$dir" -j "${JOBS:-$(nproc)}" "${targets[@]}"

rm -rf "$dir/profiles"
mkdir -p "$dir/profiles"
# %4m: four files for each program, to which all its runs add.
status=0
quietly coverage-tests env "LLVM_PROFILE_FILE=$dir/profiles/%4m.profraw" \
  ctest --test-dir "$dir" -j "${JOBS:-$(nproc)}" --no-tests=error "${tests[@]}" || status=$?

llvm-profdata-19 merge -o "$dir/all.profdata" "$dir"/profiles/*.profraw
mapfile -t programs < <(find "$dir" -name CMakeFiles -prune -o -type f -perm -u+x ! -name '*.so*' -print |
  while read -r file; do if readelf -S "$file" 2>/dev/null | grep -q __llvm_covmap; then echo "$file"; fi; done)
llvm-cov-19 export -format=lcov -instr-profile "$dir/all.profdata" "${programs[0]}" \
  "${programs[@]/#/-object=}" -sources "$top/include" >"$dir/all.lcov" 2>"$top/build/log/llvm-cov.log"
tests/coverage/table.py "$top/include/erofs_oci" "$dir/all.lcov"
exit "$status"
