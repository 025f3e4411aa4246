#!/usr/bin/env bash
# Compiles every public header, and builds and runs the tests of HTTP, in clean trees of Debian's
# suites, each with its own compiler and its own versions of the libraries.
#
# usage: tests/distributions.sh [SUITE...]     by default bookworm trixie testing
#
# Needs root, for mmdebstrap and chroot. The trees are made once, in build/trees, from the Debian
# mirror that this machine uses; to make one again, remove its directory.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$top/tests/trees.sh"
packages=(ca-certificates catch2 cmake g++ libcli11-dev libcpp-httplib-dev libexpected-dev libfuse3-dev
  libisal-dev libnl-genl-3-dev librange-v3-dev librapidcheck-dev libseccomp-dev libssl-dev libtomlplusplus-dev ninja-build
  nlohmann-json3-dev pkg-config zlib1g-dev)

make_tree() {
  local suite=$1 site
  site=$(mirror)
  [ -n "$site" ] || { echo "apt knows no Debian mirror" >&2; return 1; }
  rm -rf "$trees/$suite.new"
  mmdebstrap "${tree_options[@]}" --variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --include="$(IFS=,; echo "${packages[*]}")" \
    "$suite" "$trees/$suite.new" "deb [signed-by=$debian_key] $site $suite main"
  echo '127.0.0.1 localhost' >"$trees/$suite.new/etc/hosts"
  mkdir -p "$trees/$suite.new/src"
  mv "$trees/$suite.new" "$trees/$suite"  # complete or not there
}

# What runs inside. Its file systems go with its mount namespace.
in_tree() {
  local tree=$trees/$1
  shift
  unshare --mount --pid --fork --propagation private bash -c '
    tree=$1 top=$2; shift 2
    mount --rbind /dev "$tree/dev" && mount --rbind /sys "$tree/sys" && mount -t proc proc "$tree/proc" &&
      mount --bind "$top" "$tree/src" && exec chroot "$tree" "$@"' - "$tree" "$top" "$@"
}

check_tree() {
  local suite=$1
  [ -d "$trees/$suite" ] || make_tree "$suite" || return
  in_tree "$suite" bash /src/tests/distributions.sh --inside
}

# ---------------------------------------------------------------- in a tree
inside() {
  export LC_ALL=C
  cd /src
  local out
  out=$(mktemp -d)
  dpkg-query -W -f '${Package} ${Version}\n' g++ libcpp-httplib-dev catch2
  local flags
  # Theirs are system headers, whose warnings are not ours to mend.
  flags=$(pkg-config --cflags cpp-httplib libnl-genl-3.0 libisal fuse3 | sed 's/-I/-isystem /g')
  export flags
  compile_headers || return
  run_tests "$out"
}

compile_headers() {
  find include -name '*.hpp' | sort | xargs -P "$(nproc)" -I '{}' bash -c '
    echo "#include <${1#include/}>" |
      g++ -std=c++20 -Wall -Wextra -Werror -fsyntax-only -Iinclude $flags -DEROFS_OCI_HAVE_ISAL=1 -x c++ - ||
      { echo "$1 does not compile" >&2; exit 1; }' - '{}' &&
    echo "$(find include -name '*.hpp' | wc -l) headers"
}

run_tests() {
  local out=$1 source name catch
  if [ -e /usr/include/catch2/catch_all.hpp ]; then
    catch=(-lCatch2Main -lCatch2)
  else
    echo '#define CATCH_CONFIG_MAIN
#include <catch.hpp>' >"$out/main.cpp"
    g++ -Itests -c "$out/main.cpp" -o "$out/main.o"
    catch=("$out/main.o")
  fi
  for source in tests/unit/http/*_test.cpp tests/unit/source/http_test.cpp; do
    name=$(basename "$(dirname "$source")")-$(basename "$source" _test.cpp)
    # shellcheck disable=SC2086
    g++ -std=c++20 -Wall -Wextra -Iinclude -Itests $flags "$source" -o "$out/$name" "${catch[@]}" \
      -lrapidcheck $(pkg-config --libs cpp-httplib) -lssl -lcrypto -pthread
    "$out/$name" >"$out/$name.log" 2>&1 || { cat "$out/$name.log" >&2; return 1; }
    echo "$name: $(tail -n 2 "$out/$name.log" | head -n 1)"
  done
}

if [ "${1:-}" = --inside ]; then
  inside
  exit
fi
mkdir -p "$trees"
suites=("$@")
[ $# != 0 ] || suites=(bookworm trixie testing)
for suite in "${suites[@]}"; do
  echo "== $suite"
  check_tree "$suite" || { echo "$suite: failed" >&2; exit 1; }
done
