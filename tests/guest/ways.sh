#!/usr/bin/env bash
# Which way to mount is chosen on a kernel that has all of them, and on the same one without nbd; by each
# of them the files are right, a writable mount keeps its changes, and nothing is left.
#
# usage: tests/guest/ways.sh
#
# MOUNT_OCI: the tool (build/bin/mount-oci).
set -euo pipefail
WORK_NAME=ways
. "$(dirname "${BASH_SOURCE[0]}")/outside.sh"
fresh_work
"$top/tools/make_layout.py" "$top"/tests/data/oci/ckpt.tar.gz "$work/layout" --tag v1 >/dev/null
"$here/run.sh" -t 300 TOOL="$tool" LAYOUT="$work/layout" DATA="$top/tests/data/oci" \
  "$here/ways_inside.sh"
