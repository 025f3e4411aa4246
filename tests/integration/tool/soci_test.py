# SPDX-License-Identifier: Apache-2.0
"""mount-oci with a registry that holds SOCI indexes: it mounts layers without reading them first, by
the indexes that oci.index allows, and a wrong ztoc never becomes wrong bytes."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest
import urllib.request

import images
import ztoc
from support import REGISTRY, Running, TOOL, digest, make_layout, read, own_mounts


class SociTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() == 0:
            own_mounts()
        cls.top = pathlib.Path(tempfile.mkdtemp(prefix="soci-"))
        cls.addClassCleanup(shutil.rmtree, cls.top)
        cls.layers = [pathlib.Path(layer.save(cls.top / f"layer{i}"))
                      for i, layer in enumerate(images.three_layers())]
        for layer in cls.layers:
            subprocess.run([TOOL, "index", "-o", "oci.store=none", "--output", cls.top / "zinfo",
                            layer], check=True, capture_output=True)
        cls.zinfo = [read(cls.top / f"zinfo/{layer.name}.zinfo") for layer in cls.layers]
        cls.large = images.noise(5_000_000, b"large")
        plain = cls.layout("plain", None)
        cls.wanted = cls.top / "wanted"
        subprocess.run([TOOL, "extract", "-o", "oci.store=none,oci.platform=linux/amd64", "-C",
                        cls.wanted, f"oci:{plain}:v1"], check=True, capture_output=True)

    @classmethod
    def layout(cls, name, version, ztocs=None):
        """A layout of the image, with a SOCI index of that version if it is to have one."""
        place = cls.top / name
        shutil.rmtree(place, ignore_errors=True)
        make_layout.make_layout(cls.layers, place, tag="v1")
        if version is None:
            return place
        ztocs = ztocs or [ztoc.make_ztoc(read(layer), zinfo)
                          for layer, zinfo in zip(cls.layers, cls.zinfo)]
        ztoc.add_soci_index(place, version, ztocs)
        return place

    @staticmethod
    def blob(layout, name):
        return layout / "blobs/sha256" / name[7:]

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=self.top))
        self.addCleanup(shutil.rmtree, self.dir)
        self.store = self.dir / "store"

    def registry(self, layout):
        server = Running(self, str(layout), program=REGISTRY)
        self.host = server.line.split("://", 1)[1]
        entry = json.loads((layout / "index.json").read_text())["manifests"][0]
        self.by_tag, self.by_digest = f"{self.host}/app:v1", f"{self.host}/app@{entry['digest']}"
        return server

    def read_bytes(self):
        """So many bytes the registry has sent."""
        with urllib.request.urlopen(f"http://{self.host}/_stats") as answer:
            return json.load(answer)["bytes"]

    def words(self, use):
        words = f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store}"
        return words + (f",oci.index={use}" if use else "")

    def tool(self, command, *arguments, use=None, image=None, status=0, options=()):
        done = subprocess.run([TOOL, command, *options, "-o", self.words(use),
                               image or self.by_tag, *arguments], capture_output=True, timeout=60)
        self.said = done.stderr.decode()
        self.assertEqual(done.returncode, status, self.said)
        return done.stdout

    def cost_of_ls(self, **more):
        """The bytes that a listing takes from the registry."""
        before = self.read_bytes()
        self.assertEqual(self.tool("ls", "/lib", **more), b"so\nso.1.2\n")
        return self.read_bytes() - before

    def kept(self, kind="read"):
        folder = self.store / kind
        return len(os.listdir(folder)) if folder.exists() else 0

    def layers_size(self):
        return sum(layer.stat().st_size for layer in self.layers)

    def is_little(self, count):
        self.assertLess(count, 200_000)  # of 5.9 MB: ztocs, which have windows of 32 KiB

    def is_whole(self, count):
        self.assertGreaterEqual(count, self.layers_size())

    # ---- which indexes are trusted

    def test_an_index_that_the_image_names_is_used_and_kept(self):
        self.registry(self.layout("v2", 2))
        for use in ("trusted", "bound"):
            for image in (self.by_tag, self.by_digest):
                with self.subTest(use=use, image=image):
                    self.is_little(self.cost_of_ls(use=use, image=image))
                    self.assertEqual((self.kept(), self.kept("claimed")), (0, 3))
                    self.is_little(self.cost_of_ls(use=use, image=image))
                    subprocess.run(["rm", "-r", self.store], check=True)
        self.is_whole(self.cost_of_ls(use="none"))
        self.assertEqual((self.kept(), self.kept("claimed")), (3, 0))

    def test_what_one_image_claims_of_a_layer_counts_for_no_other(self):
        def claim(member):
            if member.name.rpartition("/")[2] == "passwd":
                member.mode, member.uid = 0o6755, 4711
            return member

        honest, lying = self.layout("honest", None), self.layout("lying", 2, self.ztocs(claim=claim))
        stat = lambda: self.tool("stat", "/etc/passwd")
        for first in (honest, lying):
            with self.subTest(first=first.name):
                said = {}
                for place in (first, honest, lying, honest):
                    self.registry(place)
                    said.setdefault(place, []).append(stat())
                # An image may say of itself what it likes, since it could as well have such a layer;
                # but what was read of the layer before is known better.
                self.assertEqual([b"4711" in text for text in said[lying]],
                                 [True, True] if first == lying else [False])
                self.assertEqual([b"4711" in text for text in said[honest]],
                                 [False] * len(said[honest]))
                subprocess.run(["rm", "-r", self.store], check=True)

    def test_a_proved_index_counts_for_all_images(self):
        self.registry(self.layout("v2", 2))
        ls = lambda use: self.tool("ls", "/lib", use=use)
        for use in "bound", "trusted":
            with self.subTest(use=use):
                ls(use)
                self.assertEqual((self.kept(), self.kept("claimed")), (0, 3))
                ls(use + ",oci.verify=before")
                self.assertEqual((self.kept(), self.kept("claimed"), self.kept("refuted")), (3, 3, 0))
                before = self.read_bytes()
                ls("none")
                self.is_little(self.read_bytes() - before)
                shutil.rmtree(self.store)

    def test_a_lie_is_read_past_and_not_used_again(self):
        def claim(member):
            if member.name.rpartition("/")[2] == "passwd":
                member.mode, member.uid = 0o6755, 4711
            return member

        self.registry(self.layout("lying", 2, self.ztocs(claim=claim)))
        stat = lambda use: self.tool("stat", "/etc/passwd", use=use)
        self.assertIn(b"4711", stat("bound"))
        self.assertNotIn(b"4711", stat("bound,oci.verify=before"))
        self.assertIn("/etc/passwd: another mode; the layer is read instead", self.said)
        self.assertEqual(self.kept("refuted"), 2)
        self.assertNotIn(b"4711", stat("bound"))

    def test_an_index_that_refers_to_the_image_is_used_if_that_is_enough(self):
        self.registry(self.layout("v1", 1))
        self.is_little(self.cost_of_ls(use="trusted"))
        self.assertEqual((self.kept(), self.kept("claimed")), (0, 0))
        self.assertIn("an index that refers to the image", self.said)
        for more in ({}, {"use": "bound"}, {"use": "none"},
                     {"use": "trusted", "image": self.by_digest}):
            with self.subTest(**more):
                self.is_whole(self.cost_of_ls(**more))
                self.assertEqual(self.kept(), 3)
                subprocess.run(["rm", "-r", self.store], check=True)

    # ---- the bytes

    def test_files_are_those_that_reading_the_layers_gives(self):
        for version in (1, 2):
            with self.subTest(version=version):
                self.registry(self.layout(f"v{version}", version))
                use = "trusted"
                self.assertTrue(self.tool("cat", "/data/second", use=use) == self.large)
                before = self.read_bytes()
                self.assertEqual(self.tool("cat", "/etc/passwd", use=use), b"root:x:0:0\nuser:x:1:1\n")
                self.assertLess(self.read_bytes() - before, self.layers[1].stat().st_size + 200_000)
                out = self.dir / f"out{version}"
                self.tool("extract", use="trusted", options=("-C", str(out)))
                self.assertEqual(images.differences(images.tree(str(out)),
                                                    images.tree(str(self.wanted))), [])

    def test_an_honest_index_is_proved_and_counts_for_all_images_then(self):
        self.registry(self.layout("honest", 2))
        self.cost_of_ls()
        self.assertEqual((self.kept("claimed"), self.kept("read")), (3, 0))
        self.assertEqual(self.tool("verify").decode().count(": proved\n"), 3)
        self.assertEqual((self.kept("claimed"), self.kept("read")), (3, 3))

    def test_a_device_is_served_without_reading_a_layer(self):
        self.registry(self.layout("v2", 2))
        before = self.read_bytes()
        server = Running(self, "serve", "--socket", str(self.dir / "socket"), "-o",
                         self.words("bound"), self.by_tag)
        self.is_little(self.read_bytes() - before)
        copy, target = self.dir / "copy", self.dir / "target"
        subprocess.run(["nbdcopy", server.line, copy], check=True, timeout=60)
        self.assertEqual(server.end(), (0, ""))
        target.mkdir()
        if subprocess.run(["mount", "-t", "erofs", "-o", "ro,loop", copy, target],
                          capture_output=True).returncode != 0:
            self.skipTest("this machine mounts no EROFS file")
        self.addCleanup(subprocess.run, ["umount", target])
        self.assertEqual(images.differences(images.tree(str(target)),
                                            images.tree(str(self.wanted))), [])

    @unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/fuse"), "needs root and FUSE")
    def test_a_restarted_worker_finds_an_index_that_no_store_keeps(self):
        self.registry(self.layout("v1", 1))
        self.store = "none"
        target, journal = self.dir / "target", self.dir / "journal"
        target.mkdir()
        self.tool("mount", str(target), use="trusted", options=("--journal", str(journal)))
        self.addCleanup(subprocess.run, ["umount", "-l", target], capture_output=True)

        def worker():
            return json.loads(self.tool_output("status", "--json", "--journal", journal))[0]["worker"]

        old = worker()
        os.kill(old, signal.SIGKILL)
        self.assertEqual((target / "etc/passwd").read_bytes(), b"root:x:0:0\nuser:x:1:1\n")
        self.assertEqual((target / "data/large").read_bytes(), self.large)
        self.assertNotEqual(worker(), old)
        self.tool_output("umount", target)

    @staticmethod
    def tool_output(*arguments):
        return subprocess.run([TOOL, *arguments], capture_output=True, check=True, timeout=60).stdout

    # ---- lies

    def ztocs(self, **more):
        return [ztoc.make_ztoc(read(layer), zinfo, **more)
                for layer, zinfo in zip(self.layers, self.zinfo)]

    def test_spans_that_are_not_what_their_digests_say_give_no_bytes(self):
        wrong = digest(b"something else")
        last = ztoc.make_ztoc(read(self.layers[0]), self.zinfo[0], lie=LastLies(self.zinfo[0], wrong))
        for version, first in ((1, self.ztocs(lie=lambda _: wrong)[0]), (2, last)):
            with self.subTest(version=version):
                ztocs = [first, *self.ztocs()[1:]]
                self.registry(self.layout(f"lie{version}", version, ztocs))
                use = "trusted"
                self.assertEqual(self.tool("ls", "/lib", use=use), b"so\nso.1.2\n")
                self.assertEqual(self.tool("cat", "/gone/c", use=use), b"c")  # a layer that is right
                said = self.tool("cat", "/data/large", use=use, status=2)
                self.assertIn("digest mismatch", self.said)
                self.assertTrue(self.large.startswith(said))
                self.assertLess(len(said), len(self.large))
                out = self.dir / f"out{version}"
                self.tool("extract", use=use, status=2, options=("-C", str(out)))
                self.assertFalse((out / "data/large").exists())

    def test_a_ztoc_that_is_none_is_passed_over(self):
        good = self.ztocs()
        for name, bad in (("junk", b"junk" * 100), ("cut", good[0][:len(good[0]) // 2]),
                          ("other", good[1]), ("empty", b"\0" * 4)):
            with self.subTest(name):
                self.registry(self.layout(f"bad_{name}", 2, [bad, *good[1:]]))
                before = self.read_bytes()
                self.assertTrue(self.tool("cat", "/data/large") == self.large)
                self.assertGreaterEqual(self.read_bytes() - before, self.layers[0].stat().st_size)
                subprocess.run(["rm", "-r", self.store], check=True)

    def test_a_ztoc_that_the_registry_changed_is_not_taken(self):
        place = self.layout("changed", 2)
        first = ztoc.make_ztoc(read(self.layers[0]), self.zinfo[0])
        with open(self.blob(place, digest(first)), "r+b") as file:
            file.seek(len(first) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        self.registry(place)
        self.assertTrue(self.tool("cat", "/data/large", options=("-v",)) == self.large)
        self.assertRegex(self.said, "no SOCI index: .*digest mismatch")


class LastLies:
    """Says the truth of every span but the last."""

    def __init__(self, zinfo, wrong):
        self.left = int.from_bytes(zinfo[:4], "little")
        self.wrong = wrong

    def __call__(self, true):
        self.left -= 1
        return true if self.left else self.wrong


if __name__ == "__main__":
    unittest.main()
