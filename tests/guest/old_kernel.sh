#!/usr/bin/env bash
# On the kernel that Debian 12 comes with, whose EROFS reads no blocks of 512 bytes and whose FUSE repeats no
# request: a mount says so, serves the files itself, and its workers may be killed at random instants.
#
# usage: tests/guest/old_kernel.sh [KILLS]       KILLS: 20
#
# MOUNT_OCI: the tool (build/bin/mount-oci).
set -euo pipefail
WORK_NAME=old_kernel
. "$(dirname "${BASH_SOURCE[0]}")/outside.sh"
layer=$top/tests/data/oci/ckpt.tar.gz
fresh_work
"$top/tools/make_layout.py" "$layer" "$work/layout" --tag v1 >/dev/null
"$top/tools/tree_manifest.py" tar "$layer" >"$work/manifest.jsonl"
GUEST_KERNEL=6.1 "$here/run.sh" -t 300 TOOL="$tool" LAYOUT="$work/layout" DATA="$top/tests/data/oci" \
  MANIFEST="$work/manifest.jsonl" TOOLS="$top/tools" KILLS="${1:-20}" "$here/old_kernel_inside.sh"
