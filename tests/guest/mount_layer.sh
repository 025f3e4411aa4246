#!/usr/bin/env bash
# A real layer, from a real registry, on a real kernel: every file as tar extracts it, and nothing
# left behind afterwards.
#
# usage: tests/guest/mount_layer.sh [netlink|ioctl ...]       both unless said otherwise
#
# MOUNT_OCI: the tool (build/bin/mount-oci). EROFS_OCI_FIXTURES: where debian-essential/ is
# (../shared/fixtures); without it the test is skipped with status 77.
set -euo pipefail
WORK_NAME=layer
. "$(dirname "${BASH_SOURCE[0]}")/outside.sh"
fixture=${EROFS_OCI_FIXTURES:-$top/../shared/fixtures}/debian-essential
[ -e "$fixture/layer.tar.gz" ] || { echo "skipped: no $fixture"; exit 77; }
fixture=$(realpath "$fixture")
[ -x "$tool" ] || { echo "no $tool; ./run --version builds it" >&2; exit 1; }
[ $# -gt 0 ] || set -- netlink ioctl

mkdir -p "$work"

# The registry is filled here, where it is fast, and only read in the guest.
if [ ! -e "$work/ready" ]; then
  fresh_work
  "$top/tools/make_layout.py" "$fixture/layer.tar.gz" "$work/layout" --tag latest >"$work/digests"
  "$top/tools/tree_manifest.py" tar "$fixture/layer.tar.gz" >"$work/wanted.jsonl"
  "$here/fill_registry.sh" "$work/layout" latest "$work/registry" img
  touch "$work/ready"
fi
digest=$(awk '$1 == "layer" {print $2}' "$work/digests")

for attach in "$@"; do
  "$here/run.sh" -t 500 ATTACH="$attach" TOOL="$tool" FIXTURE="$fixture" WORK="$work" \
    DIGEST="$digest" TOOLS="$top/tools" "$here/mount_layer_inside.sh"
done
