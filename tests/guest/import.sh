#!/usr/bin/env bash
# Mounts of mount.erofs whose daemon is dead are served on, on a real kernel: the files are right, then
# and after everything that happens to a mount of ours; and what is not what was mounted is refused.
#
# usage: tests/guest/import.sh
#
# MOUNT_OCI: the tool (build/bin/mount-oci). The other tool's daemon is other_daemon.py, which sets
# devices up in the same way.
set -euo pipefail
WORK_NAME=import
. "$(dirname "${BASH_SOURCE[0]}")/outside.sh"
data=$top/tests/data/oci
fresh_work
"$top/tools/make_layout.py" "$data"/{basic,ckpt}.tar.gz "$work/layout" --tag v1 >/dev/null
"$top/tools/make_layout.py" "$data"/{ckpt,multi}.tar.gz "$work/moved" --tag v1 >/dev/null
# What mount.erofs serves: the tarindex, then the part of the tar that the tarindex maps.
python3 - "$data" "$work" <<'END'
import gzip, sys
data, work = sys.argv[1:]
index = open(f"{data}/gz-ckpt.erofs", "rb").read()
slot = int.from_bytes(index[1112:1114], "little") * 128
size = 512 * int.from_bytes(index[slot + 64:slot + 68], "little")
tar = gzip.decompress(open(f"{data}/ckpt.tar.gz", "rb").read())
open(f"{work}/layer.image", "wb").write(index + tar[:size].ljust(size, b"\0"))
END
for name in basic ckpt; do
  mkdir "$work/$name"
  tar -C "$work/$name" -xzf "$data/$name.tar.gz"
  mkfs.erofs --quiet "$work/$name.image" "$work/$name"
done
mkfs.erofs --quiet -U 01234567-89ab-cdef-0123-456789abcdef "$work/same.image" "$work/ckpt"
"$here/run.sh" -t 500 TOOL="$tool" WORK="$work" DATA="$data" "$here/import_inside.sh"
