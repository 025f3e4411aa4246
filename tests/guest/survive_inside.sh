#!/usr/bin/env bash
# Run by tests/guest/run.sh for survive.sh.
set -uo pipefail
WHAT=survive MNT=/mnt/image
. "$(dirname "${BASH_SOURCE[0]}")/inside.sh"
cd /run/tmp || exit 1
mkdir -p "$MNT"
cp -r "$WORK/store" store
gzip -dc "$DATA/ckpt.tar.gz" | tar xf - --one-top-level=/run/tmp/wanted
nbd() { "$TOOL" -t erofs.nbd "$@"; }
worker() { status_of worker "$MNT"; }
supervisor() { cat /sys/block/nbd0/pid; }
same_files() { diff -r wanted "$MNT"; }
kill_worker() { kill -9 "$(worker)"; }

# ---------------------------------------------------------------- killed at random instants
serve "$WORK/large"
check "mount" nbd -o "oci.insecure,oci.store=/run/tmp/store,oci.cache_dir=none,oci.cache=32M" "$host/app:v1" "$MNT"
check "the worker's memory is locked" grep -E 'VmLck:\s+[1-9]' "/proc/$(worker)/status"
check "the worker is not root, and has no capability" bash -c \
  "! grep -E '^(Uid|Gid):.*\b0\b|^Cap(Prm|Eff):.*[1-9a-f]' /proc/$(worker)/status"
"$(dirname "${BASH_SOURCE[0]}")/kill_storm.py" "$MNT" "$WORK/large.jsonl" "$KILLS" || failed=$((failed + 1))
check "status counts them" bash -c "'$TOOL' status | grep 'replaced $KILLS times'"
check "umount" "$TOOL" umount "$MNT"
check "nothing is left" not_mounted
close_registry

