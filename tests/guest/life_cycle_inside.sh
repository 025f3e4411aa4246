#!/usr/bin/env bash
# Run by tests/guest/run.sh for life_cycle.sh.
set -uo pipefail
failed=0
cd /run/tmp || exit 1
words=oci.layer=1,oci.insecure,oci.verify=off,oci.tarindex=$DATA/gz-ckpt.erofs,oci.zinfo=$DATA/gz-ckpt.zinfo
mnt="/mnt/a b"
mkdir -p "$mnt" /mnt/second
gzip -dc "$DATA/ckpt.tar.gz" | tar xf - --one-top-level=/run/tmp/wanted

check() {  # check WHAT COMMAND...: one line a check
  if (shift; "$@") >output 2>&1; then
    echo "ok      $1"
  else
    echo "FAILED  $1"
    tail -n 20 output
    failed=$((failed + 1))
  fi
}
start_registry() {
  "${TOOL%/*}/oci-registry" "$LAYOUT" "$@" >address & registry=$!
  for _ in $(seq 100); do [ -s address ] && break; sleep 0.1; done
  host=$(sed 's,http://,,' address)
}
stop_registry() { kill "$registry"; wait "$registry"; rm address; }
mount_it() { "$TOOL" "$@" -t erofs.nbd -o "$words" "$host/app:v1" "$mnt"; }
daemon() { cat /sys/block/nbd0/pid; }
traces() {
  grep erofs /proc/mounts
  grep -l oci.tarindex /proc/[0-9]*/cmdline 2>/dev/null
  grep . /sys/block/nbd*/size | grep -v ':0$'
}
nothing_left() {
  for _ in $(seq 100); do [ -z "$(traces)" ] && return 0; sleep 0.1; done
  traces
  return 1
}
same_files() { diff -r wanted "$mnt"; }
fails_with() {  # fails_with STATUS TEXT COMMAND...
  local status=$1 text=$2
  shift 2
  "$@" >said 2>&1
  local got=$?
  cat said
  [ "$got" = "$status" ] && grep -q -- "$text" said && [ "$(wc -l <said)" = 1 ]
}
within() {  # within SECONDS COMMAND...: ends by itself, whatever its status
  timeout "$@"
  [ $? != 124 ]
}

start_registry
for attach in netlink ioctl "netlink --no-supervise --allow-unconfined" "ioctl --no-supervise --allow-unconfined"; do
  # shellcheck disable=SC2086 # words
  check "$attach: mount" mount_it --attach $attach
  check "$attach: the files are right" same_files
  check "$attach: in use, it is not unmounted" \
    bash -c "cd '$mnt' && ! '$TOOL' umount '$mnt' && ls '$mnt'/README"
  check "$attach: umount" "$TOOL" umount "$mnt"
  check "$attach: nothing is left at once" test -z "$(traces)"
  mount_it --attach $attach
  check "$attach: umount(8)" umount "$mnt"
  check "$attach: nothing is left" nothing_left
  mount_it --attach $attach
  check "$attach: a signal unmounts" kill "$(daemon)"
  check "$attach: nothing is left" nothing_left
done

second() { "$TOOL" "$@" -t erofs.nbd -o "$words" "$host/app:v1" /mnt/second; }
for attach in netlink ioctl; do
  mount_it --attach $attach
  check "$attach: a second mount" second --attach $attach
  check "$attach: both have one device" \
    test "$(grep . /sys/block/nbd*/size | grep -vc ':0$')" = 1
  check "$attach: the first one is unmounted" "$TOOL" umount "$mnt"
  check "$attach: the second one is read on" diff -r wanted /mnt/second
  check "$attach: a third one" mount_it --attach $attach
  check "$attach: umount(8)" umount /mnt/second
  check "$attach: the third one is read on" same_files
  check "$attach: the last one" umount "$mnt"
  check "$attach: nothing is left" nothing_left
done

mount_it
exec 7<"$mnt/t1.txt"
kill "$(daemon)"
sleep 1
check "after a signal an open file can be read to its end" cmp - wanted/t1.txt <&7
check "and the mount is gone meanwhile" test -z "$(grep erofs /proc/mounts)"
exec 7<&-
check "nothing is left" nothing_left

mount_it --no-supervise --allow-unconfined
kill -9 "$(daemon)"
check "a killed daemon that nobody watches makes reads fail, not hang" within 20 cat "$mnt/t2.txt"
check "and can be unmounted" umount "$mnt"
check "nothing is left" nothing_left

