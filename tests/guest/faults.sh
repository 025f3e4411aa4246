#!/usr/bin/env bash
# What a reader sees of a device when the registry is away or bytes are wrong: an error in time, and
# other files as they should be, whatever becomes of the worker.
#
# usage: tests/guest/faults.sh
#
# MOUNT_OCI: the tool (build/bin/mount-oci).
set -euo pipefail
WORK_NAME=faults
. "$(dirname "${BASH_SOURCE[0]}")/outside.sh"
fresh_work
mkdir "$work/files"
head -c 6000000 /dev/urandom >"$work/files/bad"  # more than one span
seq 20000 >"$work/files/good"
tar -C "$work/files" -czf "$work/layer.tar.gz" bad good
"$top/tools/make_layout.py" "$work/layer.tar.gz" "$work/layout" --tag v1 >/dev/null
"$tool" index -o oci.store="$work/store" "oci:$work/layout:v1" >/dev/null
"$here/run.sh" -t 600 TOOL="$tool" WORK="$work" "$here/faults_inside.sh"
