#!/usr/bin/env bash
# Run by tests/guest/run.sh for old_kernel.sh.
set -uo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
WHAT=$(uname -r) MNT=/mnt/image
. "$here/inside.sh"
cd /run/tmp || exit 1
mkdir -p "$MNT"
remember_traces
mount_it() { "$TOOL" mount "$@" -o oci.store=/run/tmp/store "oci:$LAYOUT:v1" "$MNT"; }
is_refused() { ! mount_it --attach "$1" 2>said && cat said && grep -q "it needs 6.4.0" said; }
is_fuse_tree() { mount_it -v 2>said && cat said && grep -q "mounted by fuse-tree" said; }

for way in netlink fuse-file; do
  check "$way: refused, since the kernel reads no such blocks" is_refused "$way"
done
check "fuse-tree is what is taken" is_fuse_tree
check "the files are right" files_equal "$MANIFEST"
"$here/kill_storm.py" "$MNT" "$MANIFEST" "$KILLS" || failed=$((failed + 1))
check "the files are right in the end" files_equal "$MANIFEST"
check "a newer program takes over" "$TOOL" reattach --replace "$MNT"
check "the files are right after that" files_equal "$MANIFEST"
check "umount" "$TOOL" umount "$MNT"
check "nothing is left" nothing_left
echo "$failed checks failed"
exit $((failed > 0))
