#!/usr/bin/env bash
# The demonstration that `./run` gives: an image of three layers, made from this machine's files, in a
# registry on this machine; mounted by what the machine has, read, compared with what it should be, and
# unmounted.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tool=$top/build/bin/mount-oci
dir=$(mktemp -d)
mounted=''
pids=()

clean_up() {
  trap - EXIT INT TERM
  if [ -n "$mounted" ]; then "$tool" umount "$dir/mnt" || true; fi
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait || true
  rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

count() { grep -o "\"$2\": *[0-9]*" <<<"$1" | grep -o '[0-9]*$'; }
stats() { exec 3<>"/dev/tcp/$host/$port"; printf 'GET /_stats HTTP/1.0\r\n\r\n' >&3; cat <&3; exec 3>&-; }
# cost BEFORE AFTER: what the registry gave between the two.
cost() {
  echo "requests for data: $(($(count "$2" range_requests) - $(count "$1" range_requests)))," \
    "bytes: $(($(count "$2" bytes) - $(count "$1" bytes)))"
}
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n== %s\n' "$*"; }

say "An image of three layers, made from /usr of this machine"
"$top/tools/demo_image.sh" "$dir"
du -sh "$dir/layout" | awk '{print $1 " in the registry, compressed"}'
du -sh "$dir/root" | awk '{print $1 " unpacked"}'

mkfifo "$dir/registry.out"
"${tool%/*}/oci-registry" "$dir/layout" >"$dir/registry.out" &
pids+=($!)
read -r url <"$dir/registry.out"
address=${url#http://} host=${address%:*} port=${address##*:}
image=$address/demo:latest
options=oci.insecure,oci.store=$dir/store

say "mount-oci index $image: each layer is read once"
start=$(date +%s%N)
"$tool" index -o "$options" "$image"
echo "indexed in $((($(date +%s%N) - start) / 1000000)) ms; indexes take $(du -sh "$dir/store/read" | cut -f 1), layers are kept: $(du -sh "$dir/store" | cut -f 1) in all"

before=$(stats)
say "mount-oci cat: one file, without a mount"
"$tool" cat -o "$options" "$image" /srv/hello.txt
after=$(stats)
cost "$before" "$after"

before=$after
mkdir "$dir/mnt"
say "mount-oci $image DIR: by what this machine has"
if said=$("$tool" mount -v -o "$options" "$image" "$dir/mnt" 2>&1); then
  mounted=yes
  # The last line names the way that was chosen; those before it, why the others are not possible.
  grep -E '^mount-oci: (not|mounting) ' <<<"$said"
  grep " $dir/mnt " /proc/mounts
else
  echo "$said"
fi

if [ -n "$mounted" ]; then
  ls "$dir/mnt"
else
  say "Nothing can be mounted here: the same tree, extracted"
  "$tool" extract -o "$options" -C "$dir/mnt" "$image"
fi
diff -r --no-dereference "$dir/root" "$dir/mnt"
after=$(stats)
echo "$(find "$dir/mnt" -type f | wc -l) files compared with what the layers unpack to: all equal"
cost "$before" "$after"
if [ -n "$mounted" ]; then
  say "mount-oci umount DIR"
  "$tool" umount "$dir/mnt"
  mounted=
  if grep " $dir/mnt " /proc/mounts; then exit 1; fi
fi
say "Done: the image, its indexes, the registry and the mount are removed. To go on: ./run --help"
