#!/usr/bin/env bash
# Makes an OCI image layout of three layers from this machine's own files: compilers and headers, then
# libraries, then changes that remove and replace some of both.
#
# usage: tools/demo_image.sh DIR          makes DIR/layout (tag: latest) and DIR/root, what it unpacks to
set -euo pipefail
dir=${1:?usage: tools/demo_image.sh DIR}
blobs=$dir/layout/blobs/sha256
mkdir -p "$blobs" "$dir/root" "$dir/change"

pack=(gzip -n -1)
triplet=$(gcc -print-multiarch)

# add NAME: stores standard input as a blob; sets digest and size.
add() {
  cat >"$blobs/new"
  digest=$(sha256sum <"$blobs/new" | cut -d ' ' -f 1)
  size=$(stat -c %s "$blobs/new")
  mv "$blobs/new" "$blobs/$digest"
}

layers='' diff_ids=''
# layer TAR: adds a layer.
layer() {
  local id
  id=$(sha256sum <"$1" | cut -d ' ' -f 1)
  add < <("${pack[@]}" <"$1")
  layers+="${layers:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$digest\",\"size\":$size}"
  diff_ids+="${diff_ids:+,}\"sha256:$id\""
  rm "$1"
}

tar=(tar --format=pax --numeric-owner --pax-option=delete=atime,delete=ctime)
"${tar[@]}" -C / -cf "$dir/0.tar" "usr/lib/gcc/$triplet" usr/include/c++ usr/include/linux
"${tar[@]}" -C / -cf "$dir/1.tar" usr/sbin usr/share/perl5 usr/share/common-licenses etc/passwd
tar -C "$dir/root" -xf "$dir/0.tar"
tar -C "$dir/root" -xf "$dir/1.tar"

# The third layer: one directory is removed, one is replaced as a whole, one file is new.
mkdir -p "$dir/change/usr/include/c++" "$dir/change/usr/share/common-licenses" "$dir/change/srv"
: >"$dir/change/usr/include/.wh.linux"
: >"$dir/change/usr/share/common-licenses/.wh..wh..opq"
echo 'Only this one.' >"$dir/change/usr/share/common-licenses/LICENSE"
echo 'Hello from the third layer.' >"$dir/change/srv/hello.txt"
"${tar[@]}" -C "$dir/change" -cf "$dir/2.tar" srv usr
rm -r "$dir/root/usr/include/linux" "$dir/root/usr/share/common-licenses"
tar -C "$dir/root" --exclude='.wh.*' -xf "$dir/2.tar"

for n in 0 1 2; do layer "$dir/$n.tar"; done
architecture=$(dpkg --print-architecture)
add < <(printf '{"architecture":"%s","os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}' \
  "$architecture" "$diff_ids")
config="{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:$digest\",\"size\":$size}"
add < <(printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
  "$config" "$layers")
printf '{"imageLayoutVersion":"1.0.0"}' >"$dir/layout/oci-layout"
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}' \
  "$digest" "$size" >"$dir/layout/index.json"
rm -r "$dir/change"
