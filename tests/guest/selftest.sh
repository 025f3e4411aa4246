#!/usr/bin/env bash
# Run by tests/guest/run.sh: the guest has what the other tests stand on, a kernel that reads a
# block device from an NBD server on this machine's own programs.
set -euo pipefail
echo "kernel $(uname -r), modules: $(cut -d' ' -f1 /proc/modules | sort | xargs)"
ls /dev/nbd0 /dev/loop-control /dev/fuse
grep -q erofs /proc/filesystems

head -c 1000000 /usr/bin/python3 >/run/tmp/image
truncate -s 1003520 /run/tmp/image
nbdkit -r -P /run/nbdkit.pid -U /run/nbd.sock file /run/tmp/image
nbd-client -unix /run/nbd.sock /dev/nbd0 -C 2 >/dev/null 2>&1
[ "$(cat /sys/block/nbd0/size)" = $((1003520 / 512)) ]
cmp /dev/nbd0 /run/tmp/image
nbd-client -d /dev/nbd0 >/dev/null 2>&1
[ "$(cat /sys/block/nbd0/size)" = 0 ]
kill "$(cat /run/nbdkit.pid)"
echo "nbd: 1003520 bytes read through the kernel, all right"
