#!/usr/bin/env bash
# Debian's containerd and runc with oci-snapshotter on a kernel that has nbd: containers of an image share one
# device, which netlink connects, and outlive whatever is killed.
#
# usage: tests/guest/snapshotter.sh BUILD       BUILD: a build folder with oci-snapshotter, mount-oci and
#                                              oci-registry
#
# MOUNT_OCI, OCI_SNAPSHOTTER: these programs, if they are elsewhere.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(realpath "$1")
protos=$(sed -n 's/^oci_snapshotter_proto:[A-Z]*=//p' "$build/CMakeCache.txt")
GUEST_MB=2048 "$here/run.sh" -t 900 MOUNT_OCI="${MOUNT_OCI:-$build/example/mount-oci}" \
  OCI_SNAPSHOTTER="${OCI_SNAPSHOTTER:-$build/example/snapshotter/oci-snapshotter}" \
  SNAPSHOTS_PROTO="$protos" "$here/snapshotter_inside.sh"
