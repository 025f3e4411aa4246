#!/usr/bin/env bash
# Runs a script in a guest kernel that has nbd, EROFS, FUSE and loop.
#
# usage: tests/guest/run.sh [-t SECONDS] [NAME=VALUE...] SCRIPT [ARG...]
#
# The guest's root is this machine's own, read-only; /run and /mnt are empty and writable there, and
# TMPDIR is /run/tmp. NAME=VALUE go into SCRIPT's environment. Its output is streamed; the exit
# status is the script's, 124 past SECONDS (600 by default), 125 when the guest ended without one.
# GUEST_KERNEL: 6.12, or 6.1. GUEST_DIR: where it is kept (build/guest/KERNEL).
# GUEST_ACCEL: tcg (slow, works everywhere) or kvm.
# GUEST_CPUS, GUEST_MB: processors (2) and memory (1024) of the guest.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
version=${GUEST_KERNEL:-6.12}
dir=${GUEST_DIR:-$top/build/guest/$version}
limit=600
if [ "${1:-}" = -t ]; then
  limit=$2
  shift 2
fi
settings=()
while [[ ${1:-} =~ ^[A-Za-z_][A-Za-z_0-9]*= ]]; do
  settings+=("$1")
  shift
done
[ $# -ge 1 ] || { sed -n '4,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
script=$(realpath "$1") || exit 2
shift

"$here/prepare.sh" "$dir" "$version" || exit 125
# mktemp in the build folder and not in /tmp: the guest must see the file under the same name.
work=$(mktemp -d "$dir/run.XXXXXX")
trap 'rm -rf "$work"' EXIT

{
  echo 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run/tmp TMPDIR=/run/tmp LC_ALL=C.UTF-8'
  for setting in "${settings[@]}"; do
    printf 'export %s=%q\n' "${setting%%=*}" "${setting#*=}"
  done
  printf 'echo @@guest-begun@@\ncd %q\n' "$PWD"
  printf '/bin/bash %q' "$script"
  [ $# -eq 0 ] || printf ' %q' "$@"
  printf ' </dev/null\n'
} >"$work/job"

# Not kvm by default: a /dev/kvm inside another virtual machine may exist and still stop at the first
# instruction that it cannot emulate, and then the only sign is silence.
accel=${GUEST_ACCEL:-tcg}
case $accel in
  kvm) machine=(-accel kvm -cpu host) ;;
  *) machine=(-accel tcg,thread=multi -cpu max) ;;
esac

boot() {
  timeout --kill-after=5 "$limit" qemu-system-x86_64 "${machine[@]}" \
    -smp "${GUEST_CPUS:-2}" -m "${GUEST_MB:-1024}" -display none -monitor none -no-reboot -net none \
    -kernel "$dir/vmlinuz" -initrd "$dir/initramfs" \
    -virtfs local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap \
    -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on job=$work/job" \
    -serial "file:$work/console" -serial stdio </dev/null 2>"$work/qemu" |
    tr -d '\r' | awk -v end="$work/status" -v begun="$work/begun" '
      /^@@guest-begun@@$/ { print > begun; close(begun); next }
      match($0, /@@guest-end [0-9]+@@/) {
        printf "%s", substr($0, 1, RSTART - 1)
        print substr($0, RSTART + 12, RLENGTH - 14) > end
        next
      }
      { print; fflush() }'
  machine_status=${PIPESTATUS[0]}
}

# Under tcg a kernel rarely dies while it boots: of its own code, which it patches on two processors.
for _ in 1 2 3; do
  boot
  if [ -s "$work/status" ] || [ -e "$work/begun" ] || [ "$machine_status" != 0 ]; then break; fi
done

if [ -s "$work/status" ]; then exit "$(cat "$work/status")"; fi
if [ "$machine_status" = 124 ] || [ "$machine_status" = 137 ]; then
  echo "guest: no end after $limit s ($accel)" >&2
  status=124
else
  echo "guest: ended without a status (qemu: $machine_status, $accel)" >&2
  status=125
fi
tail -n 30 "$work/qemu" "$work/console" >&2
exit "$status"
