#!/usr/bin/env bash
# usage: install.sh BUILD_DIR PREFIX
# Installs what developers need, checks that it is the headers of include/ and no machine code, and
# that the tool and the compiled library are components of their own. The latter is then there, too.
set -euo pipefail
build=$1 prefix=$2
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

rm -rf "$prefix"
cmake --install "$build" --prefix "$prefix" --component erofs_oci-dev >/dev/null
diff <(cd "$top/include" && find . -name '*.hpp' | sort) <(cd "$prefix/include" && find . -type f | sort)
[ -z "$(find "$prefix" -type f -perm /111)" ] || { echo "a program among the headers"; exit 1; }
if grep -rF "$top" "$prefix/share"; then
  echo "the installed files name the source tree"
  exit 1
fi
cmake --install "$build" --prefix "$prefix" --component erofs_oci-compiled >/dev/null
[ -n "$(find "$prefix" -name 'liberofs_oci_compiled.a')" ] || { echo "no compiled library"; exit 1; }
if grep -rF "$top" "$prefix/share"; then
  echo "the installed files of the compiled library name the source tree"
  exit 1
fi
