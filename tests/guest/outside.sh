# Sourced by the scripts that prepare a guest's run and start it, with WORK_NAME set: the folders, the tool
# (MOUNT_OCI, else build/bin/mount-oci), and work, a directory of that name, which is not made yet.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
tool=$(realpath "${MOUNT_OCI:-$top/build/bin/mount-oci}")
work=$top/build/guest/$WORK_NAME

# Empties it.
fresh_work() {
  rm -rf "$work"
  mkdir -p "$work"
}
