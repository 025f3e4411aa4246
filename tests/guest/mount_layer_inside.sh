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
  # Few programs, each once: starting one takes an emulated processor long.
  grep -lF -f /run/tmp/tool /proc/[0-9]*/cmdline 2>/dev/null | sed "s/^/process /"
  grep . /sys/block/nbd*/size | grep -v ':0$'
  grep . /sys/block/nbd*/pid 2>/dev/null
  find /run /mnt -xdev ! -path '/run/tmp*' ! -path '/run/registry*' ! -path /run/mount  # mount(8)'s own
}
nothing_left() {
  local end=$((SECONDS + 20))
  while :; do
    traces >/run/tmp/after
    cmp -s /run/tmp/before /run/tmp/after && return 0
    [ "$SECONDS" -lt "$end" ] || break
    sleep 0.2
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

check "registry answers" start_registry
mkdir "$mnt"
echo "$TOOL" >/run/tmp/tool  # not an argument of grep, which would find itself
traces >/run/tmp/before
check "mount" mount_it
check "mounted as erofs, read-only" mounted_readonly
check "list" list_all
check "60 files of /usr/lib" read_libraries
check "every file is as tar extracts it" files_equal
if [ "$ATTACH" = netlink ]; then
  # The last close of a netlink device ends it, so umount(8) is enough; an ioctl device has no such wish.
  check "umount(8)" umount "$mnt"
  check "not mounted" not_mounted
  check "no process, device or file is left" nothing_left
  check "mount again" mount_it
fi
drop_caches
check "60 files, without the kernel's cache" read_libraries
check "mount-oci -u" "$TOOL" -u "$mnt"
check "not mounted" not_mounted
check "no process, device or file is left" nothing_left
exit $((failed != 0))
