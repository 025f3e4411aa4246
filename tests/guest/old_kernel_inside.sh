#!/usr/bin/env bash
# Run by tests/guest/run.sh for old_kernel.sh.
set -uo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
WHAT=$(uname -r) MNT=/mnt/image
. "$here/inside.sh"
cd /run/tmp || exit 1
mkdir -p "$MNT"
remember_traces
for way in netlink fuse-file fuse-tree; do
  check "$way: mount" "$TOOL" mount --attach "$way" -o oci.store=/run/tmp/store,oci.cache=1M \
    "oci:$LAYOUT:v1" "$MNT"
  check "$way: the files are right" files_equal "$MANIFEST"
  "$here/kill_storm.py" "$MNT" "$MANIFEST" "$KILLS" || failed=$((failed + 1))
  check "$way: the files are right in the end" files_equal "$MANIFEST"
  check "$way: umount" "$TOOL" umount "$MNT"
  check "$way: nothing is left" nothing_left
done
echo "$failed checks failed"
exit $((failed > 0))
