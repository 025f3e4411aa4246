#!/usr/bin/env python3
"""Makes an OCI image layout out of layer files.

usage: tools/make_layout.py LAYER... OUTDIR [--tag TAG] [--platform OS/ARCH[/VARIANT]]
                            [--media-type TYPE]

Each LAYER is a blob as it is: gzipped tar, tar, or with --media-type anything else. OUTDIR is made if
it is not there; an image of the same tag in it is replaced, others stay. Prints the manifest's digest
and each layer's. The same input makes the same bytes. docker-registry takes the result by
`skopeo copy oci:OUTDIR:TAG docker://HOST/NAME:TAG`.
"""
import argparse
import gzip
import hashlib
import json
import os
import pathlib
import shutil

PIECE = 1 << 20
REF_NAME = "org.opencontainers.image.ref.name"


def sha256_of(stream):
    hash = hashlib.sha256()
    while piece := stream.read(PIECE):
        hash.update(piece)
    return "sha256:" + hash.hexdigest()


def put(layout, data):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest[7:]).write_bytes(data)
    return digest


def put_json(layout, value):
    data = json.dumps(value, separators=(",", ":")).encode()
    return {"mediaType": value.get("mediaType", "application/vnd.oci.image.config.v1+json"),
            "digest": put(layout, data), "size": len(data)}


def put_layer(layout, path, media_type):
    """(descriptor, diff_id) of a layer file, which is copied into the layout."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with open(path, "rb") as file:
        digest = sha256_of(file)
    diff_id = digest
    if packed:
        with gzip.open(path, "rb") as stream:
            diff_id = sha256_of(stream)
    if media_type is None:
        media_type = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if packed else "")
    blob = layout / "blobs/sha256" / digest[7:]
    if not blob.exists():
        part = blob.with_suffix(".part")
        shutil.copyfile(path, part)
        os.replace(part, blob)
    return {"mediaType": media_type, "digest": digest, "size": os.path.getsize(path)}, diff_id


def make_layout(layers, outdir, tag="latest", platform="linux/amd64", media_type=None):
    """Returns the manifest's descriptor and the layers' descriptors."""
    layout = pathlib.Path(outdir)
    (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    system, architecture, *variant = platform.split("/")
    where = {"architecture": architecture, "os": system} | ({"variant": variant[0]} if variant else {})
    done = [put_layer(layout, layer, media_type) for layer in layers]
    config = where | {
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in done]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "make_layout"} for _ in done],
    }
    manifest = put_json(layout, {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put_json(layout, config),
        "layers": [descriptor for descriptor, _ in done],
    })

    index_file = layout / "index.json"
    others = json.loads(index_file.read_text())["manifests"] if index_file.exists() else []
    others = [m for m in others if m.get("annotations", {}).get(REF_NAME) != tag]
    entry = manifest | {"platform": where, "annotations": {REF_NAME: tag}}
    index_file.write_text(json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
         "manifests": others + [entry]}, separators=(",", ":")))
    return manifest, [descriptor for descriptor, _ in done]


def main():
    parser = argparse.ArgumentParser(description="Makes an OCI image layout out of layer files.")
    parser.add_argument("layers", nargs="+", metavar="LAYER")
    parser.add_argument("outdir", metavar="OUTDIR")
    parser.add_argument("--tag", default="latest")
    parser.add_argument("--platform", default="linux/amd64")
    parser.add_argument("--media-type", help="of every layer; by default seen from its first bytes")
    a = parser.parse_args()
    manifest, layers = make_layout(a.layers, a.outdir, a.tag, a.platform, a.media_type)
    print("manifest", manifest["digest"])
    for layer in layers:
        print("layer", layer["digest"], layer["size"])


if __name__ == "__main__":
    main()
