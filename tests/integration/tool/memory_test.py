# SPDX-License-Identifier: Apache-2.0
"""What a worker takes in memory: at most its budget and 64 MiB, however much is read, and little when
nobody has read for a while. From a registry, by files through FUSE."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import random
import shutil
import sys
import tarfile
import tempfile
import unittest
import zlib

from fuse_mount_test import MountTest, wait_for, why_skip
from support import REGISTRY, SANITIZED, Running, make_layout

MIB = 1 << 20
LAYERS = 4
BLOCK = 4 * MIB
BLOCKS = 80  # of a layer's one file; all layers together have 1.25 GiB
BUDGET = 64  # MiB, the smallest


def member(data):
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def block(seed):
    """Words, of which gzip makes less than half."""
    draw = random.Random(seed)
    words = [bytes(draw.choices(b"abcdefghijklmnop", k=draw.randrange(3, 12))) for _ in range(3000)]
    return b" ".join(draw.choices(words, k=BLOCK // 4))[:BLOCK]


def make_layer(path, seed):
    """A tar with one file, the same block again and again, each a member of the gzip stream; the
    digest of the file."""
    data = block(seed)
    packed = member(data)
    info = tarfile.TarInfo(f"file{seed}")
    info.size = BLOCKS * BLOCK
    with open(path, "wb") as file:
        file.write(member(info.tobuf()))
        for _ in range(BLOCKS):
            file.write(packed)
        file.write(member(bytes(1024)))
    digest = hashlib.sha256()
    for _ in range(BLOCKS):
        digest.update(data)
    return digest.hexdigest()


def memory(pid, name):
    """A number of /proc/PID/status, in MiB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def digest_of(path):
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(MIB):
            digest.update(piece)
    return digest.hexdigest()


class MemoryTest(MountTest):
    @classmethod
    def setUpClass(cls):
        cls.base = tempfile.mkdtemp(dir="/var/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.base, ignore_errors=True)
        os.chmod(cls.base, 0o755)
        paths = [os.path.join(cls.base, f"{number}.tar.gz") for number in range(LAYERS)]
        cls.digests = [make_layer(path, number) for number, path in enumerate(paths)]
        cls.layout = os.path.join(cls.base, "image")
        make_layout.make_layout(paths, cls.layout, tag="v1")

    def serve(self, words):
        """Mounts the image; the worker."""
        host = Running(self, self.layout, program=REGISTRY).line.split("://", 1)[1]
        self.mount("--attach", "fuse-tree", "-o", f"oci.insecure,oci.cache_dir=none,{words}",
                   image=f"{host}/image:v1")
        return self.status()["worker"]

    def status(self):
        done = self.run_tool("status", "--json", "--journal", os.path.join(self.dir, "journal"))
        return json.loads(done.stdout)[0]

    def read_all(self):
        paths = [os.path.join(self.mnt, f"file{number}") for number in range(LAYERS)]
        with concurrent.futures.ThreadPoolExecutor(LAYERS) as threads:
            self.assertEqual(list(threads.map(digest_of, paths)), self.digests)

    def read_here_and_there(self):
        draw = random.Random(1)
        expected = [block(number) for number in range(LAYERS)]
        for _ in range(1000):
            number = draw.randrange(LAYERS)
            at = draw.randrange(BLOCKS * BLOCK // 4096) * 4096
            with open(os.path.join(self.mnt, f"file{number}"), "rb", buffering=0) as file:
                found = os.pread(file.fileno(), 4096, at)
            self.assertEqual(found, expected[number][at % BLOCK:][:4096])

    @unittest.skipIf(SANITIZED, "a sanitizer takes memory of its own")
    def test_1_all_is_read_within_the_budget(self):
        # The first mount makes the indexes, too.
        for first in True, False:
            with self.subTest(first=first):
                worker = self.serve(f"oci.memory={BUDGET}M")
                self.read_all()
                self.read_here_and_there()
                self.assertLessEqual(memory(worker, "VmHWM"), BUDGET + 64)
                self.assertEqual(self.status()["restarts"], 0)
                self.umount()

    @unittest.skipIf(SANITIZED, "a sanitizer takes memory of its own")
    def test_2_memory_is_given_back_when_nobody_reads(self):
        worker = self.serve("oci.memory=512M,oci.idle=3")
        idle = memory(worker, "VmRSS")
        self.read_all()
        self.assertGreater(memory(worker, "VmHWM"), idle + 128)
        self.assertTrue(wait_for(lambda: memory(worker, "VmRSS") <= idle + 16, 60),
                        f"{memory(worker, 'VmRSS')} MiB are left, were {idle}")
        self.assertTrue(wait_for(lambda: self.status()["memory"] <= MIB))
        self.read_all()
        self.umount()


if __name__ == "__main__":
    if reason := why_skip():
        print("skipped:", reason)
        sys.exit(77)
    unittest.main()
