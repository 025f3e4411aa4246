# SPDX-License-Identifier: Apache-2.0
"""mount-oci diff: what a comparison of the extracted images says, and which data that takes."""
import json
import os
import shutil
import subprocess
import unittest

import images
from files_test import ImageTest
from support import TOOL, make_layout, with_little_stack


def kind(item):
    return int(item["mode"], 8) & 0o170000


def expected(a, b):
    """From trees as images.tree() has them: by path, the letter and what differs."""
    found = {}
    for name in a.keys() | b.keys():
        path = "/" if name == "." else "/" + name
        if name not in a or name not in b:
            found[path] = ("A" if name in b else "D", set())
            continue
        one, other, what = a[name], b[name], set()
        if kind(one) != kind(other):
            what.add("type")
        elif one.get("sha256") != other.get("sha256"):
            what.add("size" if one["size"] != other["size"] else "content")
        if int(one["mode"], 8) & 0o7777 != int(other["mode"], 8) & 0o7777:
            what.add("mode")
        for key, word in (("owner", "owner"), ("mtime", "time"), ("xattrs", "attributes")):
            if one[key] != other[key]:
                what.add(word)
        if kind(one) == kind(other):
            for key in ("target", "device"):
                if one.get(key) != other.get(key):
                    what.add(key)
            if len(one.get("names", [])) != len(other.get("names", [])):
                what.add("links")
        if what:
            found[path] = ("M", what)
    return found


