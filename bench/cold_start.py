#!/usr/bin/env python3
"""Measures what programs of a mounted image fetch when nothing of it is there but its index.

usage: bench/cold_start.py [--before PROGRAM] [--layer TAR.GZ] [--bin DIR] [--latency MS]
                           [--bandwidth SIZE] [--way WAY] [--mount-options WORDS] [--repeat N]
                           [--workloads NAME,...]

Makes an image of Debian with python3-minimal by mmdebstrap, or takes a layer that has bash, perl, python3
and apt; serves it by oci-registry, with latency, and the bandwidth for each answer; and runs six
workloads in it by chroot, each on a fresh mount with an empty layer cache: without a start list, and with
the one that a mount for the same workload has recorded. Counts are what to compare: requests for blobs
and their bytes, with those of the mount itself. Times (from command to exit, medians) are of this machine.
"needed" is what the list holds: compressed bytes that decoding what the workload reads takes. "touched"
is what gzip makes of the files that the workload touches, each by itself: those of which the kernel
then has pages.
--before: a mount-oci of another version, without start lists or without a layer cache, which takes turns
with this one. Needs root, and FUSE or NBD.
"""
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib

from common import (Registry, arguments, bench_image, conditions, drop_caches, mounted, note, run_in,
                    server, slow_registry)

LIBRARIES = ("find /usr/lib -name '*.so*' -type f | sort | head -n 60 | "
             "while read -r name; do cat \"$name\"; done > /dev/null")
WORKLOADS = {
    "bash": ["bash", "-c", "true"],
    "perl": ["perl", "-MPOSIX", "-e", "1"],
    "python": ["python3", "-c", "import os, re"],
    "dpkg -l": ["dpkg-query", "-W"],
    "apt list": ["apt", "list", "--installed"],
    "60 libraries": ["sh", "-c", LIBRARIES],
}


def list_bytes(store):
    """What a start list needs: the sum of its ranges. See doc/formats/start_list.md."""
    total = 0
    for path in store.glob("starts/*/list"):
        data = path.read_bytes()
        layers, ranges = struct.unpack_from("<II", data, 12)
        for i in range(ranges):
            begin, end = struct.unpack_from("<QQ", data, 24 + 32 * layers + 24 * i + 8)
            total += end - begin
    return total


def touched_bytes(where):
    """What gzip makes of each file of which the kernel has pages, together."""
    names = [os.path.join(at, name) for at, _, files in os.walk(where) for name in files]
    names = [name for name in names if os.path.isfile(name) and not os.path.islink(name)]
    total, seen = 0, set()
    for begin in range(0, len(names), 500):
        lines = subprocess.run(["fincore", "--bytes", "--noheadings", "--raw", "--output", "RES,FILE",
                                *names[begin:begin + 500]], check=True, capture_output=True,
                               text=True).stdout.splitlines()
        for resident, name in (line.split(" ", 1) for line in lines):
            if resident == "0" or os.stat(name).st_ino in seen:
                continue
            seen.add(os.stat(name).st_ino)
            total += len(zlib.compress(pathlib.Path(name).read_bytes(), 6))
    return total


