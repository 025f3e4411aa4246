#!/usr/bin/env python3
"""Makes a SOCI ztoc of a tar.gz that has one span, with Python's tarfile and flatc.

usage: make_ztoc.py LAYER.tar.gz LAYER.zinfo OUT.ztoc      (flatc: Debian's flatbuffers-compiler)

Independent of erofs_oci: another reader of archives, and the reference encoder of FlatBuffers.
"""
import datetime
import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

SCHEMA = """
table Record { key: string; value: string; }
table File {
  name: string; type: string; offset: int64; size: int64; link: string; mode: int64;
  uid: uint32; gid: uint32; user: string; group: string; time: string;
  major: int64; minor: int64; records: [Record];
}
table List { files: [File]; }
table Spans { algorithm: int8 = 1; last: int32; digests: [string]; checkpoints: [uint8]; }
table Ztoc {
  version: string; tool: string; blob_size: int64; tar_size: int64; list: List; spans: Spans;
}
root_type Ztoc;
"""
TYPES = {b"0": "reg", b"\0": "reg", b"1": "hardlink", b"2": "symlink", b"3": "char",
         b"4": "block", b"5": "dir", b"6": "fifo"}


def rfc3339(seconds):
    whole = int(seconds // 1)
    text = datetime.datetime.fromtimestamp(whole, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return text + "Z"  # fractions are in the records


def file_of(member):
    name = member.name + ("/" if member.isdir() else "")
    has_data = member.isreg() and not member.islnk()
    return {
        "name": name, "type": TYPES[member.type], "offset": member.offset_data,
        "size": member.size if has_data else 0, "link": member.linkname, "mode": member.mode,
        "uid": member.uid, "gid": member.gid, "user": member.uname, "group": member.gname,
        "time": rfc3339(member.mtime), "major": member.devmajor, "minor": member.devminor,
        "records": [{"key": k, "value": v} for k, v in sorted(member.pax_headers.items())
                    if k != "path"],
    }


def main():
    layer, zinfo, out = map(pathlib.Path, sys.argv[1:])
    blob = layer.read_bytes()
    points = zinfo.read_bytes()
    assert len(points) == 12 + 32785, "one checkpoint"
    start = int.from_bytes(points[12:20], "little")
    data = gzip.decompress(blob)
    archive = tarfile.open(fileobj=io.BytesIO(data))
    members = archive.getmembers()
    ztoc = {
        "version": "0.9", "tool": "make_ztoc.py", "blob_size": len(blob),
        "tar_size": archive.offset + 512,  # Go's reader takes the second zero block, too
        "list": {"files": [file_of(m) for m in members]},
        "spans": {"last": 0, "digests": ["sha256:" + hashlib.sha256(blob[start:]).hexdigest()],
                  "checkpoints": list(points)},
    }
    with tempfile.TemporaryDirectory() as directory:
        top = pathlib.Path(directory)
        (top / "ztoc.fbs").write_text(SCHEMA)
        (top / "ztoc.json").write_text(json.dumps(ztoc))
        subprocess.run(["flatc", "-b", "ztoc.fbs", "ztoc.json"], cwd=top, check=True)
        out.write_bytes((top / "ztoc.bin").read_bytes())


main()
