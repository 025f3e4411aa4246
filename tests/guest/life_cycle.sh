#!/usr/bin/env bash
# How mounts begin and end on a real kernel: every order of signals, failures and unmounts leaves
# right bytes while it lives, a clear error when it cannot, and nothing afterwards.
#
# usage: tests/guest/life_cycle.sh
#
# MOUNT_OCI: the tool (build/bin/mount-oci).
set -euo pipefail
WORK_NAME=life
. "$(dirname "${BASH_SOURCE[0]}")/outside.sh"
fresh_work
"$top/tools/make_layout.py" "$top"/tests/data/oci/{basic,ckpt}.tar.gz "$work/layout" --tag v1 >/dev/null
"$here/run.sh" -t 400 TOOL="$tool" LAYOUT="$work/layout" DATA="$top/tests/data/oci" \
  "$here/life_cycle_inside.sh"
