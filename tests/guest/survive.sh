#!/usr/bin/env bash
# Mounts outlive the processes that serve them: workers killed at random instants, a registry that is
# away, tokens that expire, tags that move, files that are replaced, passwords that change, and a dead
# supervisor, on a real kernel.
#
# usage: tests/guest/survive.sh [KILLS]       kills of the first part, 40
#
# MOUNT_OCI: the tool (build/bin/mount-oci). KEEP_MOUNTED: the example (built if it is not there). EROFS_OCI_FIXTURES: where debian-essential/ is
# (../shared/fixtures); without it the first part reads a small layer.
set -euo pipefail
WORK_NAME=survive
. "$(dirname "${BASH_SOURCE[0]}")/outside.sh"
fixture=${EROFS_OCI_FIXTURES:-$top/../shared/fixtures}/debian-essential
layer=$fixture/layer.tar.gz
[ -e "$layer" ] || layer=$top/tests/data/oci/ckpt.tar.gz
fresh_work
"$top/tools/make_layout.py" "$layer" "$work/large" --tag v1 >/dev/null
"$top/tools/tree_manifest.py" tar "$layer" >"$work/large.jsonl"
"$tool" index -o oci.store="$work/store" "oci:$work/large:v1" >/dev/null
"$top/tools/make_layout.py" "$top"/tests/data/oci/{basic,ckpt}.tar.gz "$work/layout" --tag v1 >/dev/null
mkdir -p "$work/self"
cp "$tool" "$work/self/mount-oci"
tar -C "$work/self" -czf "$work/self.tar.gz" mount-oci
"$top/tools/make_layout.py" "$work/self.tar.gz" "$work/selfish" --tag v1 >/dev/null
keep_mounted=${KEEP_MOUNTED:-$top/build/bin/example-keep_mounted}
[ -x "$keep_mounted" ] || cmake --build "$top/build/release" --target example-keep_mounted >/dev/null
mkdir "$work/plain"
tar -xzf "$top/tests/data/oci/ckpt.tar.gz" -C "$work/plain"
mkfs.erofs "$work/plain.erofs" "$work/plain" >/dev/null
"$here/run.sh" -t "$((400 + 4 * ${1:-40}))" TOOL="$tool" WORK="$work" DATA="$top/tests/data/oci" \
  TOOLS="$top/tools" KEEP_MOUNTED="$keep_mounted" KILLS="${1:-40}" "$here/survive_inside.sh"
