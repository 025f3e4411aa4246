# SPDX-License-Identifier: Apache-2.0
"""What is fetched is kept on disk: nothing crosses the network twice, and a registry that is away is not
missed."""
import json
import os
import shutil
import subprocess
import unittest

import images
from files_test import ImageTest
from support import TOOL, read
from survive_test import wait_for


class CacheTest(ImageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        blobs = os.path.join(cls.image_layout, "blobs", "sha256")
        manifest = json.loads(read(os.path.join(cls.image_layout, "index.json")))["manifests"][0]
        cls.manifest = manifest["digest"]
        layers = json.loads(read(os.path.join(blobs, cls.manifest[7:])))["layers"]
        cls.sizes = {layer["digest"]: layer["size"] for layer in layers}
        cls.size = sum(cls.sizes.values())

    def setUp(self):
        super().setUp()
        self.host = self.three_at_registry()
        self.image = f"{self.host}/app:v1"
        self.blobs = os.path.join(self.store, "blobs-3")
        self.before = self.stats(self.host)

    def since(self):
        """What the registry has counted since the last call."""
        now = self.stats(self.host)
        before, self.before = self.before, now
        return {key: now[key] - before[key] for key in now}

    def read_all(self, words="", image=None, status=0):
        """Every byte of every file."""
        return self.run_tool("extract", "--tar", words=words, image=image, status=status)

    def test_nothing_is_fetched_twice(self):
        first = self.read_all()
        counted = self.since()
        # The configuration is a blob, too. A request is answered with no byte more than it asks for.
        self.assertLessEqual(counted["bytes"], self.size * 1.02 + 20_000)
        self.assertGreaterEqual(counted["bytes"], self.size)
        self.assertTrue(self.read_all() == first)
        counted = self.since()
        self.assertEqual((counted["blob_requests"], counted["manifest_requests"]), (0, 1))

    def test_parts_are_kept_too(self):
        self.run_tool("index")
        shutil.rmtree(self.blobs)  # the index stays
        self.since()
        def requests():
            self.run_tool("cat", "/etc/passwd")
            return self.since()["blob_requests"]

        self.assertGreater(requests(), 0)
        # A command may end while the last chunk of what it needs is still coming.
        self.assertTrue(wait_for(lambda: requests() == 0))

    def test_none_keeps_nothing(self):
        for words in (",oci.cache_dir=none", f",oci.store=none,oci.cache_dir={self.dir}/other"):
            self.run_tool("cat", "/etc/passwd", words=words)
        self.assertFalse(os.path.exists(self.blobs))
        self.assertTrue(os.listdir(os.path.join(self.dir, "other", "blobs-3")))

    def test_without_the_registry(self):
        by_digest = f"{self.host}/app@{self.manifest}"
        pulled, = self.json_lines("pull", "--json")
        self.assertEqual((pulled["digest"], pulled["layers"], pulled["size"], pulled["complete"]),
                         (self.manifest, 3, self.size, True))
        self.assertGreaterEqual(pulled["fetched"], self.size)
        self.since()
        again, = self.json_lines("pull", "--json")
        self.assertEqual((again["fetched"], again["complete"]), (0, True))
        self.assertEqual(self.since()["requests"], 1)  # what the tag is
        whole = self.read_all(",oci.pull=missing")
        self.assertTrue(self.read_all(image=by_digest) == whole)
        self.assertEqual(self.since()["requests"], 0)

        self.server.kill()
        for words in (",oci.pull=missing", ",oci.pull=never"):
            self.assertTrue(self.read_all(words) == whole)
        self.assertTrue(self.read_all(image=by_digest) == whole)
        self.assertTrue(self.read_all(",oci.pull=never", image=by_digest) == whole)
        image, = self.json_lines("image", "--json", words=",oci.pull=never")
        self.assertEqual(image["digest"], self.manifest)
        # By default the registry is asked, and missed.
        done = subprocess.run(
            [TOOL, "cat", "-v", "-o", f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store},"
             "oci.retry=off", self.image, "/etc/passwd"], capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"the registry cannot be asked what", done.stderr)
        other = f"{self.host}/app:v2"
        self.read_all(",oci.retry=off", image=other, status=2)
        self.assertNotIn("cannot be asked what", self.said)

    def test_never_means_never(self):
        self.read_all(",oci.pull=never", status=2)
        self.assertIn("is not kept on this machine", self.said)
        self.assertEqual(self.since()["requests"], 0)
        self.run_tool("index")
        kept = sorted(os.listdir(self.blobs))
        layer, = (name for name in kept if name.startswith("sha256-" + list(self.sizes)[0][7:]))
        os.remove(os.path.join(self.blobs, layer))
        self.since()
        self.read_all(",oci.pull=never", status=2)
        self.assertIn("is not kept on this machine in full", self.said)
        self.assertEqual(self.since()["requests"], 0)

    def test_what_changes_on_disk_is_never_read(self):
        whole = self.read_all()
        self.since()
        for name in os.listdir(self.blobs):
            path = os.path.join(self.blobs, name)
            size = os.path.getsize(path)
            with open(path, "r+b") as file:
                for at in range(5000, size, 40_000):
                    file.seek(at)
                    byte = file.read(1)
                    file.seek(at)
                    file.write(bytes([byte[0] ^ 0x40]))
        self.assertTrue(self.read_all() == whole)
        self.assertGreater(self.since()["blob_requests"], 0)
        self.assertTrue(self.read_all() == whole)  # and it is mended
        self.assertEqual(self.since()["blob_requests"], 0)

    def test_a_full_disk(self):
        small = os.path.join(self.dir, "small")
        self.mount_small(small, "size=64k,mode=700")
        words = f",oci.cache_dir={small},oci.cache_size=1G"
        whole = self.read_all()
        self.assertTrue(self.read_all(words) == whole)
        self.assertTrue(self.read_all(words) == whole)

    def test_the_size_is_bounded(self):
        words = ",oci.cache_size=1M"
        whole = self.read_all(words)
        used, = self.cache("du", words=words)
        self.assertEqual(used["limit"], 1 << 20)
        self.assertLess(used["on_disk"], 1.2 * (1 << 20))
        self.assertTrue(self.read_all(words) == whole)

    def cache(self, action, *arguments, status=0, words=""):
        done = subprocess.run([TOOL, "cache", action, "-o", f"oci.store={self.store}{words}", "--json",
                               *arguments], capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (status, b""))
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_the_cache_command(self):
        self.assertEqual(self.cache("ls"), [])
        self.run_tool("pull")
        listed = {blob["digest"]: blob for blob in self.cache("ls")}
        self.assertEqual({digest: listed[digest]["kept"] for digest in self.sizes}, self.sizes)
        self.assertTrue(all(blob["complete"] for blob in listed.values()))
        self.assertEqual(self.cache("du")[0]["blobs"], 4)  # and the configuration
        self.assertEqual({blob["damaged"] for blob in self.cache("verify")}, {0})
        first = list(self.sizes)[0]
        path = os.path.join(self.blobs, f"{first.replace(':', '-')}.{self.sizes[first]}")
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([byte[0] ^ 1]))
        self.assertEqual([blob["damaged"] for blob in self.cache("verify", first, status=1)], [1])
        self.assertEqual([blob["damaged"] for blob in self.cache("verify", first)], [0])
        os.utime(path, (10**9, 10**9))
        self.assertEqual([blob["digest"] for blob in self.cache("prune", "--keep=2d")], [first])
        second = list(self.sizes)[1]
        self.assertEqual([blob["digest"] for blob in self.cache("rm", second)], [second])
        self.assertEqual(self.cache("du")[0]["blobs"], 2)
        self.assertEqual(len(self.cache("rm", "--all")), 2)
        self.assertEqual([name for part in ("blobs-3", "documents-1", "tags-1")
                          for name in os.listdir(os.path.join(self.store, part))], [])
        self.run_tool("pull")

    def test_a_mount_outlives_the_directory(self):
        if not os.path.exists("/dev/fuse"):
            self.skipTest("no FUSE")
        mnt = os.path.join(self.dir, "mnt")
        os.mkdir(mnt)
        journal = os.path.join(self.dir, "journal")
        self.run_tool("index")
        words = (f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store}/index,"
                 f"oci.cache_dir={self.store}")
        done = subprocess.run([TOOL, "mount", "--attach=fuse-tree", "--journal", journal, "-o", words,
                               self.image, mnt], capture_output=True, timeout=60)
        if done.returncode != 0 and b"fuse" in done.stderr.lower():
            self.skipTest(done.stderr.decode())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(subprocess.run, [TOOL, "umount", "--journal", journal, mnt],
                        capture_output=True)
        self.assertEqual(read(os.path.join(mnt, "etc/passwd")), b"root:x:0:0\nuser:x:1:1\n")
        status = lambda: json.loads(subprocess.run([TOOL, "status", "--json", "--journal", journal],
                                                   capture_output=True, timeout=60).stdout)[0]
        self.assertTrue(wait_for(lambda: status().get("disk", {}).get("complete")))
        self.assertEqual(status()["disk"]["total"], self.size)
        shutil.rmtree(self.blobs)
        self.assertTrue(read(os.path.join(mnt, "data/large")) == images.noise(5_000_000, b"large"))


if __name__ == "__main__":
    unittest.main()
