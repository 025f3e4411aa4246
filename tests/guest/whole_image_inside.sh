#!/usr/bin/env bash
# Run by tests/guest/run.sh for whole_image.sh.
set -uo pipefail
MNT=/mnt/img WHAT=image
. "$(dirname "${BASH_SOURCE[0]}")/inside.sh"

store=/run/tmp/store
mount_it() {
  "$TOOL" -o "oci.insecure,oci.platform=linux/amd64,oci.store=$store" "localhost:5000/$name:v1" "$MNT"
}
one_mount() { test "$(grep -c erofs /proc/mounts)" = 1; }
one_device() { test "$(grep -L '^0$' /sys/block/nbd*/size | wc -l)" = 1; }
# The indexes, without the layer cache, which is in the same directory and notes its uses.
kept() {
  find "$store" -type d -name '*-[0-9]' -prune -o -type f -printf '%p %i %s %C@\n' | sort
}
unmounted() {
  umount "$MNT" && not_mounted && nothing_left
}

check "registry answers" start_registry "$WORK/registry/data"
mkdir "$MNT"
remember_traces
for name in three many; do
  WHAT="$name layers"
  check "mount without an index" mount_it
  check "mounted as erofs, read-only" mounted_readonly
  check "as one file system" one_mount
  check "on one device" one_device
  check "every file is as umoci unpacks it" files_equal "$WORK/$name.jsonl"
  check "unmounted, nothing is left" unmounted
  kept >/run/tmp/kept
  check "indexes are kept" test -s /run/tmp/kept
  check "mount from what is kept" mount_it
  kept >/run/tmp/kept_again
  check "nothing was indexed again" cmp /run/tmp/kept /run/tmp/kept_again
  check "every file is as umoci unpacks it" files_equal "$WORK/$name.jsonl"
  check "unmounted, nothing is left" unmounted
done
exit $((failed != 0))
