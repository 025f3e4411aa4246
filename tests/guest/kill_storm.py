#!/usr/bin/env python3
"""Kills the workers of a mount at random instants while four readers check what they read.

usage: kill_storm.py DIR MANIFEST KILLS

MANIFEST is tree_manifest.py's. TOOL: mount-oci. Fails if a read fails, a byte differs, or the worst gap
from a kill to the next read from the device is 3 s or more (KILL_STORM_WORST overrides).
"""
import hashlib
import json
import mmap
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time

directory, manifest, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
worst_allowed = float(os.environ.get("KILL_STORM_WORST", "3"))
random.seed(20261125)
files = []
with open(manifest) as lines:
    for line in lines:
        entry = json.loads(line)
        if entry.get("type") == "file" and 0 < entry.get("size", 0) <= 2_000_000:
            files.append((entry["path"].lstrip("/"), entry["sha256"]))
assert files, "no files in the manifest"

stop = threading.Event()
failures = []
checked = [0] * 4


def read_all(number):
    chooser = random.Random(number)
    while not stop.is_set():
        path, wanted = chooser.choice(files)
        try:
            with open(os.path.join(directory, path), "rb") as file:
                got = hashlib.sha256(file.read()).hexdigest()
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            failures.append(f"{path}: {error}")
            return
        if got != wanted:
            failures.append(f"{path}: {got}, not {wanted}")
            return
        checked[number] += 1


def status():
    done = subprocess.run([os.environ["TOOL"], "status", "--json", directory], check=True,
                          capture_output=True)
    return json.loads(done.stdout)[0]


def workers(parent):
    found = []
    for task in os.listdir(f"/proc/{parent}/task"):
        with open(f"/proc/{parent}/task/{task}/children") as file:
            found += map(int, file.read().split())
    return found


def make_probe(device):
    """What reads from where the image is served, past every cache."""
    if device:
        fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
        size = os.lseek(fd, 0, os.SEEK_END)
        buffer = mmap.mmap(-1, 4096)
        return lambda: os.preadv(fd, [buffer], random.randrange(size // 4096) * 4096)

    def read_file():
        with open(os.path.join(directory, random.choice(files)[0]), "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.read(1)

    return read_file


before = status()
probe = make_probe(before["device"])
readers = [threading.Thread(target=read_all, args=(i,)) for i in range(4)]
for reader in readers:
    reader.start()
parent = before["supervisor"]
gaps = []
while len(gaps) < kills and not failures:
    time.sleep(random.uniform(0, 1))
    children = workers(parent)
    if not children:
        continue
    try:
        os.kill(children[0], signal.SIGKILL)
    except ProcessLookupError:
        continue
    start = time.monotonic()
    try:
        probe()
    except OSError as error:
        failures.append(f"after a kill: {error}")
    gaps.append(time.monotonic() - start)
stop.set()
for reader in readers:
    reader.join()
print(f"        {len(gaps)} kills, {sum(checked)} files checked; from a kill to the next read: "
      f"median {statistics.median(gaps):.2f} s, worst {max(gaps):.2f} s")
for failure in failures:
    print(f"FAILED  {failure}")
if max(gaps) >= worst_allowed:
    print(f"FAILED  the worst gap is {worst_allowed} s or more")
    failures.append("gap")
sys.exit(1 if failures else 0)
