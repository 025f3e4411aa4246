#!/usr/bin/env bash
# Run by tests/guest/run.sh for verity.sh.
set -uo pipefail
WHAT=verity MNT=/mnt/image
LONGEST=120  # under emulation 30 s may be too short for all that such a mount does
. "$(dirname "${BASH_SOURCE[0]}")/inside.sh"
cd /run/tmp || exit 1
mkdir -p "$MNT"
cp -r "$WORK"/{store,small-store,bare-store,data-store,metadata-store} .
mkdir wanted
gzip -dc "$DATA/ckpt.tar.gz" | tar xf - -C wanted
tar xf "$WORK/layer.tar" -C wanted
root=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["root_hash"])' "$WORK/tree.json")

image() {  # image STORE NAME WAY OPTION...: mounts it
  local store=$1 name=$2 way=$3
  shift 3
  timeout 200 "$TOOL" mount -v --attach "$way" -o "oci.store=/run/tmp/$store" "$@" "oci:$WORK/$name:v1" "$MNT" 2>said ||
    { cat said; return 1; }
}
mount_it() { image store layout "$@"; }
same_files() { diff -r --no-dereference wanted "$MNT"; }
checked() { findmnt -n -o SOURCE "$MNT" | grep -x "/dev/mapper/erofs_oci-$1"; }
told() { dmsetup table | grep "verity 1 .* 512 4096 .* sha256 $root -"; }
by_status() { test "$(status_of verity "$MNT")" = "$root" && "$TOOL" status "$MNT" | grep "checks by dm-verity, root hash $root"; }
no_dm() { dmsetup ls; ! ls /sys/block | grep dm-; }
are_gone() { ! ls /sys/block | grep -q dm- && ! grep -q . /sys/block/loop*/loop/backing_file 2>/dev/null && ! pgrep -x mount-oci >/dev/null; }
all_gone() {  # what nothing_left does not see, and that
  for _ in $(seq 50); do are_gone && break; sleep 0.2; done
  ls /sys/block/dm-*/slaves; losetup -a; pgrep -a mount-oci
  are_gone && nothing_left
}
worker() { status_of worker "$MNT"; }
supervisor() { status_of supervisor "$MNT"; }
storm() { for _ in 1 2 3 4 5; do cold; same_files & local reader=$!; sleep 0.05; kill -9 "$(worker)"; wait "$reader" || return 1; done; }
remember_traces

for way in netlink fuse-file; do
  device=nbd0
  [ "$way" = netlink ] || device=loop0
  WHAT="verity, $way"
  check "mount" mount_it "$way" -o oci.verity=require
  check "the kernel reads through dm-verity" checked "$device"
  check "with the root hash that index has told" told
  check "the files are right" same_files
  check "status tells of it" by_status
  check "workers are killed while files are read" storm
  check "another process takes over" "$TOOL" reattach --replace "$MNT"
  cold
  check "the files are right after it" same_files
  check "status tells of it still" by_status
  if [ "$way" = netlink ]; then
    kill -9 "$(supervisor)"
    sleep 0.5
    check "the supervisor is dead: reattach" "$TOOL" reattach "$MNT"
    cold
    check "the files are right after that" same_files
    check "status tells of it then" by_status
  fi
  check "umount" "$TOOL" umount "$MNT"
  check "umount leaves no dm device" no_dm
  check "nothing is left" all_gone

  check "by default: mount" mount_it "$way"
  check "by default: through dm-verity" checked "$device"
  check "by default: umount(8)" umount "$MNT"
  check "by default: nothing is left" all_gone
  check "off: mount" mount_it "$way" -o oci.verity=off
  check "off: no dm-verity" no_dm
  check "off: umount" "$TOOL" umount "$MNT"

  check "the root hash is named: mount" mount_it "$way" -o "oci.verity=$root"
  check "the root hash is named: umount" "$TOOL" umount "$MNT"
  check "another root hash: refused" refuses "but oci.verity names" "$TOOL" mount --attach "$way" \
    -o "oci.store=/run/tmp/store,oci.verity=${root//[0-7]/8}" "oci:$WORK/layout:v1" "$MNT"
  check "no tree: refused" refuses "index --verity" "$TOOL" mount --attach "$way" \
    -o oci.store=/run/tmp/bare-store,oci.verity=require "oci:$WORK/small:v1" "$MNT"
  check "no tree, by default: mount" image bare-store small "$way"
  check "no tree, by default: it is said" grep "no Merkle tree" said
  check "no tree, by default: umount" "$TOOL" umount "$MNT"
  check "without a tree: nothing is left" all_gone

  check "writable: mount" mount_it "$way" -o oci.verity=require --writable
  check "writable: the files are right" same_files
  check "writable: umount" "$TOOL" umount "$MNT"
  check "writable: nothing is left" all_gone

  # ---------------------------------------------------------------- a worker that lies
  check "a false byte: mount" image data-store small "$way" -o oci.verity=require
  check "a false byte: other files are right" cmp "$MNT/last" wanted/last
  check "a false byte: no read yields it" python3 - "$MNT/data" wanted/data <<'END'