class DiffTest(ImageTest):
    def diff(self, *words, status=1, **more):
        words = ["diff", "-o", f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store}", *words]
        done = subprocess.run([TOOL, *words], capture_output=True, timeout=60, **more)
        self.said = done.stderr.decode()
        self.assertEqual(done.returncode, status, self.said)
        return done.stdout.decode(errors="surrogateescape")

    def told(self, *words, **more):
        """By path, the letter and what differs."""
        found = {}
        for line in self.diff("--json", *words, **more).splitlines():
            entry = json.loads(line)
            found[entry["path"]] = (entry["change"], set(entry.get("differs", [])))
        return found

    def image_of(self, name, layers, **more):
        return f"oci:{images.layout_of(os.path.join(self.dir, name), layers, **more)}:v1"

    def tree_of(self, image):
        if os.geteuid() != 0:
            self.skipTest("needs root, to own what is extracted")
        there = os.path.join(self.dir, "unpacked")
        shutil.rmtree(there, ignore_errors=True)
        self.run_tool("extract", "-C", there, image=image)
        return images.tree(there)

    def test_says_what_the_extracted_images_say(self):
        layers = images.many_layers(12)
        sets = {"five": layers[:5], "eight": layers[:8], "twelve": layers,
                "other": images.many_layers(6, seed=3), "three": images.three_layers()}
        names = {name: self.image_of(name, chosen) for name, chosen in sets.items()}
        trees = {name: self.tree_of(image) for name, image in names.items()}
        letters = set()
        for a, b in (("five", "eight"), ("eight", "five"), ("eight", "twelve"), ("five", "other"),
                     ("three", "five"), ("other", "three")):
            with self.subTest(a=a, b=b):
                wanted = expected(trees[a], trees[b])
                found = self.told("--content", names[a], names[b])
                self.assertEqual(found, wanted)
                letters |= {letter for letter, _ in found.values()}
                # Without --content, what has not been read is said to be so, and nothing else differs.
                lazy = self.told(names[a], names[b])
                for path, (letter, what) in lazy.items():
                    if "content?" not in what:
                        self.assertEqual((letter, what), wanted[path])
                        continue
                    known = what - {"content?"}
                    self.assertEqual(letter, "M" if known else "?")
                    self.assertEqual(known, wanted.get(path, ("", set()))[1] - {"content"})
                self.assertLessEqual(wanted.keys(), lazy.keys())
        self.assertEqual(letters, {"A", "D", "M"})

    def test_lines(self):
        one = images.Layer().file("a", b"1").file("b", b"22", mode=0o644).dir("gone").file("gone/x")
        one.symlink("l", "here").add("dev", images.tarfile.CHRTYPE, device=(1, 3)).file("same", b"s")
        other = images.Layer().file("a", b"2").file("b", b"333", mode=0o4755, owner=(5, 6))
        other.symlink("l", "there").add("dev", images.tarfile.CHRTYPE, device=(1, 5)).file("same", b"s")
        other.file("gone", xattrs={"user.x": "y"}, mtime=images.TIME + 1).file("new")
        a, b = self.image_of("a", [one]), self.image_of("b", [other])
        self.assertEqual(self.diff(a, b).splitlines(), [
            "? /a (content not compared)",
            "M /b (mode 644 -> 4755, owner 0:0 -> 5:6, size 2 -> 3)",
            "M /dev (device 1,3 -> 1,5)",
            "M /gone (type directory -> regular file, mode 755 -> 644, attributes, time"
            " 2020-09-13 12:26:40.000000000 +0000 -> 2020-09-13 12:26:41.000000000 +0000)",
            "D /gone/x",
            "M /l (target here -> there)",
            "A /new",
            "? /same (content not compared)"])
        self.assertIn("2 files of the same size in both images, but of other layers: --content", self.said)
        lines = self.diff("--content", a, b).splitlines()
        self.assertEqual(lines[0], "M /a (content)")
        self.assertNotIn("/same", "".join(lines))
        self.assertEqual(self.said, "")
        lines = self.diff("--content", "--ignore", "time,attributes", "--ignore=mode", "--ignore", "owner", a,
                          b).splitlines()
        self.assertEqual(lines[1], "M /b (size 2 -> 3)")
        self.assertEqual(lines[3], "M /gone (type directory -> regular file)")

    def test_the_same_is_the_same(self):
        packed = self.image_of("packed", self.layers)
        plain = self.image_of("plain", self.layers, packed=False)
        self.assertEqual(self.diff(self.image, self.image, status=0), "")
        # The same tars, though the layers are other blobs: no data are read.
        self.assertEqual(self.diff(packed, plain, status=0), "")
        self.assertEqual(self.diff("--content", self.image, plain, "/etc", "/data/large", status=0), "")
        self.assertEqual(self.said, "")

    def test_no_data_are_fetched(self):
        layout = os.path.join(self.dir, "tags")
        layers = images.three_layers()
        layers.append(images.Layer().file("data/large", images.noise(5_000_000, b"more"))
                      .file("etc/passwd", b"root::0:0\n").whiteout("attr"))
        paths = [layer.save(os.path.join(self.dir, f"layer{i}")) for i, layer in enumerate(layers)]
        make_layout.make_layout(paths[:3], layout, tag="v1")
        make_layout.make_layout(paths, layout, tag="v2")
        self.layout, before = layout, self.layout
        host = self.registry()
        self.layout = before
        one, other = f"{host}/app:v1", f"{host}/app:v2"
        words = ["-o", "oci.cache_dir=none"]
        for image in (one, other):
            self.run_tool("index", *words, image=image)
        count = lambda: self.stats(host)["blob_requests"]
        begin = count()
        lines = self.diff(*words, one, other).splitlines()
        self.assertEqual([line.split(" (")[0] for line in lines],
                         ["D /attr", "? /data/large", "M /data/second", "M /etc/passwd"]
                         if lines[1].startswith("?") else
                         ["D /attr", "M /data/large", "M /data/second", "M /etc/passwd"])
        self.assertIn("size 22 -> 10", lines[-1])
        self.assertEqual(count(), begin)
        lines = self.diff("--content", *words, one, other, "/data").splitlines()
        self.assertTrue(lines[0].startswith("M /data/large (content"))
        self.assertGreater(count(), begin)

    def test_a_login_stays_at_its_registry(self):
        login = ("--username", "me", "--password-file", self.secret())
        one, other = (f"{self.three_at_registry(*login)}/app:v1" for _ in range(2))
        words = ["-o", f"oci.username=me,oci.password_file={self.secret()}"]
        self.assertEqual(self.diff(*words, one, one, status=0), "")
        self.assertEqual(self.diff(*words, self.image, other, status=0), "")  # the only registry
        self.diff(*words, one, other, status=2)
        self.assertIn(other, self.said)
        self.assertIn("the registry wants a user name and password", self.said)
        config = os.path.join(self.dir, "config")
        with open(config, "w") as file:
            file.write(f'[registry."{other.split("/")[0]}"]\noci.username = "me"\n'
                       f'oci.password_file = "{self.secret()}"\n')
        self.assertEqual(self.diff(*words, "--config", config, one, other, status=0), "")

    def test_paths(self):
        one = self.image_of("one", [images.Layer().file("d/a", b"1").file("d/b").file("e/a", b"1")])
        other = self.image_of("other", [images.Layer().file("d/a", b"12").file("e/a", b"12").dir("f/g")])
        self.assertEqual(self.diff("--ignore", "time", one, other, "/d"),
                         "M /d/a (size 1 -> 2)\nD /d/b\n")
        self.assertEqual(self.diff(one, other, "d/a", "/e/a"),
                         "M /d/a (size 1 -> 2)\nM /e/a (size 1 -> 2)\n")
        self.assertEqual(self.diff(one, other, "/f"), "A /f\nA /f/g\n")
        self.assertEqual(self.diff(one, one, "/d", "/e/", status=0), "")
        self.assertEqual(self.diff(one, other, "/d/b", "/no", status=2), "D /d/b\n")
        self.assertIn("/no: in neither image: No such file", self.said)

    def test_trouble_is_2(self):
        self.diff(self.image, "oci:/nonexistent", status=2)
        self.assertIn("/nonexistent", self.said)
        self.diff(self.image, status=2)
        self.assertIn("missing argument: IMAGE, the second one", self.said)
        self.diff("--wrong", self.image, self.image, status=2)
        self.diff("--ignore", "colour", self.image, self.image, status=2)
        self.assertIn("diff: --ignore colour: none of time, mode", self.said)
        self.diff(self.image, "Not A Reference", status=2)
        self.diff("-o", "oci.tarindex=/t", self.image, self.image, status=2)
        self.assertIn("belong to one image", self.said)

    def test_deep_trees_and_large_directories(self):
        deep = images.Layer().file("x/" * 2000 + "deep").file("y", b"1")
        wide = images.Layer().file("x/" * 1999 + "deep").file("y", b"22")
        for i in range(20_000):
            wide.file(f"w/{i:05}")
        a, b = self.image_of("deep", [deep]), self.image_of("wide", [wide])
        for image in (a, b):
            self.run_tool("index", image=image)
        lines = self.diff("--ignore", "time", a, b, preexec_fn=with_little_stack).splitlines()
        self.assertEqual(len(lines), 20_001 + 4)
        self.assertEqual(lines[20_001], "A " + "/x" * 1999 + "/deep")
        self.assertEqual(lines[20_002:20_004], ["D " + "/x" * 2000, "D " + "/x" * 2000 + "/deep"])
        self.assertEqual(lines[-1], "M /y (size 1 -> 2)")
        self.assertEqual(sum(line.startswith("A /w/") for line in lines), 20_000)

    def test_names_that_are_no_text_are_kept(self):
        one = self.image_of("one", [images.Layer().file("bad\udcff\n")])
        other = self.image_of("other", [images.Layer()])
        entry = json.loads(self.diff("--json", "--ignore", "time", one, other))
        self.assertEqual((entry["change"], bytes.fromhex(entry["path_hex"])), ("D", b"/bad\xff\n"))
        self.assertEqual(self.diff("--ignore", "time", one, other), "D /bad\udcff\n\n")

    def test_a_tag_of_an_erofs_image_proves_nothing(self):
        self.need("mkfs.erofs")
        # Two EROFS images by themselves, whose device tables may say anything.
        source = os.path.join(self.dir, "source")
        os.mkdir(source)
        for name, byte in (("one", b"1"), ("other", b"2")):
            with open(os.path.join(source, "file"), "wb") as file:
                file.write(byte * 10_000)
            os.utime(os.path.join(source, "file"), (0, 0))
            os.utime(source, (0, 0))
            subprocess.run(["mkfs.erofs", os.path.join(self.dir, name), source], check=True,
                           capture_output=True)
        a, b = os.path.join(self.dir, "one"), os.path.join(self.dir, "other")
        self.assertIn("/file", self.diff(a, b))
        self.assertIn("M /file (content)", self.diff("--content", a, b))


if __name__ == "__main__":
    unittest.main()
