#!/usr/bin/env bash
# Makes a Debian kernel and an initramfs that boots it into the host's own files.
#
# usage: tests/guest/prepare.sh DIR [VERSION]      VERSION: 6.12, or 6.1, which is Debian 12's own
#
# Leaves DIR/vmlinuz and DIR/initramfs, and prints nothing but what went wrong. A second call does
# nothing while the newest kernel that apt knows and this script are the same. Nothing is installed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
dir=${1:-$top/build/guest}
version=${2:-6.12}

# crc32c and libcrc32c come with erofs, netfs and 9pnet with 9p: modprobe knows which and in which order.
modules=(virtio_pci crc32c_generic 9pnet_virtio 9p erofs overlay ublk_drv loop fuse sha256_generic dm_verity)

die() { echo "guest: $*" >&2; exit 1; }

# The cloud flavour has no 9p, so only the plain one.
package=$(apt-cache search "^linux-image-${version//./\\.}\\.[0-9].*-amd64\$" | awk '{print $1}' |
  grep -Ev 'cloud|rt-|dbg|unsigned' | sort -V | tail -n 1)
[ -n "$package" ] || die "apt knows no linux-image-$version.*-amd64; is 'apt-get update' missing?"
for tool in cpio xz depmod modprobe busybox; do
  PATH=$PATH:/sbin:/usr/sbin command -v "$tool" >/dev/null ||
    die "$tool is missing; tools/packages.sh matrix installs it"
done
PATH=$PATH:/sbin:/usr/sbin

stamp="$package $(cat "$here/prepare.sh" "$here/init" | sha256sum | cut -c1-16)"
[ "$(cat "$dir/stamp" 2>/dev/null)" != "$stamp" ] || exit 0

mkdir -p "$dir"
work=$(mktemp -d "$dir/prepare.XXXXXX")
trap 'rm -rf "$work"' EXIT

(cd "$work" && apt-get download -qq "$package") >"$work/log" 2>&1 ||
  { cat "$work/log" >&2; die "cannot download $package"; }
dpkg -x "$work"/*.deb "$work/kernel"
release=$(basename "$work"/kernel/boot/vmlinuz-* | cut -d- -f2-)
tree=$work/kernel
[ -d "$tree/lib/modules/$release" ] || tree=$work/kernel/usr
depmod -b "$tree" "$release" 2>/dev/null || die "depmod failed for $release"

root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,host,modules}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$here/init" "$root/init"
chmod 755 "$root/init"

number=10
add() {  # a module and whatever it needs, numbered in the order in which they must be loaded
  local line path name
  while read -r line path _; do
    [ "$line" = insmod ] || continue
    name=$(basename "${path%.xz}")
    compgen -G "$root/modules/??-$name" >/dev/null && continue
    case $path in
      *.xz) xz -dc "$path" >"$root/modules/$number-$name" ;;
      *) cp "$path" "$root/modules/$number-$name" ;;
    esac
    number=$((number + 1))
  done < <(modprobe -d "$tree" -S "$release" --show-depends "$1" 2>/dev/null || echo missing)
}
for module in "${modules[@]}"; do add "$module"; done
add nbd  # last: init gives it its parameter
compgen -G "$root/modules/??-nbd.ko" >/dev/null || die "$package has no nbd module"

(cd "$root" && find . -print0 | sort -z | cpio --null -o -H newc -R 0:0 --quiet | gzip -1) >"$dir/initramfs"
cp "$work"/kernel/boot/vmlinuz-* "$dir/vmlinuz"
echo "$stamp" >"$dir/stamp"
