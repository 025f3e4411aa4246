#!/usr/bin/env bash
# Which way to mount is chosen on a kernel that has all of them, and on the same one without nbd; by each
# of them the files are right, a writable mount keeps its changes, and nothing is left.
#
# usage: tests/guest/ways.sh
#
# MOUNT_OCI: the tool (build/bin/mount-oci).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
tool=$(realpath "${MOUNT_OCI:-$top/build/bin/mount-oci}")
work=$top/build/guest/ways
rm -rf "$work"
mkdir -p "$work"
"$top/tools/make_layout.py" "$top"/tests/data/oci/ckpt.tar.gz "$work/layout" --tag v1 >/dev/null
"$here/run.sh" -t 300 TOOL="$tool" LAYOUT="$work/layout" DATA="$top/tests/data/oci" \
  "$here/ways_inside.sh"
