#!/usr/bin/env bash
# Runs the tests of oci-snapshotter that have a containerd with those of other Debian suites: each suite's
# containerd, ctr, shim and runc run here, on this machine's kernel and beside the snapshotter.
#
# usage: tests/containerd.sh [SUITE...]     by default trixie testing
#
# Needs root, mmdebstrap and patchelf, and build/snapshotter with oci-snapshotter and mount-oci. The trees are
# taken once, to build/trees, from the Debian mirror that this machine uses; to take one again, remove its
# directory. TESTS chooses among the tests, as ctest -R does.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$top/tests/trees.sh"
programs=(containerd containerd-shim-runc-v2 ctr runc)
tests=${TESTS:-^integration/snapshotter/(containerd|credentials|operations)\$}

# The suite's files without its scripts: nothing runs in there.
take_tree() {
  local suite=$1 tree=$trees/containerd-$1
  new_tree "$suite" "$tree" --variant=extract --include=containerd,runc || return
  take_programs "$tree.new" "$tree" || return
  mv "$tree.new" "$tree"  # complete or not there
}

# take_programs NEW TREE: to oci-programs, so that they find the libraries that they were built for at TREE. Both runc
# and the shim start themselves by /proc/self/exe, which a call of the loader would be.
take_programs() {
  local new=$1 tree=$2 loader name
  loader=$(cd "$new" && find . -name ld-linux-x86-64.so.2 -type f -print -quit)
  [ -n "$loader" ] || { echo "$new has no loader" >&2; return 1; }
  loader=$tree/${loader#./}
  mkdir "$new/oci-programs"
  for name in "${programs[@]}"; do
    cp "$(find "$new"/usr/{s,}bin -name "$name" -type f -print -quit)" "$new/oci-programs/" || return
    patchelf --set-interpreter "$loader" --set-rpath "$(dirname "$loader")" "$new/oci-programs/$name" || return
  done
}

check_suite() {
  local suite=$1 place=$trees/containerd-$1/oci-programs
  [ -d "$place" ] || take_tree "$suite" || return
  local -x PATH=$place:$PATH
  [ "$(command -v containerd)" = "$place/containerd" ] || return
  containerd --version
  runc --version | head -n 1
  ctest --test-dir "$top/build/snapshotter" -R "$tests" --no-tests=error --output-on-failure
}

if [ $# = 0 ]; then set -- trixie testing; fi
for_suites check_suite "$@"
