#!/usr/bin/env bash
# Run by tests/guest/run.sh for mount_layer.sh: mounts by ATTACH, compares, unmounts, looks around.
set -uo pipefail
MNT=/mnt/img WHAT=$ATTACH
. "$(dirname "${BASH_SOURCE[0]}")/inside.sh"

list_all() { find "$MNT" | wc -l; }
read_libraries() { find "$MNT/usr/lib/x86_64-linux-gnu" -maxdepth 1 -type f | sort | head -n 60 | xargs cat | wc -c; }
drop_caches() { echo 3 >/proc/sys/vm/drop_caches; }
mount_it() {
  local options=oci.blob=$DIGEST,oci.platform=linux/amd64,oci.insecure
  options+=,oci.tarindex=$FIXTURE/layer.erofs,oci.zinfo=$FIXTURE/layer.zinfo
  local how=()
  [ "$ATTACH" = netlink ] || how=(--attach "$ATTACH")
  "$TOOL" -t erofs.nbd "${how[@]}" -o "$options" localhost:5000/img:latest "$MNT"
}

check "registry answers" start_registry "$WORK/registry/data"
mkdir "$MNT"
remember_traces
check "mount" mount_it
check "mounted as erofs, read-only" mounted_readonly
check "list" list_all
check "60 files of /usr/lib" read_libraries
check "every file is as tar extracts it" files_equal "$WORK/wanted.jsonl"
if [ "$ATTACH" = netlink ]; then
  # The last close of a netlink device ends it, so umount(8) is enough; an ioctl device has no such wish.
  check "umount(8)" umount "$MNT"
  check "not mounted" not_mounted
  check "no process, device or file is left" nothing_left
  check "mount again" mount_it
fi
drop_caches
check "60 files, without the kernel's cache" read_libraries
check "mount-oci -u" "$TOOL" -u "$MNT"
check "not mounted" not_mounted
check "no process, device or file is left" nothing_left
exit $((failed != 0))
