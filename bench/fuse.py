#!/usr/bin/env python3
"""Measures the ways to a mounted image without NBD in the kernel against the tools for the same.

usage: bench/fuse.py [--layer TAR.GZ] [--bin DIR] [--repeat N] [--ways WAY,...]

Ways: fuse-tree, fuse-file (EROFS on the file), fuse-loop (EROFS on a loop device over the file), and
what they are compared with: nbdfuse (EROFS on a loop device over nbdfuse's file, which reads from our
NBD socket) and squashfuse (an uncompressed squashfs of the same tree). Needs root. "First" is the first
time after the mount: the kernel has nothing of it, but the tar itself is in the page cache. The ways
take turns in each round; printed are medians, in milliseconds.
"""
import contextlib
import gzip
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

from common import bench_image, erofs_utils_index, note, plain_arguments

RANDOM_READS = 500


def wait_for(condition, what):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    sys.exit(f"{what}: waited too long")


@contextlib.contextmanager
def ours(args, way, where):
    process = subprocess.Popen([args.bin / "bench-fuse_mount", way, where, args.tarindex, args.tar],
                               stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout.readline() != "ready\n":
            sys.exit(f"{way}: not ready")
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def over_nbdfuse(args, where):
    with tempfile.TemporaryDirectory(prefix="nbd") as folder, \
            ours(args, "nbd", f"{folder}/socket"):
        os.mkdir(f"{folder}/file")
        client = subprocess.Popen(["nbdfuse", f"{folder}/file/image", "--unix", f"{folder}/socket"])
        try:
            wait_for(lambda: os.path.ismount(f"{folder}/file"), "nbdfuse")
            subprocess.run(["mount", "-t", "erofs", "-o", "ro,loop", f"{folder}/file/image", where],
                           check=True)
            try:
                yield
            finally:
                subprocess.run(["umount", where], check=True)
        finally:
            subprocess.run(["fusermount3", "-u", f"{folder}/file"], check=False)
            client.wait(timeout=30)


@contextlib.contextmanager
def squashfuse(args, where):
    process = subprocess.Popen(["squashfuse", "-f", "-o", "allow_other", args.squash, where])
    try:
        wait_for(lambda: os.path.ismount(where), "squashfuse")
        yield
    finally:
        subprocess.run(["umount", where], check=True)
        process.wait(timeout=30)


WAYS = {
    "fuse-tree": lambda args, where: ours(args, "tree", where),
    "fuse-file": lambda args, where: ours(args, "file", where),
    "fuse-loop": lambda args, where: ours(args, "loop", where),
    "nbdfuse": over_nbdfuse,
    "squashfuse": squashfuse,
}
STANDINS = {"nbdfuse", "squashfuse"}


def milliseconds(action):
    start = time.monotonic()
    action()
    return (time.monotonic() - start) * 1000


def find(root):
    subprocess.run(["find", root, "-printf", "%s"], check=True, stdout=subprocess.DEVNULL)


def read_all(root):
    subprocess.run(f"tar -C {root} -cf - . | cat >/dev/null", shell=True, check=True)


def read_file(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def read_random(path, size):
    draw = random.Random(7)
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(RANDOM_READS):
            os.pread(file.fileno(), 4096, draw.randrange(size // 4096) * 4096)


def measure(args, way):
    with tempfile.TemporaryDirectory(prefix="bench") as where, WAYS[way](args, where):
        big = os.path.join(where, args.big)
        result = {"find, first": milliseconds(lambda: find(where)),
                  "find, again": milliseconds(lambda: find(where)),
                  f"{RANDOM_READS} x 4 KiB at random, first":
                      milliseconds(lambda: read_random(big, args.big_size))}
    with tempfile.TemporaryDirectory(prefix="bench") as where, WAYS[way](args, where):
        big = os.path.join(where, args.big)
        result |= {"largest file, first": milliseconds(lambda: read_file(big)),
                   "largest file, again": milliseconds(lambda: read_file(big))}
    with tempfile.TemporaryDirectory(prefix="bench") as where, WAYS[way](args, where):
        result["tar of everything, first"] = milliseconds(lambda: read_all(where))
    return result


def prepare(args, folder, layout):
    args.tar, args.squash = f"{folder}/layer.tar", f"{folder}/layer.squashfs"
    args.tarindex, _ = erofs_utils_index(args, layout, folder)
    with gzip.open(args.layer) as packed, open(args.tar, "wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)
    with tarfile.open(args.tar) as archive:
        files = [m for m in archive if m.isreg()]
    largest = max(files, key=lambda m: m.size)
    args.big, args.big_size = os.path.normpath(largest.name), largest.size
    print(f"{len(files)} files, {os.path.getsize(args.tar)} bytes; largest {args.big}, "
          f"{args.big_size} bytes; {os.cpu_count()} processors, Linux {os.uname().release}")
    if "squashfuse" in args.ways:
        tree = f"{folder}/tree"
        os.mkdir(tree)
        subprocess.run(["tar", "-C", tree, "-xf", args.tar], check=True)
        subprocess.run(["mksquashfs", tree, args.squash, "-noI", "-noD", "-noF", "-noX", "-quiet",
                        "-no-progress"], check=True, stdout=subprocess.DEVNULL)


def main():
    parser = plain_arguments(__doc__, repeat=5)
    parser.add_argument("--ways", default=",".join(WAYS), type=lambda text: text.split(","))
    args = parser.parse_args()
    absent = {way for way in STANDINS & set(args.ways) if not shutil.which(way)}
    if absent:
        print(f"left out: {', '.join(sorted(absent))} is not installed")
        args.ways = [way for way in args.ways if way not in absent]
    with bench_image(args) as (folder, args.layer, layout):
        prepare(args, folder, layout)
        times = {way: {} for way in args.ways}
        for _ in range(args.repeat):
            for way in args.ways:
                for name, value in measure(args, way).items():
                    times[way].setdefault(name, []).append(value)
    print(f"{'ms':36}" + "".join(f"{way:>12}" for way in args.ways))
    for name in next(iter(times.values())):
        print(f"{name:36}" + "".join(f"{statistics.median(times[way][name]):12.1f}"
                                     for way in args.ways))
    ours, theirs = args.ways[0], args.ways[-1]
    for name, values in times[ours].items():
        note(args, f"{name}, by {ours}", statistics.median(values), "ms", theirs,
             statistics.median(times[theirs][name]) if theirs != ours else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