# ---------------------------------------------------------------- what else can happen meanwhile
words=oci.layer=1,oci.insecure,oci.tarindex=index.erofs,oci.zinfo=index.zinfo
cp "$DATA/gz-ckpt.erofs" index.erofs
cp "$DATA/gz-ckpt.zinfo" index.zinfo
serve "$WORK/layout"
port=${host#*:}

check "mount" nbd -o "$words" "$host/app:v1" "$MNT"
kill_worker
close_registry
cold
( sleep 20; exec "${TOOL%/*}/oci-registry" "$WORK/layout" --listen "127.0.0.1:$port" >/run/tmp/again ) & registry=$!
check "the registry away for 20 s while the worker is replaced" same_files
umount "$MNT"
close_registry

serve "$WORK/layout" --token-ttl 2
check "mount with a token" nbd -o "$words" "$host/app:v1" "$MNT"
sleep 3
kill_worker
cold
check "the token has expired, the worker is replaced" same_files
umount "$MNT"
close_registry

check "mount" nbd -o "$words" "oci:$WORK/layout:v1" "$MNT"
hung=$(worker)
for _ in 1 2 3; do kill -STOP "$hung"; cold; check "a worker that is stopped goes on" same_files; done
check "and is the same one" test "$(worker)" = "$hung"
umount "$MNT"

check "mount" nbd --log-file /run/tmp/hung -o "$words" "oci:$WORK/layout:v1" "$MNT"
mkdir /run/cgroup && mount -t cgroup2 none /run/cgroup && mkdir /run/cgroup/frozen
hung=$(worker)
echo "$hung" >/run/cgroup/frozen/cgroup.procs && echo 1 >/run/cgroup/frozen/cgroup.freeze
cold
check "a worker that hangs is replaced" same_files
check "by another one" test "$(worker)" != "$hung"
check "because of what it was seen to do" grep -E "hangs: .*main thread is (blocked|spinning)" hung
echo 0 >/run/cgroup/frozen/cgroup.freeze
umount "$MNT"
umount /run/cgroup && rmdir /run/cgroup

check "mount" nbd -o "$words" "oci:$WORK/layout:v1" "$MNT"
told=$(worker)
kill "$told"
cold
check "a worker that is told to end is replaced" same_files
check "by another one, too" test "$(worker)" != "$told"
umount "$MNT"

cp -r "$WORK/layout" moving
serve moving
check "mount by a tag" nbd -o "$words" "$host/app:v1" "$MNT"
"$TOOLS/make_layout.py" "$DATA/basic.tar.gz" moving --tag v1 >/dev/null
kill_worker
cold
check "the tag has moved, the worker is replaced" same_files
umount "$MNT"
close_registry

echo first >password
chmod 600 password
serve "$WORK/layout" --username me --password-file password --listen "127.0.0.1:$port"
secret=$words,oci.username=me,oci.password_file=/run/tmp/password
check "mount with a password" nbd -o "$secret" "$host/app:v1" "$MNT"
close_registry
echo second >password
serve "$WORK/layout" --username me --password-file password --listen "127.0.0.1:$port"
kill_worker
cold
check "the password has changed, the worker is replaced" same_files
umount "$MNT"
close_registry

# ---------------------------------------------------------------- the supervisor is gone
serve "$WORK/layout"
check "mount" nbd -o "$words" "$host/app:v1" "$MNT"
check "a living one is not taken over" refuses "lives" "$TOOL" reattach "$MNT"
kill -9 "$(supervisor)"
sleep 0.5
cold
cat "$MNT/t1.txt" >waited & reader=$!
cd /
check "reattach, from another directory" "$TOOL" reattach /dev/nbd0
cd /run/tmp || exit 1
check "a read that waited for it ends well" wait "$reader"
check "and is right" cmp waited wanted/t1.txt
check "and so are all files" same_files
kill -9 "$(pgrep -o -f 'reattach /dev/nbd0')"
sleep 0.5
check "reattach --all" "$TOOL" reattach --all
cold
check "all files are right" same_files
check "no record holds more than it may" bash -c '! grep -r password /run/erofs_oci'

old=$(pgrep -o -f 'reattach --all')
(for _ in $(seq 5); do cold; same_files || exit 1; done) & reader=$!
sleep 1
check "reattach --replace takes a living daemon's place" "$TOOL" reattach --replace "$MNT"
check "reads go on meanwhile" wait "$reader"
check "the old one has gone" bash -c "for _ in \$(seq 50); do [ -e /proc/$old ] || exit 0; sleep 0.1; done; exit 1"
check "all files are right" same_files
check "one that asks for the device, gets it and dies, does no harm" python3 - <<'END'
import glob, os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asker:
    path = next(path for path in glob.glob("/run/erofs_oci/nbd0*") if os.path.exists(path)
                and os.stat(path).st_mode & 0o170000 == 0o140000)
    asker.connect(path)
    asker.send(b"hand over")
    message, fds, _, _ = socket.recv_fds(asker, 4096, 4)
    assert len(fds) == 2, message
END
cold
check "all files are right" same_files
check "status knows the new one" bash -c "'$TOOL' status '$MNT' | grep 'by worker'"

cp index.erofs right.erofs
printf '\1' | dd of=index.erofs bs=1 seek=1072 conv=notrunc 2>/dev/null
kill_worker
sleep 3
check "a tarindex that was replaced is not served" refuses "index.erofs" "$TOOL" reattach "$MNT"
cp right.erofs index.erofs
check "the right one is" "$TOOL" reattach "$MNT"
cold
check "all files are right" same_files
check "umount --all" "$TOOL" umount --all
check "nothing is mounted" not_mounted
check "status knows of none" bash -c "'$TOOL' status | grep -x 'no mounts'"

check "mount" nbd -o "$words" "$host/app:v1" "$MNT"
kill -9 "$(supervisor)"
sleep 0.5
check "disconnect a device that no process serves" "$TOOL" disconnect /dev/nbd0
umount "$MNT"
check "gc removes its record" bash -c "'$TOOL' gc | grep -x nbd0"
check "the journal is empty" bash -c '[ -z "$(ls /run/erofs_oci)" ]'

# ---------------------------------------------------------------- the program is on its own mount
check "mount an image that holds the program" nbd "oci:$WORK/selfish:v1" "$MNT"
check "that program takes its own mount over" "$MNT/mount-oci" reattach --replace "$MNT"
for _ in 1 2 3; do
  cold
  kill_worker
done
cold
check "it serves itself, also when workers die" cmp "$MNT/mount-oci" "$TOOL"
check "another one takes over, or it would keep its own mount busy" "$TOOL" reattach --replace "$MNT"
check "umount" "$TOOL" umount "$MNT"

# ---------------------------------------------------------------- any program can keep a mount
"$KEEP_MOUNTED" "$WORK/plain.erofs" "$MNT" >kept 2>&1 & kept=$!
check "the example mounts an image" bash -c 'for _ in $(seq 200); do grep -q mounted kept && exit 0; sleep 0.05; done; exit 1'
check "by a device" grep -x "mounted, by netlink" kept
killed=
for _ in $(seq 10); do
  cold
  cat "$MNT"/t1.txt >read & reader=$!
  # A killed worker is there until it is reaped, and then none is for a moment.
  until next=$(pgrep -P "$kept" | head -n 1) && [ -n "$next" ] && [ "$next" != "$killed" ]; do
    sleep 0.05
  done
  killed=$next
  kill -9 "$killed"
  wait "$reader" && cmp read wanted/t1.txt || { echo "FAILED: a read of the example's mount"; failed=$((failed + 1)); }
done
cold
check "all files are right whoever dies" same_files
check "umount" umount "$MNT"
check "the example ends well" wait "$kept"

# ---------------------------------------------------------------- no secret
echo 'oci-secret-4711' >password
close_registry
serve "$WORK/layout" --username me --password-file password
check "mount with a password on the command line" \
  nbd -d 7 --log json --log-file /run/tmp/log -o "$words,oci.username=me,oci.password=oci-secret-4711" "$host/app:v1" "$MNT"
cold
check "all files are right" same_files
kill_worker
cold
check "and after its worker was replaced" same_files
check "no secret in a record, a log, an argument or an environment" bash -c '
  ! grep -rl oci-secret-4711 /run/erofs_oci /run/tmp/log &&
  for p in $(pgrep -x mount-oci); do
    ! tr "\0" "\n" <"/proc/$p/cmdline" | grep oci-secret-4711 || exit 1
    ! tr "\0" "\n" <"/proc/$p/environ" | grep oci-secret-4711 || exit 1
  done'
echo '/run/tmp/core.%p' >/proc/sys/kernel/core_pattern
ulimit -c unlimited
kill -SEGV "$(worker)"
sleep 1
check "no core file" bash -c '! ls /run/tmp/core.* 2>/dev/null'
kill -9 "$(supervisor)"
sleep 0.5
check "the user must give it again" refuses "given by hand" "$TOOL" reattach "$MNT"
check "and then it works" "$TOOL" reattach -o oci.username=me,oci.password_file=password "$MNT"
cold
check "all files are right" same_files
check "umount" "$TOOL" umount "$MNT"
close_registry
exit "$failed"
