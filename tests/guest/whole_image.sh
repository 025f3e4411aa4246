#!/usr/bin/env bash
# Images of three and of 64 layers, pushed by skopeo to docker-registry, mounted whole and without any
# index on a real kernel: every file is as umoci unpacks it; then mounted again, from what is kept.
#
# usage: tests/guest/whole_image.sh
#
# MOUNT_OCI: the tool (build/bin/mount-oci). Skipped with status 77 without skopeo, umoci or
# docker-registry.
set -euo pipefail
WORK_NAME=whole
. "$(dirname "${BASH_SOURCE[0]}")/outside.sh"
[ -x "$tool" ] || { echo "no $tool; ./run --version builds it" >&2; exit 1; }
for program in skopeo umoci docker-registry; do
  command -v "$program" >/dev/null || { echo "skipped: no $program"; exit 77; }
done

# Made here, where it is fast; the guest only reads.
fresh_work
MOUNT_OCI=$tool PYTHONPATH=$top/tests/integration/tool python3 -B - "$work" <<'END'
import sys
import images

work = sys.argv[1]
for name, layers in (("three", images.three_layers()), ("many", images.many_layers(64))):
    layout = images.layout_of(f"{work}/{name}", layers)
    images.unpacked(layout, f"{work}/{name}/bundle")
END
for name in three many; do
  "$top/tools/tree_manifest.py" dir "$work/$name/bundle/rootfs" >"$work/$name.jsonl"
  "$here/fill_registry.sh" "$work/$name/layout" v1 "$work/registry" "$name"
  rm -rf "${work:?}/$name"
done
"$here/run.sh" -t 300 TOOL="$tool" WORK="$work" TOOLS="$top/tools" "$here/whole_image_inside.sh"