class Version:
    """A program, the store with its index of the image, and what its workloads took.

    start_list: the word of oci.start_list for what is measured, or None for none. With "use", a mount for
    the same workload has recorded the list before."""

    def __init__(self, name, program, directory, start_list):
        self.name = name
        self.program = program
        self.directory = directory
        self.store = directory / f"store {name}"
        self.start_list = start_list
        self.has_cache = "oci.cache_dir" in subprocess.run(
            [program, "mount", "--help"], capture_output=True, text=True).stdout
        self.index_bytes = 0
        self.taken = {workload: [] for workload in WORKLOADS}
        self.needed = {}
        self.touched = {}

    def words(self, args, start_list=None, cache="none"):
        more = f",{args.mount_options}" if args.mount_options else ""
        more += f",oci.start_list={start_list}" if start_list else ""
        more += f",oci.cache_dir={cache}" if self.has_cache else ""
        return f"oci.insecure,oci.store={self.store}{more}"

    def index(self, args, image):
        subprocess.run([self.program, "index", "-o", self.words(args), image], check=True,
                       stdout=subprocess.DEVNULL)
        self.index_bytes = sum(p.stat().st_size for p in self.store.glob("read/*/index"))

    def run(self, args, image, registry, where, workload):
        if self.start_list == "use":
            shutil.rmtree(self.store / "starts", ignore_errors=True)
            if workload not in self.touched:
                self.run_once(args, image, registry, where, workload, "off")
            self.run_once(args, image, registry, where, workload, "record")
            self.needed[workload] = list_bytes(self.store) / 1e6
        taken = self.run_once(args, image, registry, where, workload, self.start_list)
        self.taken[workload].append(taken)

    def run_once(self, args, image, registry, where, workload, start_list):
        drop_caches()
        registry.reset()
        with tempfile.TemporaryDirectory(dir=self.directory) as cache:
            words = self.words(args, start_list, cache) + ",dev"  # perl opens /dev/null
            with mounted(self.program, image, words, args.way, where):
                begin = time.monotonic()
                run_in(where, WORKLOADS[workload])
                seconds = time.monotonic() - begin
                if start_list == "off" and self.start_list == "use":
                    self.touched[workload] = touched_bytes(where) / 1e6
            seen = registry.stats()
        return seen["range_requests"], seen["bytes"] / 1e6, seconds

    def row(self, workload):
        return [statistics.median(column) for column in zip(*self.taken[workload])]


def print_table(versions):
    print("| workload | " + " | ".join(
        f"{v.name}: requests | MB | seconds" for v in versions) + " | needed: MB | touched: MB |")
    print("|---|" + "---|" * (3 * len(versions) + 2))
    sums = [[0, 0, 0] for _ in versions]
    for workload in versions[-1].needed:
        cells = [workload]
        for total, version in zip(sums, versions):
            row = version.row(workload)
            total[:] = [a + b for a, b in zip(total, row)]
            cells += [f"{row[0]:.0f}", f"{row[1]:.2f}", f"{row[2]:.2f}"]
        cells.append(f"{versions[-1].needed[workload]:.2f}")
        cells.append(f"{versions[-1].touched[workload]:.2f}")
        print("| " + " | ".join(cells) + " |")
    cells = [text for t in sums for text in (f"{t[0]:.0f}", f"{t[1]:.2f}", f"{t[2]:.2f}")]
    cells.append(f"{sum(versions[-1].needed.values()):.2f}")
    cells.append(f"{sum(versions[-1].touched.values()):.2f}")
    print("| together | " + " | ".join(cells) + " |")


def main():
    parser = arguments(__doc__, repeat=1)
    parser.add_argument("--before", type=pathlib.Path)
    parser.add_argument("--mount-options", default="", help="more words of -o")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="names, joined by commas")
    args = parser.parse_args()
    with bench_image(args) as (directory, layer, layout):
        size = layer.stat().st_size
        program = args.bin / "mount-oci"
        versions = [Version("without", program, directory, "off"),
                    Version("start list", program, directory, "use")]
        if args.before:
            versions.insert(0, Version("before", args.before.resolve(), directory, None))
        where = directory / "mnt"
        where.mkdir()
        with server([args.bin / "oci-registry", layout], "http") as address:
            for version in versions:
                version.index(args, f"{Registry(address).host}/bench:latest")
        with slow_registry(args, layout) as address:
            registry = Registry(address)
            for _ in range(args.repeat):
                for workload in args.workloads.split(","):
                    for version in versions:
                        version.run(args, f"{registry.host}/bench:latest", registry, where,
                                    workload)
        print(conditions(args, layer))
    for version in versions:
        print(f"{version.name}: index file {version.index_bytes} bytes, "
              f"{100 * version.index_bytes / size:.3f} % of the layer")
    print_table(versions)
    for version in versions:
        for workload in version.needed or versions[-1].needed:
            note(args, f"{workload} in a fresh mount, {version.name}: fetched", version.row(workload)[1],
                 "MB", "its touched files by gzip", versions[-1].touched[workload])
    return 0


if __name__ == "__main__":
    sys.exit(main())
