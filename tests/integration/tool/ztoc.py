# SPDX-License-Identifier: Apache-2.0
"""SOCI ztocs of any tar.gz, by Python's tarfile and a few lines of FlatBuffers: nothing of erofs_oci."""
import datetime
import gzip
import hashlib
import io
import json
import tarfile

from support import make_layout

TYPES = {b"0": "reg", b"\0": "reg", b"1": "hardlink", b"2": "symlink", b"3": "char",
         b"4": "block", b"5": "dir", b"6": "fifo"}
ZINFO_HEADER, WINDOW = 12, 32768
INDEX = "application/vnd.amazon.soci.index.v%d+json"
SUBJECT_TAG = "sha256-"  # of the referrers that a registry without an API for them has


# ---------------------------------------------------------------- FlatBuffers
#
# A value is a str, bytes, a (size, number) pair, a list of strs or tables, or a table: a dict of
# field number to value. Children lie behind their parents, so every offset is positive.

def flat_table(out, fields):
    """Appends a table; its place."""
    count = max(fields, default=-1) + 1
    places, size = [0] * count, 4
    for number in sorted(fields, key=lambda n: -width(fields[n])):
        bytes_of = width(fields[number])
        size = (size + bytes_of - 1) // bytes_of * bytes_of
        places[number] = size
        size += bytes_of
    vtable = 4 + 2 * count
    while (len(out) + vtable) % 8:
        out.append(0)
    start = len(out) + vtable
    for value in [vtable, size, *places]:
        out += value.to_bytes(2, "little")
    out += vtable.to_bytes(4, "little") + bytes(size - 4)
    for number, value in fields.items():
        at = start + places[number]
        if isinstance(value, tuple):
            out[at:at + value[0]] = value[1].to_bytes(value[0], "little", signed=value[1] < 0)
        else:
            put_offset(out, at, flat_value(out, value))
    return start


def width(value):
    return value[0] if isinstance(value, tuple) else 4


def put_offset(out, at, to):
    out[at:at + 4] = (to - at).to_bytes(4, "little")


def flat_value(out, value):
    if isinstance(value, dict):
        return flat_table(out, value)
    while len(out) % 4:
        out.append(0)
    start = len(out)
    out += len(value).to_bytes(4, "little") if not isinstance(value, str) else b""
    if isinstance(value, str):
        text = value.encode()
        out += len(text).to_bytes(4, "little") + text + b"\0"
    elif isinstance(value, bytes):
        out += value
    else:
        out += bytes(4 * len(value))
        for i, item in enumerate(value):
            put_offset(out, start + 4 + 4 * i, flat_value(out, item))
    return start


def flat(table):
    out = bytearray(4)
    put_offset(out, 0, flat_table(out, table))
    return bytes(out)


# ---------------------------------------------------------------- ztocs

def rfc3339(seconds):
    when = datetime.datetime.fromtimestamp(int(seconds // 1), datetime.timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")  # fractions are in the records


def file_of(member):
    has_data = member.isreg() and not member.islnk()
    records = [{0: key, 1: value} for key, value in sorted(member.pax_headers.items())
               if key != "path"]
    return {0: member.name + ("/" if member.isdir() else ""), 1: TYPES[member.type],
            2: (8, member.offset_data), 3: (8, member.size if has_data else 0), 4: member.linkname,
            5: (8, member.mode), 6: (4, member.uid), 7: (4, member.gid), 8: member.uname,
            9: member.gname, 10: rfc3339(member.mtime), 11: (8, member.devmajor),
            12: (8, member.devminor), 13: records}


def spans_of(blob, zinfo):
    """Where each span of the blob begins and ends."""
    begins = []
    for at in range(ZINFO_HEADER, len(zinfo), 17 + WINDOW):
        place, bits = int.from_bytes(zinfo[at:at + 8], "little"), zinfo[at + 16]
        begins.append((place - (bits > 0), place))
    ends = [place for _, place in begins[1:]] + [len(blob)]
    return [(begin, end) for (begin, _), end in zip(begins, ends)]


def make_ztoc(blob, zinfo, lie=lambda digest: digest, claim=lambda member: member):
    """The ztoc of a gzipped tar. `lie` may change what is said of spans, `claim` of a member."""
    archive = tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob)))
    files = [file_of(claim(member)) for member in archive.getmembers()]
    digests = [lie("sha256:" + hashlib.sha256(blob[begin:end]).hexdigest())
               for begin, end in spans_of(blob, zinfo)]
    return flat({
        0: "0.9", 1: "ztoc.py", 2: (8, len(blob)), 3: (8, archive.offset + 512), 4: {0: files},
        5: {0: (1, 1), 1: (4, len(digests) - 1), 2: digests, 3: zinfo}})


# ---------------------------------------------------------------- SOCI indexes

def add_soci_index(layout, version, ztocs):
    """Gives the image of a layout a SOCI index with a ztoc for each layer: by version 1 the index names
    the image, by version 2 the image's manifest, which is then another one, names the index."""
    top = json.loads((layout / "index.json").read_text())
    entry = top["manifests"][0]
    manifest = json.loads((layout / "blobs/sha256" / entry["digest"][7:]).read_bytes())
    index = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": INDEX % version,
        "config": {"mediaType": INDEX % version, "size": 2,
                   "digest": make_layout.put(layout, b"{}")},
        "layers": [{"mediaType": "application/octet-stream", "size": len(data),
                    "digest": make_layout.put(layout, data),
                    "annotations": {"com.amazon.soci.image-layer-digest": layer["digest"]}}
                   for data, layer in zip(ztocs, manifest["layers"])]}
    if version == 1:
        index["subject"] = {key: entry[key] for key in ("mediaType", "digest", "size")}
        referrer = make_layout.put_json(layout, index) | {"artifactType": INDEX % 1}
        listed = make_layout.put_json(layout, {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [referrer]})
        tag = SUBJECT_TAG + entry["digest"][7:]
        top["manifests"].append(listed | {"annotations": {make_layout.REF_NAME: tag}})
    else:
        named = make_layout.put_json(layout, index)["digest"]
        manifest["annotations"] = {"com.amazon.soci.index-digest": named}
        top["manifests"] = [entry | make_layout.put_json(layout, manifest)]
    (layout / "index.json").write_text(json.dumps(top))
