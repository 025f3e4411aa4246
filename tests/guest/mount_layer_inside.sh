#!/usr/bin/env bash
# Run by tests/guest/run.sh for mount_layer.sh: mounts by ATTACH, compares, unmounts, looks around.
set -uo pipefail
failed=0
mnt=/mnt/img

check() {  # check WHAT COMMAND...: one line a check
  local what=$1 start
  shift
  start=$(date +%s%N)
  if "$@" >/run/tmp/output 2>&1; then
    printf 'ok      %s: %s (%d ms)\n' "$ATTACH" "$what" $((($(date +%s%N) - start) / 1000000))
  else
    printf 'FAILED  %s: %s\n' "$ATTACH" "$what"
    tail -n 30 /run/tmp/output
    failed=$((failed + 1))
  fi
}

# What a mount may leave behind: processes, devices with a size, files where it can write.
traces() {
  for process in /proc/[0-9]*; do
    tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -F "$TOOL" || true
  done
  grep -H . /sys/block/nbd*/size | grep -v ':0$'
  grep -H . /sys/block/nbd*/pid 2>/dev/null
  find /run /mnt /dev/shm -xdev ! -path '/run/tmp/*' ! -path /run/tmp ! -path '/run/registry*'
  true
}
nothing_left() {
  for _ in $(seq 100); do
    traces >/run/tmp/after
    cmp -s /run/tmp/before /run/tmp/after && return 0
    sleep 0.1
  done
  diff /run/tmp/before /run/tmp/after
}

start_registry() {
  cat >/run/registry.yml <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $WORK/registry/data}, maintenance: {readonly: {enabled: true}}}
http: {addr: 127.0.0.1:5000}
END
  docker-registry serve /run/registry.yml >/run/registry.log 2>&1 &
  for _ in $(seq 300); do
    curl -fs -o /run/tmp/answer http://127.0.0.1:5000/v2/ && return 0
    sleep 0.1
  done
  cat /run/registry.log
  return 1
}

mounted_readonly() { findmnt -n -o FSTYPE,OPTIONS "$mnt" | grep -E '^erofs +ro'; }
not_mounted() { ! findmnt -n "$mnt"; }
files_equal() {
  "$TOOLS/tree_manifest.py" dir "$mnt" >/run/tmp/got.jsonl &&
    "$TOOLS/tree_manifest.py" compare "$WORK/wanted.jsonl" /run/tmp/got.jsonl
}
list_all() { find "$mnt" | wc -l; }
read_libraries() { find "$mnt/usr/lib/x86_64-linux-gnu" -maxdepth 1 -type f | sort | head -n 60 | xargs cat | wc -c; }
drop_caches() { echo 3 >/proc/sys/vm/drop_caches; }
mount_it() {
  local options=oci.blob=$DIGEST,oci.platform=linux/amd64,oci.insecure
  options+=,oci.tarindex=$FIXTURE/layer.erofs,oci.zinfo=$FIXTURE/layer.zinfo
  local how=()
  [ "$ATTACH" = netlink ] || how=(--attach "$ATTACH")
  "$TOOL" -t erofs.nbd "${how[@]}" -o "$options" localhost:5000/img:latest "$mnt"
}
unmount_it() {  # once each way
  if [ "$1" = plain ]; then umount "$mnt"; else "$TOOL" -u "$mnt"; fi
}

check "registry answers" start_registry
mkdir "$mnt"
traces >/run/tmp/before
for way in plain tool; do
  if [ "$way" = plain ] && [ "$ATTACH" = ioctl ]; then continue; fi  # no autoclear by ioctl
  check "mount" mount_it
  check "mounted as erofs, read-only" mounted_readonly
  check "list" list_all
  check "60 files of /usr/lib" read_libraries
  check "every file is as tar extracts it" files_equal
  drop_caches
  check "and once more without the kernel's cache" files_equal
  check "unmount ($way)" unmount_it "$way"
  check "not mounted" not_mounted
  check "no process, device or file is left" nothing_left
done
exit $((failed != 0))
