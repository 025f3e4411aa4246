#!/usr/bin/env bash
# Run by tests/guest/run.sh for import.sh.
set -uo pipefail
WHAT=import MNT=/mnt/image
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/inside.sh"
cd /run/tmp || exit 1
mkdir -p "$MNT"
gzip -dc "$DATA/ckpt.tar.gz" | tar xf - --one-top-level=/run/tmp/wanted
records=/var/run/erofsmount/nbd  # as mount.erofs names it
mkdir -m 700 /run/erofsmount /run/erofsmount/nbd
cp "$DATA/gz-ckpt.erofs" index.erofs
cp "$DATA/gz-ckpt.zinfo" index.zinfo
own_index=oci.tarindex=index.erofs,oci.zinfo=index.zinfo

same_files() { timeout 60 diff -r wanted "$MNT"; }
kill_all() { kill -9 "$(status_of supervisor)" "$(status_of worker)"; sleep 0.5; }
no_record() { [ -z "$(ls /run/erofs_oci)" ]; }
other() {  # other IMAGE NAME [BYTES]: mounts as mount.erofs does; all its devices have that size
  rm -f started
  "$here/other_daemon.py" serve "$1" "$records/$2" "${3:-9223372036854775296}" >started & daemon=$!
  for _ in $(seq 200); do [ -s started ] && break; sleep 0.1; done
  device=$(cat started)
  mount -t erofs -o ro "$device" "$MNT" &&
    "$here/other_daemon.py" autoclear "${device#/dev/nbd}" "$records/$2"
}
end_other() {
  { kill -9 "$daemon" && wait "$daemon"; } 2>/dev/null
  sleep 0.5
  cold
}
drop() {  # what nobody serves
  "$TOOL" disconnect "$device" && umount "$MNT" && rm -f "$records"/*
}
record() {  # record NAME TEXT
  rm -f "$records/$1"
  (umask 077 && printf '%s\n' "$2" >"$records/$1")
}
import() {  # import TARGET [OPTION...]: must succeed and say which record is of no use
  local target=$1
  shift
  timeout 60 "$TOOL" reattach "$@" "$target" >said 2>&1 && grep "remove it" said || { cat said; return 1; }
}
end() {
  check "$1: umount" "$TOOL" umount "$MNT"
  check "$1: not mounted" not_mounted
  rm -f "$records"/*
  check "$1: nothing is left" nothing_left
  check "$1: no record" no_record
}
remember_traces

# ---------------------------------------------------------------- a layer with tarindex and zinfo
echo 'oci-secret-4711' >password
chmod 600 password
serve "$WORK/layout" --username me --password-file password
credentials=$(printf 'me:oci-secret-4711' | base64)
reach=oci.insecure,oci.username=me,oci.password_file=password
digest=sha256:$(sha256sum <"$DATA/ckpt.tar.gz" | cut -d' ' -f1)
name=mountnbd_aB3xY9
check "layer: mounted" other "$WORK/layer.image" "$name"
record "$name" "TARINDEX_OCI_BLOB $host/app:v1 linux/amd64 $digest $credentials $PWD/index.erofs $PWD/index.zinfo"
cp "$records/$name" unchanged
check "layer: a daemon that lives is left alone" refuses "served already" "$TOOL" reattach -o "$reach" "$device"
check "layer: and serves on" same_files
check "layer: no record" no_record

end_other
cat "$MNT/t1.txt" >waited & reader=$!
mv "$records/$name" elsewhere
ln -s "$PWD/elsewhere" "$records/$name"
check "layer: a record that is a link is refused" refuses "$name" "$TOOL" reattach -o "$reach" "$device"
rm "$records/$name"
check "layer: a missing one is, too" refuses "the record is missing" "$TOOL" reattach -o "$reach" "$device"
cp elsewhere "$records/$name"
chmod 640 "$records/$name"
check "layer: and one that others may read" refuses "owner alone" "$TOOL" reattach -o "$reach" "$device"
chmod 600 "$records/$name"
check "layer: its password is not used" refuses "$host" "$TOOL" reattach -o oci.insecure,oci.retry=0 "$device"
check "layer: no record" no_record
check "layer: served on, by its mount point" import "$MNT" -o "$reach"
check "layer: the password in the record is spoken of" grep "holds a user name and a password" said
check "layer: a read that waited for it ends well" wait "$reader"
check "layer: and is right" cmp waited wanted/t1.txt
check "layer: and so are all files" same_files
check "layer: the old record is untouched" cmp unchanged "$records/$name"
check "layer: no secret in ours" bash -c "! grep -r -e 4711 -e '$credentials' /run/erofs_oci"
check "layer: status knows it" bash -c "'$TOOL' status | grep -F '$device on $MNT'"
kill -9 "$(status_of worker)"
cold
check "layer: its worker is replaced" same_files
rm "$records/$name"
kill_all
cold
check "layer: reattach, by our record" "$TOOL" reattach "$device"
check "layer: all files are right" same_files
check "layer: reattach --replace" "$TOOL" reattach --replace "$MNT"
cold
check "layer: all files are right" same_files
kill_all
cold
check "layer: reattach --all" "$TOOL" reattach --all
check "layer: all files are right" same_files
close_registry
end layer

# ---------------------------------------------------------------- a file
cp "$WORK/ckpt.image" "my image"
check "file: mounted" other "my image" mountnbd_file
record mountnbd_file "LOCAL $PWD/my image"
end_other
mv "my image" kept
cp "$WORK/basic.image" "my image"
check "file: another one is refused" refuses "another image is mounted" "$TOOL" reattach "$device"
cp "$WORK/same.image" "my image"
check "file: the same files under another UUID are refused" refuses "its UUID is another" \
  "$TOOL" reattach "$device"
printf 'no image' >"my image"
check "file: what is no image is refused" refuses "my image" "$TOOL" reattach "$device"
check "file: no record" no_record
mv kept "my image"
check "file: served on" import "$device"
check "file: all files are right" same_files
kill_all
cold
check "file: reattach, by our record" "$TOOL" reattach "$MNT"
check "file: all files are right" same_files
end file

size=$(stat -c %s "$WORK/ckpt.image")
check "size: mounted" other "my image" mountnbd_size $((size + 512))
record mountnbd_size "LOCAL $PWD/my image"
end_other
check "size: another one is refused" refuses "the image has $size bytes, the device $((size + 512))" \
  "$TOOL" reattach "$device"
record mountnbd_size "S3_OBJECT bucket/key s3.example.com 0 1 eu-1 "
check "size: so is an object of S3" refuses "bucket/key at s3.example.com" "$TOOL" reattach "$device"
check "size: no record" no_record
check "size: dropped" drop

check "exact size: mounted" other "my image" mountnbd_exact "$size"
record mountnbd_exact "LOCAL $PWD/my image"
end_other
check "exact size: served on" import "$device"
check "exact size: all files are right" same_files
end "exact size"

# ---------------------------------------------------------------- a layer by its number
serve "$WORK/layout"
check "number: mounted" other "$WORK/layer.image" mountnbd_layer
record mountnbd_layer "OCI_LAYER $host/app:v1 linux/amd64 1 "
end_other
check "number: without its tarindex it is refused" refuses "oci.tarindex" "$TOOL" reattach -o oci.insecure "$device"
record mountnbd_layer "OCI_LAYER $host/app:v1 linux/amd64 2 "
check "number: past the last layer is refused" refuses "out of range (0..1)" "$TOOL" reattach -o oci.insecure "$device"
record mountnbd_layer "OCI_LAYER $host/app:v1 linux/amd64 0 "
check "number: another layer is refused" refuses "another image is mounted" \
  "$TOOL" reattach -o "oci.insecure,oci.tarindex=$DATA/gz-basic.erofs,oci.zinfo=$DATA/gz-basic.zinfo" "$device"
close_registry
serve "$WORK/moved" --listen "$host"
record mountnbd_layer "OCI_LAYER $host/app:v1 linux/amd64 1 "
check "number: the tag has moved" refuses "another image is mounted" \
  "$TOOL" reattach -o "oci.insecure,oci.tarindex=$DATA/gz-multi.erofs,oci.zinfo=$DATA/gz-multi.zinfo" "$device"
close_registry
serve "$WORK/layout" --listen "$host"
check "number: no record" no_record
check "number: served on, with its tarindex" import "$device" -o "oci.insecure,$own_index"
check "number: all files are right" same_files
close_registry
end number

# ---------------------------------------------------------------- neither ours nor theirs
records=/run/elsewhere
mkdir -m 700 "$records"
check "stranger: mounted" other "$WORK/ckpt.image" mountnbd_x
record mountnbd_x "LOCAL $WORK/ckpt.image"
end_other
check "stranger: left alone" refuses "no record of such a mount" "$TOOL" reattach "$device"
check "stranger: dropped" drop
exit "$failed"
