#!/usr/bin/env bash
# What README.md tells a newcomer to do, in a clean tree of a Debian suite that has git: clone, ./run, some
# tests, the packages; then those are installed, used as a user and as a developer would, and purged.
#
# usage: tests/newcomer.sh [--whole] [SUITE...]     by default bookworm; --whole: ./check as it is, which takes
#                                                  an hour, and not a few of its tests
#
# Needs what trees.sh needs, and a kernel with EROFS and FUSE. What is cloned is the last commit. The packages
# are left in build/newcomer/SUITE/newcomer.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$top/tests/trees.sh"

check_suite() {
  local suite=$1 out=$top/build/newcomer/$1
  make_tree "$suite" "newcomer-$suite" git "${user_packages[@]}" || return
  rm -rf "$out"
  mkdir -p "$out/newcomer"
  user_image "$out"
  git clone --quiet --bare "$top" "$out/erofs_oci.git" || return
  in_tree "newcomer-$suite" "$out" bash /src/tests/newcomer.sh --inside "$tests"
}

# ---------------------------------------------------------------- in a tree
inside() {
  export LC_ALL=C.UTF-8 CCACHE_DIR=/var/ccache
  cd /root
  did "git clone" git clone --quiet /out/erofs_oci.git erofs_oci
  cd erofs_oci
  did "./run" ./run
  did "./run --version" ./run --version
  if [ "$1" = whole ]; then did "./check" ./check; else did "some tests of ./check" some_tests; fi
  did "packages" cmake --build build/release --target package
  cp build/release/packages/*.deb /out/newcomer/
  did "mount-oci is installed, used and purged" bash tests/packages.sh --use newcomer
  did "erofs-oci-dev is installed, used and purged" bash tests/packages.sh --develop newcomer
}

some_tests() {
  top=$PWD
  . tools/build.sh
  tools/packages.sh build check
  configure dev
  cmake --build build/dev --target test-core test-source -- -k 0
  ctest --test-dir build/dev --no-tests=error --output-on-failure \
    -R '^unit/(core|source)/|^project/(layers|umbrella|pages-programs|facts|operations)'
}

# did WHAT COMMAND...: a line if it succeeds, the end of its output and no more if it does not.
did() {
  local what=$1 start=$SECONDS status
  shift
  set +e
  (set -e; "$@") >/out/log 2>&1
  status=$?
  set -e
  [ "$status" = 0 ] || { tail -n 40 /out/log; echo "FAILED  $what"; exit 1; }
  echo "ok      $what ($((SECONDS - start)) s)"
}

if [ "${1:-}" = --inside ]; then inside "$2"; exit; fi
tests=some
if [ "${1:-}" = --whole ]; then tests=whole; shift; fi
if [ $# = 0 ]; then set -- bookworm; fi
for_suites check_suite "$@"
