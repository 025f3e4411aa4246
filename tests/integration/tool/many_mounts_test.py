# SPDX-License-Identifier: Apache-2.0
"""Many mounts of one image at once, each with processes of its own, that share a layer cache and a store:
together they fetch the image once, and each has its files."""
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys
import unittest
import urllib.request

from fuse_mount_test import MountTest, daemons, why_skip
from support import REGISTRY, SANITIZED, TOOL, Running

MOUNTS = 15 if SANITIZED else 100


def contents(top):
    """A digest of the names, types and bytes of all files below."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            digest.update(os.path.relpath(path, top).encode() + b"\0")
            if os.path.islink(path):
                digest.update(os.readlink(path).encode())
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


class ManyMountsTest(MountTest):
    def setUp(self):
        super().setUp()
        url = Running(self, self.layout, program=REGISTRY).line.split()[-1].rstrip("/")
        self.url, self.remote = url, f"{url.split('://', 1)[1]}/image:v1"
        self.size = sum(layer["size"] for layer in self.layers())
        # Below self.mnt, so that clean_up() finds what a failure leaves.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.mnt], check=True)
        self.places = [os.path.join(self.mnt, str(number)) for number in range(MOUNTS)]
        for place in self.places:
            os.mkdir(place)
        self.addCleanup(self.end_all)

    def end_all(self):
        for place in self.places:
            subprocess.run(["umount", "-l", place], capture_output=True)

    def layers(self):
        def blob(digest):
            with open(os.path.join(self.layout, "blobs", *digest.split(":"))) as file:
                return json.load(file)

        with open(os.path.join(self.layout, "index.json")) as file:
            return blob(json.load(file)["manifests"][0]["digest"])["layers"]

    def stats(self):
        with urllib.request.urlopen(f"{self.url}/_stats") as answer:
            return json.load(answer)

    def mount_one(self, place):
        store = os.path.join(self.dir, "store")
        words = (f"oci.insecure,oci.store={store},oci.cache_dir={store}/cache,oci.hedge=no,"
                 "oci.memory=64M")
        return subprocess.run([TOOL, "mount", "--no-share", "--attach", "fuse-tree", "--journal",
                               os.path.join(self.dir, "journal"), "-o", words, self.remote, place],
                              capture_output=True, text=True, timeout=300)

    def test_together_they_fetch_the_image_once(self):
        with concurrent.futures.ThreadPoolExecutor(MOUNTS) as threads:
            for done in threads.map(self.mount_one, self.places):
                self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(len(set(threads.map(contents, self.places))), 1)
        expected = contents(self.plain) if self.plain else contents(self.places[0])
        self.assertEqual(contents(self.places[-1]), expected)
        # The configuration of the image is a blob, too; each mount may read it.
        fetched = self.stats()["bytes"]
        self.assertGreaterEqual(fetched, self.size)
        self.assertLessEqual(fetched, 1.02 * self.size + MOUNTS * 2000)

        for place in self.places:
            done = self.run_tool("umount", place)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([pid for place in self.places for pid in daemons([place])], [])


if __name__ == "__main__":
    if reason := why_skip():
        print("skipped:", reason)
        sys.exit(77)
    unittest.main()
