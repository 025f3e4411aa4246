#!/usr/bin/env python3
"""Measures what reads of a mount wait for a proof of its layers beside them.

usage: bench/proof.py [--layer TAR.GZ] [--bin DIR] [--latency MS] [--bandwidth SIZE] [--way WAY] [--repeat N]

Serves an image with a signed index by oci-registry, mounts it with an empty store and an empty layer cache,
and reads every tenth file, in an order that is always the same: with oci.verify=off, and with
oci.verify=background, in turns. Counts decide: the bytes that the registry has sent when all layers are
proved must be those of the layers, once, and what was asked for twice at the same instant; and a mount
afterwards must need none of them. Exits with 1 if they are not. Times are printed: the median of the reads'
time beside the proof and without, and their quotient, which shall be 1.1 at most. Needs root and FUSE.
"""
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time

from common import Registry, arguments, bench_image, note, slow_registry
from first_contact import make_keys

AT_ONCE = 4 << 20  # bytes that a read and the proof may have asked for at the same time, and manifests


def tool(program, *words):
    return subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout


class Mount:
    def __init__(self, program, directory, image, words, way):
        self.program, self.where = program, directory / "mnt"
        self.journal = directory / "journal"
        self.where.mkdir(exist_ok=True)
        tool(program, "mount", "--attach", way, "--journal", self.journal, "-o", words, image, self.where)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        tool(self.program, "umount", "--journal", self.journal, self.where)

    def layers(self):
        status, = json.loads(tool(self.program, "status", "--json", "--journal", self.journal))
        return status.get("layers", [])

    def wait_until_proved(self):
        while True:
            states = {layer["state"] for layer in self.layers()}
            if states == {"proved"}:
                return
            if "failed" in states:
                sys.exit(f"not proved: {self.layers()}")
            time.sleep(0.2)

    def files(self):
        found = sorted(path for path in self.where.rglob("*") if path.is_file() and not path.is_symlink())
        chosen = found[::10]
        random.Random(1).shuffle(chosen)
        return chosen


def read_all(files):
    begin = time.monotonic()
    for file in files:
        file.read_bytes()
    return time.monotonic() - begin


def main():
    args = arguments(__doc__, repeat=5, way="fuse-tree").parse_args()
    with bench_image(args) as (directory, layer, layout):
        return measure(args, directory, layer, layout)


def measure(args, directory, layer, layout):
    program = args.bin / "mount-oci"
    key, by_key = make_keys(directory)
    with slow_registry(args, layout, "--accept-pushes") as address:
        registry = Registry(address)
        image = f"{registry.host}/bench:latest"
        usual = f"oci.insecure,oci.start_list=off{by_key}"
        tool(program, "index", "--push", "--sign-key", key, "-o",
             f"oci.insecure,oci.store={directory}/first", image)
        times = {"off": [], "background": []}
        good = True
        for _ in range(args.repeat):
            for verify, taken in times.items():
                store = directory / "store"
                shutil.rmtree(store, ignore_errors=True)
                words = f"{usual},oci.store={store},oci.verify={verify}"

                def use(wait):
                    """Mounts, reads and unmounts; the reads' time, and bytes that the registry has sent."""
                    before = registry.stats()["bytes"]
                    with Mount(program, directory, image, words, args.way) as mount:
                        took = read_all(mount.files())
                        if wait:
                            mount.wait_until_proved()
                    return took, registry.stats()["bytes"] - before

                took, sent = use(verify == "background")
                taken.append(took)
                if verify == "background":
                    size = os.path.getsize(layer)
                    _, again = use(False)
                    good = good and sent <= size + AT_ONCE and again <= AT_ONCE
                    print(f"proved: {sent} bytes of a layer of {size}; a mount after it: {again}")
        off, beside = (statistics.median(taken) for taken in times.values())
        print(f"reads: {off:.3f} s without a proof, {beside:.3f} s beside it: {beside / off:.2f} times")
        note(args, "reads beside a proof in the background", beside, "s", "the same without", off)
        return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
