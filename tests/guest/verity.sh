#!/usr/bin/env bash
# dm-verity over a device and over a file of FUSE, on a real kernel: the files are right, what the tree
# does not say is an error and never a wrong byte, workers and supervisors may die, and nothing is left.
#
# usage: tests/guest/verity.sh
#
# MOUNT_OCI: the tool (build/bin/mount-oci).
set -euo pipefail
WORK_NAME=verity
. "$(dirname "${BASH_SOURCE[0]}")/outside.sh"
fresh_work
mkdir "$work/files"
python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes(300000))' >"$work/files/data"
seq 2000 >"$work/files/first"
seq 3000 >"$work/files/last"
tar -C "$work/files" --sort=name -cf "$work/layer.tar" data first last
"$top/tools/make_layout.py" "$top/tests/data/oci/ckpt.tar.gz" "$work/layer.tar" "$work/layout" --tag v1 >/dev/null
"$top/tools/make_layout.py" "$work/layer.tar" "$work/small" --tag v1 >/dev/null
"$tool" index --verity --json -o oci.store="$work/store" "oci:$work/layout:v1" | tail -n 1 >"$work/tree.json"
"$tool" index -o oci.store="$work/bare-store" "oci:$work/small:v1" >/dev/null
# Stores with the trees of other devices than the one that will be served: one byte of a file's data or of
# the metadata differs.
"$tool" index --verity -o oci.store="$work/small-store" "oci:$work/small:v1" >/dev/null
cat "$work"/small-store/images/*/image "$work/layer.tar" >"$work/device"
truncate -s %4096 "$work/device"
export PATH=$PATH:/usr/sbin
for what in data metadata; do
  cp -r "$work/small-store" "$work/$what-store"
  cp "$work/device" "$work/$what-device"
  [ "$what" = data ] && at=150000 || at=1100
  printf X | dd of="$work/$what-device" bs=1 seek="$at" conv=notrunc 2>/dev/null
  rm "$work/$what-store"/images/*/verity
  veritysetup format --salt=- --data-block-size=512 "$work/$what-device" \
    "$(echo "$work/$what-store"/images/*)/verity" >/dev/null
done
# Who signs the tree that a registry has.
openssl genpkey -algorithm ed25519 -out "$work/key"
openssl pkey -in "$work/key" -pubout -out "$work/key.pub"
"$here/run.sh" -t 1200 TOOL="$tool" WORK="$work" DATA="$top/tests/data/oci" TOOLS="$top/tools" \
  "$here/verity_inside.sh"
