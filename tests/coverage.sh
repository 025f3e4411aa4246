#!/usr/bin/env bash
# Says which lines of include/ the tests run: a table by folder, and for each file under 80 % the lines
# that none of them runs. Builds with clang in build/coverage.
#
# usage: tests/coverage.sh [all | unit | FOLDER...]
#          all      all tests: unit, integration, simulation; what runs in a guest or until it is killed
#                   leaves no trace
#          unit     the unit tests
#          FOLDER   those of these folders of tests/unit, such as tar
#        Default: all. JOBS: compilers, and tests, at a time. Default: as many as there are processors.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
. tools/build.sh

dir=$top/build/coverage
jobs=${JOBS:-$(nproc)}
flags='-O0 -g0 -fprofile-instr-generate -fcoverage-mapping'
[ $# != 0 ] || set -- all
case $1 in
  all) targets=() tests=(-R '^(unit|integration|simulation)/') ;;
  unit) targets=(--target unit_tests) tests=(-R '^unit/' -E '^unit/(tool|snapshotter)/') ;;
  *)
    for folder in "$@"; do
      [ -d "tests/unit/$folder" ] || { echo "there is no tests/unit/$folder" >&2 && exit 2; }
    done
    targets=(--target "${@/#/test-}") tests=(-R "^unit/($(IFS='|' && echo "$*"))/")
    ;;
esac

tools/packages.sh build check
if [ ! -f "$dir/build.ninja" ]; then
  quietly configure-coverage configure clang -B "$dir" "-DCMAKE_CXX_FLAGS_DEBUG=$flags"
fi
quietly build-coverage cmake --build "$dir" -j "$jobs" "${targets[@]}"

rm -rf "$dir/profiles"
mkdir -p "$dir/profiles"
# %4m: four files for each program, to which all its runs add.
status=0
quietly coverage-tests env "LLVM_PROFILE_FILE=$dir/profiles/%4m.profraw" \
  ctest --test-dir "$dir" -j "$jobs" --no-tests=error "${tests[@]}" || status=$?

llvm-profdata-19 merge -o "$dir/all.profdata" "$dir"/profiles/*.profraw
mapfile -t programs < <(find "$dir" -name CMakeFiles -prune -o -type f -perm -u+x ! -name '*.so*' -print |
  while read -r file; do if readelf -S "$file" 2>/dev/null | grep -q __llvm_covmap; then echo "$file"; fi; done)
llvm-cov-19 export -format=lcov -instr-profile "$dir/all.profdata" "${programs[0]}" \
  "${programs[@]/#/-object=}" -sources "$top/include" >"$dir/all.lcov" 2>"$top/build/log/llvm-cov.log"
tests/coverage/table.py "$top/include/erofs_oci" "$dir/all.lcov"
exit "$status"