words=$words,oci.timeout=3 mount_it
port=${host#*:}
stop_registry
check "a registry that is gone makes reads fail in time" within 15 cat "$mnt/t1.txt"
start_registry --listen "127.0.0.1:$port"
check "and its return makes the same reads succeed" same_files
umount "$mnt"

mount_it
mount -t erofs -o ro /dev/nbd0 /mnt/second
check "one of two mounts of a device ends" "$TOOL" umount "$mnt"
check "and the other one lives" cmp /mnt/second/t1.txt wanted/t1.txt
check "a device in use is not ended" \
  fails_with 32 "/dev/nbd0 is mounted at /mnt/second" "$TOOL" umount /dev/nbd0
umount /mnt/second
check "nothing is left" nothing_left

mount_it
check "remount changes flags" bash -c \
  "'$TOOL' -o remount,noexec /dev/nbd0 '$mnt' && grep 'erofs ro,nosuid,nodev,noexec' /proc/mounts"
check "--disconnect ends a mounted device" "$TOOL" --disconnect /dev/nbd0
umount "$mnt"
check "nothing is left" nothing_left
check "umount of what is no mount point" fails_with 32 "is not a mount point" "$TOOL" umount "$mnt"
check "umount of a free device" fails_with 32 "not connected" "$TOOL" umount /dev/nbd0

unshare -m --propagation private sleep 60 & other=$!
sleep 0.5
check "-N mounts in another namespace" "$TOOL" -t erofs.nbd -N $other -o "$words" "$host/app:v1" "/host$mnt"
check "and only there" bash -c "grep erofs /proc/$other/mounts && ! grep erofs /proc/mounts"
kill $other
check "nothing is left when that ends" nothing_left

in_foreground() {  # sets `server` to the tool itself, which a function in the background would not
  "$TOOL" -t erofs.nbd --foreground -o "$words" "$host/app:v1" "$mnt" & server=$!
  for _ in $(seq 100); do grep -q erofs /proc/mounts && break; sleep 0.1; done
}
in_foreground
check "--foreground: the files are right" same_files
umount "$mnt"
wait $server
check "--foreground ends with the mount" test $? = 0
in_foreground
kill $server
wait $server
check "--foreground ends with a signal" test $? = 0
check "nothing is left" nothing_left

check "a caller's pipe is not kept open" \
  bash -c "set -o pipefail; '$TOOL' -t erofs.nbd -o $words $host/app:v1 '$mnt' | timeout 20 cat"
umount "$mnt"
check "-f mounts nothing" mount_it -f
check "nothing is left" nothing_left
check "a word that the kernel refuses is the one error" \
  fails_with 32 "mount /dev/nbd0 .*Invalid argument" \
  "$TOOL" -t erofs.nbd -o "$words,cache_strategy=nonsense" "$host/app:v1" "$mnt"
check "the same in the foreground" fails_with 32 "mount /dev/nbd0 .*Invalid argument" \
  "$TOOL" -t erofs.nbd --foreground -o "$words,cache_strategy=nonsense" "$host/app:v1" "$mnt"
check "no registry" fails_with 32 "127.0.0.1:1.*cannot connect" \
  "$TOOL" -t erofs.nbd -o "$words" 127.0.0.1:1/app:v1 "$mnt"
check "no such image" fails_with 32 'app has no tag "v2"; it has "v1"' \
  "$TOOL" -t erofs.nbd -o "$words" "$host/app:v2" "$mnt"
check "no such directory" fails_with 32 "/mnt/none: No such file" \
  "$TOOL" -t erofs.nbd -o "$words" "$host/app:v1" /mnt/none
check "no such namespace" fails_with 32 "/proc/999999/ns/mnt" \
  "$TOOL" -t erofs.nbd -N 999999 -o "$words" "$host/app:v1" "$mnt"
check "nothing is left" nothing_left

mkdir -p /run/upper /run/work
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/upper,workdir=/run/work /usr/sbin
cp "$TOOL" /usr/sbin/mount.erofs.nbd
check "mount(8) finds it" mount -v -t erofs.nbd -o "$words,noatime" "$host/app:v1" "$mnt"
check "and its words arrive" grep "erofs ro,nosuid,nodev,noatime" /proc/mounts
umount "$mnt"
check "nothing is left" nothing_left

stop_registry
start_registry --latency 1500
"$TOOL" -t erofs.nbd -o "$words" "$host/app:v1" "$mnt" & caller=$!
sleep 1
kill -9 $caller
check "a caller that is killed leaves nothing, even while the registry is slow" nothing_left
stop_registry
exit $((failed != 0))
