#!/usr/bin/env bash
# Run by tests/guest/run.sh for faults.sh.
set -uo pipefail
WHAT=faults MNT=/mnt/image
. "$(dirname "${BASH_SOURCE[0]}")/inside.sh"
cd /run/tmp || exit 1
mkdir -p "$MNT"
cp -r "$WORK/store" store
cp -r "$WORK/layout" layout
fails_within() {  # fails_within SECONDS FILE
  timeout "$1" cat "$2" >/dev/null 2>said
  local status=$?
  echo "status $status"
  cat said
  [ "$status" = 1 ] && grep -q "Input/output error" said
}
comes_back() {
  for _ in $(seq 30); do
    cmp "$WORK/files/bad" "$MNT/bad" && return 0
    sleep 0.5
  done
  return 1
}

# ---------------------------------------------------------------- the registry is away
# oci.timeout is not for one request of the kernel, which asks for a file in many: README.md promises
# 30 s for what a read of one layer waits.
for way in netlink ioctl; do
  serve layout ${host:+--listen "$host"}
  check "$way: mount" "$TOOL" mount --attach "$way" \
    -o "oci.insecure,oci.platform=linux/amd64,oci.timeout=6,oci.store=/run/tmp/store,oci.cache_dir=none,oci.start_list=off" "$host/app:v1" "$MNT"
  close_registry
  cold
  check "$way: a file that is not cached fails in time" fails_within 30 "$MNT/bad"
  serve layout --listen "$host"
  check "$way: and can be read once the registry is back" comes_back
  check "$way: umount" "$TOOL" umount "$MNT"
  close_registry
done

# ---------------------------------------------------------------- wrong bytes
check "mount" "$TOOL" mount --attach netlink -o oci.store=/run/tmp/store oci:layout:v1 "$MNT"
supervisor=$(status_of supervisor)
blob=$(find layout/blobs -type f -size +1M)
# In the first bytes of data: right behind the metadata.
printf '\377\377\377\377' | dd of="$blob" bs=1 seek=100 conv=notrunc 2>/dev/null
for _ in 1 2 3; do
  old=$(status_of worker)
  kill -9 "$old"
  cold
  check "bytes that are wrong are an error" fails_within 60 "$MNT/bad"
  check "other files are right" cmp "$MNT/good" "$WORK/files/good"
  check "by another worker" test "$(status_of worker)" != "$old"
done
check "of the same supervisor" test "$(status_of supervisor)" = "$supervisor"
check "none was at fault" test "$(status_of restarts)" = 3
check "umount" "$TOOL" umount "$MNT"
exit "$failed"
