#!/usr/bin/env bash
# Run by tests/guest/run.sh for ways.sh.
set -uo pipefail
failed=0
cd /run/tmp || exit 1
mnt=/mnt/a
mkdir -p "$mnt"
gzip -dc "$DATA/ckpt.tar.gz" | tar xf - --one-top-level=/run/tmp/wanted
removed=$(find wanted -mindepth 1 -maxdepth 1 ! -name README -printf '%f\n' | sort | head -n 1)
[ -n "$removed" ] || exit 1

check() {  # check WHAT COMMAND...: one line a check
  if (shift; "$@") >output 2>&1; then
    echo "ok      $1"
  else
    echo "FAILED  $1"
    tail -n 20 output
    failed=$((failed + 1))
  fi
}
mount_it() { "$TOOL" mount -o oci.store=/run/tmp/store "$@" "oci:$LAYOUT:v1" "$mnt" 2>said || { cat said; return 1; }; }
says() { cat said; grep -q -- "$1" said; }
has_type() { grep " $mnt " /proc/mounts; grep -q " $mnt $1 " /proc/mounts; }
traces() {
  grep " $mnt " /proc/mounts
  grep -l oci.store /proc/[0-9]*/cmdline 2>/dev/null
  ls -d /run/erofs_oci-* /run/mount-oci-* 2>/dev/null
  losetup -a
}
nothing_left() {
  for _ in $(seq 50); do [ -z "$(traces)" ] && return 0; sleep 0.1; done
  traces
  return 1
}
change() { echo more >>"$mnt/README" && mkdir "$mnt/new" && rm -r "$mnt/$removed"; }
changed() { grep -qx more "$mnt/README" && [ -d "$mnt/new" ] && [ ! -e "$mnt/$removed" ]; }

round() {  # round WHAT WAY TYPE [OPTION...]
  local what=$1 way=$2 type=$3
  shift 3
  check "$what: mount" mount_it "$@"
  check "$what: by $way" says "mounted by $way"
  check "$what: as $type" has_type "$type"
  check "$what: the files are right" diff -r wanted "$mnt"
  check "$what: umount" "$TOOL" umount "$mnt"
  check "$what: nothing is left" nothing_left
  check "$what, writable: mount" mount_it --writable=/run/tmp/changes "$@"
  check "$what, writable: change" change
  check "$what, writable: umount(8)" umount "$mnt"
  check "$what, writable: nothing is left" nothing_left
  check "$what, writable: mount again" mount_it --writable=/run/tmp/changes "$@"
  check "$what, writable: what was changed" changed
  check "$what, writable: umount" "$TOOL" umount "$mnt"
  check "$what, writable: nothing is left at the end" nothing_left
  rm -rf /run/tmp/changes
}

round "with nbd" netlink erofs
round "with nbd, one process" netlink erofs --no-supervise --allow-unconfined
check "nbd is unloaded" rmmod nbd
round "without nbd" fuse-file erofs
check "without nbd: -v says why" bash -c "'$TOOL' mount -v -o oci.store=none 'oci:$LAYOUT:v1' '$mnt' 2>&1 | grep -F 'not netlink: no nbd in this kernel' && '$TOOL' umount '$mnt'"
round "without nbd, one process" fuse-file erofs --no-supervise --allow-unconfined
check "nbd is missing: by name" bash -c "'$TOOL' mount --attach netlink 'oci:$LAYOUT:v1' '$mnt' 2>&1 | grep -F 'netlink: no nbd in this kernel'"

echo "$failed checks failed"
exit $((failed > 0))
