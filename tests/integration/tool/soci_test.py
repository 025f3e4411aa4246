# SPDX-License-Identifier: Apache-2.0
"""mount-oci with a registry that holds SOCI indexes: layers are entered without reading them, by
indexes that are trusted as far as was asked for, and what a ztoc lies about is never taken as bytes."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest
import urllib.request

import images
import ztoc
from support import Running, TOOL, digest, make_layout, read

SUBJECT_TAG = "sha256-"  # of the referrers that a registry without an API for them has


class SociTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
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
        top = json.loads((place / "index.json").read_text())
        entry = top["manifests"][0]
        manifest = json.loads(read(cls.blob(place, entry["digest"])))
        ztocs = ztocs or [ztoc.make_ztoc(read(layer), zinfo)
                          for layer, zinfo in zip(cls.layers, cls.zinfo)]
        index = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": ztoc.INDEX % version,
            "config": {"mediaType": ztoc.INDEX % version, "size": 2,
                       "digest": make_layout.put(place, b"{}")},
            "layers": [{"mediaType": "application/octet-stream", "size": len(data),
                        "digest": make_layout.put(place, data),
                        "annotations": {"com.amazon.soci.image-layer-digest": layer["digest"]}}
                       for data, layer in zip(ztocs, manifest["layers"])]}
        if version == 1:
            index["subject"] = {key: entry[key] for key in ("mediaType", "digest", "size")}
            referrer = make_layout.put_json(place, index) | {"artifactType": ztoc.INDEX % 1}
            listed = make_layout.put_json(place, {
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [referrer]})
            tag = SUBJECT_TAG + entry["digest"][7:]
            top["manifests"].append(listed | {"annotations": {make_layout.REF_NAME: tag}})
        else:
            named = make_layout.put_json(place, index)["digest"]
            manifest["annotations"] = {"com.amazon.soci.index-digest": named}
            top["manifests"] = [entry | make_layout.put_json(place, manifest)]
        (place / "index.json").write_text(json.dumps(top))
        return place

    @staticmethod
    def blob(layout, name):
        return layout / "blobs/sha256" / name[7:]

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=self.top))
        self.addCleanup(shutil.rmtree, self.dir)
        self.store = self.dir / "store"

    def registry(self, layout):
        server = Running(self, "registry", str(layout))
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
        return words + (f",oci.soci={use}" if use else "")

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

    def kept(self):
        folder = self.store / "layers"
        return len(os.listdir(folder)) if folder.exists() else 0

    def layers_size(self):
        return sum(layer.stat().st_size for layer in self.layers)

    def is_little(self, count):
        self.assertLess(count, 200_000)  # of 5.9 MB: ztocs, which have windows of 32 KiB

    def is_whole(self, count):
        self.assertGreaterEqual(count, self.layers_size())

    # ---- who is trusted

    def test_an_index_that_the_image_names_is_used_and_kept(self):
        self.registry(self.layout("v2", 2))
        for use in ("trusted", "bound"):
            for image in (self.by_tag, self.by_digest):
                with self.subTest(use=use, image=image):
                    self.is_little(self.cost_of_ls(use=use, image=image))
                    self.assertEqual(self.kept(), 3)
                    subprocess.run(["rm", "-r", self.store], check=True)
        self.is_whole(self.cost_of_ls(use="none"))

    def test_an_index_that_refers_to_the_image_is_used_if_that_is_enough(self):
        self.registry(self.layout("v1", 1))
        for use in ("trusted", None):
            self.is_little(self.cost_of_ls(use=use))
            self.assertEqual(self.kept(), 0)  # nobody else asked for its word
        for more in ({"use": "bound"}, {"use": "none"}, {"image": self.by_digest}):
            with self.subTest(**more):
                self.is_whole(self.cost_of_ls(**more))
                self.assertEqual(self.kept(), 3)
                subprocess.run(["rm", "-r", self.store], check=True)

    # ---- the bytes

    def test_files_are_those_that_reading_the_layers_gives(self):
        for version in (1, 2):
            with self.subTest(version=version):
                self.registry(self.layout(f"v{version}", version))
                self.assertTrue(self.tool("cat", "/data/second") == self.large)
                before = self.read_bytes()
                self.assertEqual(self.tool("cat", "/etc/passwd"), b"root:x:0:0\nuser:x:1:1\n")
                self.assertLess(self.read_bytes() - before, self.layers[1].stat().st_size + 200_000)
                out = self.dir / f"out{version}"
                self.tool("extract", use="trusted", options=("-C", str(out)))
                self.assertEqual(images.differences(images.tree(str(out)),
                                                    images.tree(str(self.wanted))), [])

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
                self.assertEqual(self.tool("ls", "/lib"), b"so\nso.1.2\n")
                self.assertEqual(self.tool("cat", "/gone/c"), b"c")  # of a layer that is right
                said = self.tool("cat", "/data/large", status=2)
                self.assertIn("digest mismatch", self.said)
                self.assertTrue(self.large.startswith(said))
                self.assertLess(len(said), len(self.large))
                out = self.dir / f"out{version}"
                self.tool("extract", status=2, options=("-C", str(out)))
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