import errno, os, sys
good = open(sys.argv[2], "rb").read()
fd = os.open(sys.argv[1], os.O_RDONLY)
failed = []
for _ in range(2):
    for at in range(0, len(good), 512):
        try:
            assert os.pread(fd, 512, at) == good[at:at + 512], f"wrong bytes at {at}"
        except OSError as error:
            assert error.errno == errno.EIO, error
            failed.append(at)
# Byte 150000 of the device: the tar begins behind a page of metadata. With it fails as much as the kernel
# keeps in one piece, 4 KiB or more.
bad = (150000 - 4096 - 512) // 512 * 512
assert bad in failed, f"{len(failed)} failed, and not {bad}"
END
  check "a false byte: the kernel says so" bash -c "dmesg | grep 'data block .* is corrupted'"
  check "a false byte: the mount goes on" cmp "$MNT/first" wanted/first
  check "a false byte: umount" "$TOOL" umount "$MNT"
  check "a false byte: nothing is left" all_gone
  check "without dm-verity: mount" image data-store small "$way" -o oci.verity=off
  check "without dm-verity: it is read" cmp "$MNT/data" wanted/data
  check "without dm-verity: umount" "$TOOL" umount "$MNT"
  check "false metadata: not mounted" refuses "not what its Merkle tree says" "$TOOL" mount --attach "$way" \
    -o oci.store=/run/tmp/metadata-store,oci.verity=require "oci:$WORK/small:v1" "$MNT"
  check "false metadata: nothing is left" all_gone
done

WHAT=verity
# ---------------------------------------------------------------- a tree from a registry
cp -r "$WORK/layout" pushed
serve pushed --accept-pushes
check "index --push --verity" "$TOOL" index --push --verity --sign-key "$WORK/key" \
  -o oci.store=/run/tmp/store,oci.insecure "$host/app:v1"
from_registry() {
  timeout 120 "$TOOL" mount -v --attach netlink \
    -o "oci.insecure,oci.store=/run/tmp/empty,oci.index_key=$WORK/key.pub" "$@" "$host/app:v1" "$MNT" 2>said ||
    { cat said; return 1; }
}
check "from a registry, by default: mount" from_registry
check "from a registry, by default: no tree is fetched" no_dm
check "from a registry, by default: umount" "$TOOL" umount "$MNT"
check "from a registry: mount" from_registry -o oci.verity=require
check "from a registry: it is said" grep "Merkle tree sha256:.* which is signed" said
check "from a registry: with the root hash that index has told" told
check "from a registry: the files are right" same_files
check "from a registry: umount" "$TOOL" umount "$MNT"
close_registry
check "from a registry: nothing is left" all_gone

check "dm-verity is unloaded" rmmod dm_verity
check "no dm-verity: refused" refuses "no dm-verity in this kernel" "$TOOL" mount \
  -o oci.store=/run/tmp/store,oci.verity=require "oci:$WORK/layout:v1" "$MNT"
check "no dm-verity, by default: mount" mount_it netlink
check "no dm-verity, by default: it is said" grep "not by dm-verity: no dm-verity in this kernel" said
check "no dm-verity, by default: the files are right" same_files
check "no dm-verity, by default: umount" "$TOOL" umount "$MNT"
check "nothing is left at the end" all_gone
echo "$failed checks failed"
exit $((failed > 0))
