#!/usr/bin/env python3
"""Measures what reading and indexing one layer takes, against the tools that do the same, in one run.

usage: bench/layer.py [--layer TAR.GZ] [--bin DIR] [--repeat N]

Every number is printed with what it is measured against; ratios are what to compare between machines.
Exits 1 if a count that does not depend on the machine (requests, bytes) is worse than promised. Needs
root, igzip, nbdkit and nbdcopy.
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys

from common import (Registry, bench_image, erofs_utils_index, note, plain_arguments, seconds,
                    server)

RANDOM_READS = 60
RANDOM_LENGTH = 128 * 1024


def inspect_layer(layout, layer):
    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    descriptor = manifest["layers"][0]
    assert descriptor["size"] == os.path.getsize(layer)
    return descriptor["digest"]


def random_reads(args, registry, digest, directory):
    subprocess.run([args.bin / "mount-oci", "index", "-o", f"oci.store={directory}/random",
                    f"oci:{directory}/layout:latest"], check=True, stdout=subprocess.DEVNULL)
    index, = pathlib.Path(directory).glob("random/read/*/index")
    url = f"{registry.url}/v2/bench/blobs/{digest}"
    registry.reset()
    out = subprocess.run([args.bin / "bench-random_reads", url, index, str(RANDOM_READS),
                          str(RANDOM_LENGTH)], check=True, capture_output=True, text=True).stdout
    result = json.loads(out)
    seen = registry.stats()
    per_read = result["fetches"] / result["reads"]
    megabytes = result["fetched_bytes"] / result["reads"] / 1e6
    print(f"random cold reads of 128 KiB over HTTP: {per_read:.2f} requests and "
          f"{megabytes:.2f} MB a read (server saw {seen['range_requests']} ranges with the one that "
          f"opens it)")
    note(args, "cold random read of 128 KiB: requests", per_read, "")
    note(args, "cold random read of 128 KiB: fetched", megabytes, "MB")
    return (per_read <= 1.02 and megabytes <= 0.8
            and seen["range_requests"] <= result["fetches"] + 1)


def serve_command(args, image, socket, more=""):
    return [args.bin / "mount-oci", "serve", "--socket", socket, "-o",
            f"oci.layer=0,oci.start_list=off,oci.hedge=no,oci.tarindex={args.tarindex},oci.zinfo={args.zinfo}{more}",
            image]


def sequence(args, registry, directory):
    size = os.path.getsize(args.layer)
    times = {"unix": [], "local": [], "igzip": [], "gzip": [], "unpacked": []}
    image = f"{registry.host}/bench:latest"
    tar = f"{directory}/layer.tar"
    with open(tar, "wb") as unpacked:
        subprocess.run(["igzip", "-dc", args.layer], check=True, stdout=unpacked)
    plain = ["nbdkit", "-U", "-", "file", tar, "--run", 'nbdcopy --connections=1 "$uri" null:']
    for turn in range(args.repeat):
        times["igzip"].append(seconds(["igzip", "-dc", args.layer]))
        times["gzip"].append(seconds(["gzip", "-dc", args.layer]))
        times["unpacked"].append(times["igzip"][-1] + seconds(plain))
        for name, source, more in (("unix", image, ",oci.insecure,oci.cache_dir=none"),
                                   ("local", f"oci:{directory}/layout:latest", "")):
            socket = f"{directory}/{name}{turn}"
            with server(serve_command(args, source, socket, more), "nbd+unix:") as uri:
                registry.reset()
                times[name].append(seconds(["nbdcopy", "--connections=1", uri, "null:"]))
                if name == "unix":
                    seen = registry.stats()
    requests, got = seen["range_requests"], seen["bytes"]
    print(f"whole layer in sequence over HTTP: {requests} requests, {got / size:.3f} x the blob's "
          f"{size} bytes")
    note(args, "the whole layer by nbdcopy from a registry: fetched", got / 1e6, "MB", "the blob",
         size / 1e6)
    # One for each 4 MiB, and those that open it.
    ok = requests <= size / (4 << 20) + 2 and got <= 1.02 * size
    best = {name: min(values) for name, values in times.items()}
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, text in (("unix", "from a registry on loopback"), ("local", "from an OCI layout")):
        print(f"nbdcopy --connections=1 to null over a unix socket, cold, {text}: "
              f"{middle[name]:.3f} s; igzip -dc {middle['igzip']:.3f} s, gzip -dc "
              f"{middle['gzip']:.3f} s; ratio to igzip {middle[name] / middle['igzip']:.2f} "
              f"(best of each: {best[name] / best['igzip']:.2f}), to igzip and nbdcopy from nbdkit "
              f"serving the tar, one after the other, {middle[name] / middle['unpacked']:.2f} "
              f"(best of each: {best[name] / best['unpacked']:.2f})")
        note(args, f"the whole layer by nbdcopy, {text}", middle[name], "s",
             "igzip -dc, then nbdcopy of the tar from nbdkit", middle["unpacked"])
    return ok


def indexing(args, registry, directory):
    times = {"index": [], "gzip": [], "igzip": []}
    for turn in range(args.repeat):
        times["gzip"].append(seconds(["gzip", "-dc", args.layer]))
        times["igzip"].append(seconds(["igzip", "-dc", args.layer]))
        store = f"{directory}/store{turn}"
        times["index"].append(seconds([args.bin / "mount-oci", "index", "-o", f"oci.store={store}",
                                       f"oci:{directory}/layout:latest"]))
    middle = {name: statistics.median(values) for name, values in times.items()}
    size = sum(path.stat().st_size for path in pathlib.Path(store).glob("read/*/index"))
    blob = os.path.getsize(args.layer)
    print(f"index of the layer, tarindex, digests and checks in one pass: {middle['index']:.3f} s, "
          f"{middle['index'] / middle['gzip']:.2f} x gzip -dc, "
          f"{middle['index'] / middle['igzip']:.2f} x igzip -dc; windows and table {size} bytes, "
          f"{100 * size / blob:.2f} % of the blob (zinfo: "
          f"{100 * os.path.getsize(args.zinfo) / blob:.2f} %)")
    note(args, "index of the layer", middle["index"], "s", "gzip -dc", middle["gzip"])
    image = f"{registry.host}/bench:latest"
    options = f"oci.insecure,oci.cache_dir=none,oci.store={store}"
    find = [args.bin / "mount-oci", "find", "-o", options, image, "/usr", "-type", "f"]
    name = subprocess.run(find, check=True, capture_output=True, text=True).stdout.split("\n")[0]
    registry.reset()
    subprocess.run([args.bin / "mount-oci", "cat", "-o", options, image, name], check=True,
                   stdout=subprocess.DEVNULL)
    requests = registry.stats()["range_requests"]
    print(f"cat of one file of the remote image: {requests} requests for data")
    return requests <= 3


def main():
    args = plain_arguments(__doc__, repeat=5).parse_args()
    with bench_image(args) as (directory, layer, layout):
        args.layer = layer
        args.tarindex, args.zinfo = erofs_utils_index(args, layout, directory)
        digest = inspect_layer(layout, layer)
        with server([args.bin / "oci-registry", layout], "http") as address:
            registry = Registry(address)
            good = [random_reads(args, registry, digest, directory),
                    sequence(args, registry, directory), indexing(args, registry, directory)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
