#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes an OCI image layout of layers: make_layout.py DIR TAG LAYER.tar.gz...

Two platforms are in its index: linux/amd64 with the layers, linux/arm64 with none.
"""
import gzip
import hashlib
import json
import os
import sys


def main(directory, tag, layers):
    blobs = os.path.join(directory, "blobs", "sha256")
    os.makedirs(blobs, exist_ok=True)

    def put(data, media_type, **more):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data), **more}

    def put_json(value, media_type, **more):
        return put(json.dumps(value).encode(), media_type, **more)

    def image(paths, architecture):
        descriptors, diff_ids = [], []
        for path in paths:
            with open(path, "rb") as file:
                data = file.read()
            gzipped = data[:2] == b"\x1f\x8b"
            tar = gzip.decompress(data) if gzipped else data
            diff_ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
            suffix = "+gzip" if gzipped else ""
            descriptors.append(put(data, "application/vnd.oci.image.layer.v1.tar" + suffix))
        config = {"architecture": architecture, "os": "linux",
                  "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {}}
        manifest = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": put_json(config, "application/vnd.oci.image.config.v1+json"),
            "layers": descriptors}
        return put_json(manifest, manifest["mediaType"],
                        platform={"os": "linux", "architecture": architecture})

    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
             "manifests": [image(layers, "amd64"), image(layers[:1], "arm64")]}
    top = put_json(index, index["mediaType"],
                   annotations={"org.opencontainers.image.ref.name": tag})
    with open(os.path.join(directory, "index.json"), "w") as file:
        json.dump({"schemaVersion": 2, "mediaType": index["mediaType"], "manifests": [top]}, file)
    with open(os.path.join(directory, "oci-layout"), "w") as file:
        json.dump({"imageLayoutVersion": "1.0.0"}, file)
    print(top["digest"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
