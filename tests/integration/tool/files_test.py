# SPDX-License-Identifier: Apache-2.0
"""mount-oci ls, cat, stat, find and image: read an image without mounting it."""
import base64
import json
import os
import shutil
import subprocess
import unittest

import images
from support import TOOL, ToolTest, digest, make_layout, read


class ImageTest(ToolTest):
    """The three layers, in a layout and at a registry, with a store of its own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.layers = images.three_layers()
        cls.image_layout = images.layout_of(os.path.join(cls.layout, "three"), cls.layers)

    def setUp(self):
        super().setUp()
        self.store = os.path.join(self.dir, "store")
        self.image = f"oci:{self.image_layout}:v1"

    def run_tool(self, command, *arguments, words="", status=0, image=None, **more):
        """Its standard output as bytes; the rest is looked at here."""
        words = f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store}" + words
        done = subprocess.run([TOOL, command, "-o", words, *self.split(command, arguments, image)],
                              capture_output=True, timeout=60, **more)
        self.said = done.stderr.decode()
        self.assertEqual(done.returncode, status, self.said)
        if status == 0:
            self.assertEqual(self.said, "")
        return done.stdout

    def split(self, command, arguments, image):
        """The options first, then the image, then its paths."""
        options, paths, rest = [], [], list(arguments)
        while rest:
            word = rest.pop(0)
            (paths if word.startswith("/") else options).append(word)
            if word in ("-C", "--output", "--to", "--sign-key", "--mount-from"):
                options.append(rest.pop(0))
        return options + [image or self.image] + paths

    def json_lines(self, *arguments, **more):
        return [json.loads(line) for line in self.run_tool(*arguments, **more).splitlines()]

    def three_at_registry(self, *options):
        layout, self.layout = self.layout, self.image_layout
        try:
            return self.registry(*options)
        finally:
            self.layout = layout


class FilesTest(ImageTest):
    def test_ls(self):
        self.assertEqual(self.run_tool("ls", "/lib").decode(), "so\nso.1.2\n")
        self.assertEqual(self.run_tool("ls").decode().splitlines(), sorted(
            ["abs", "attr", "bin", "d" * 200, "data", "etc", "gone", "gr\u00fcn", "lib",
             "name with blanks", "null", "old", "pipe", "sticky"],
            key=lambda name: name.encode()))
        listed = self.run_tool("ls", "-l", "/etc").decode().splitlines()
        self.assertRegex(listed[0], r"^lrwxrwxrwx 1 0 0 +6 2020-09-13 12:26 link -> passwd$")
        self.assertRegex(listed[1], r"^-rw-r--r-- 1 0 0 +22 2020-09-13 12:26 passwd$")
        self.assertEqual(self.run_tool("ls", "-l", "/null").decode(),
                         "crw-rw-rw- 1 0 0 1, 3 2020-09-13 12:26 /null\n")
        self.assertEqual(self.run_tool("ls", "-R", "/data").decode(),
                         "/data:\nempty\nlarge\nlarge2\nsecond\n")
        self.assertIn("\n/old:\nnew\n", self.run_tool("ls", "-R").decode())

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to own what is extracted")
    def test_ls_sorts_and_rounds_as_ls_does(self):
        there = os.path.join(self.dir, "unpacked")
        self.run_tool("extract", "-C", there)
        for options in ("-t", "-tr", "-S", "-Sr", "-r", "-1", "-a"):
            for place in ("/", "/data", "/etc", "/lib"):
                with self.subTest(options=options, place=place):
                    ours = self.run_tool("ls", options, place).decode().splitlines()
                    theirs = subprocess.run(["ls", options.replace("a", "A"), there + place],
                                            env={"LC_ALL": "C"}, capture_output=True, check=True)
                    files = [name for name in theirs.stdout.decode().splitlines()
                             if "S" not in options or not os.path.isdir(f"{there}{place}/{name}")]
                    self.assertEqual([name for name in ours if name in files], files)
        sizes = lambda lines: [line.split()[4] for line in lines if line[:1] == "-"]
        for place in ("/", "/data", "/etc"):
            theirs = subprocess.run(["ls", "-lh", there + place], env={"LC_ALL": "C"},
                                    capture_output=True, check=True).stdout.decode()
            self.assertEqual(sizes(self.run_tool("ls", "-lh", place).decode().splitlines()),
                             sizes(theirs.splitlines()))

    def test_ls_json(self):
        found = {entry["path"]: entry for entry in self.json_lines("ls", "-R", "--json")}
        secret = found["/etc/secret"]
        self.assertEqual((secret["type"], secret["target"]), ("l", "../../outside"))
        self.assertEqual(found["/lib/so"]["links"], 2)
        self.assertEqual(found["/lib/so"]["inode"], found["/lib/so.1.2"]["inode"])
        self.assertEqual((found["/lib"]["uid"], found["/lib"]["gid"]), (5, 6))
        self.assertEqual((found["/null"]["major"], found["/null"]["minor"]), (1, 3))
        self.assertEqual(found["/sticky"]["mode"], "1777")

    def test_names_that_are_no_text_are_kept(self):
        layer = images.Layer().file("bad\udcff\n", b"x")
        layout = images.layout_of(os.path.join(self.dir, "odd"), [layer])
        entry, = self.json_lines("ls", "--json", image=f"oci:{layout}:v1")
        self.assertEqual(bytes.fromhex(entry["path_hex"]), b"/bad\xff\n")
        self.assertEqual(self.run_tool("find", "-print0", image=f"oci:{layout}:v1"),
                         b"/\0/bad\xff\n\0")

    def test_cat(self):
        self.assertEqual(self.run_tool("cat", "/etc/passwd", "/etc/link", "/abs"),
                         3 * b"root:x:0:0\nuser:x:1:1\n")
        self.assertTrue(self.run_tool("cat", "/data/large") == images.noise(5_000_000, b"large"))
        self.assertEqual(self.run_tool("cat", "/data/empty"), b"")
        entry, = self.json_lines("cat", "--json", "/lib/so")
        self.assertEqual(base64.b64decode(entry["content_base64"]), images.noise(200_000, b"so"))

    def test_cat_to_a_pipe_that_closes(self):
        self.run_tool("index")
        done = subprocess.run(
            f"{TOOL} cat -o oci.platform=linux/amd64,oci.store={self.store} {self.image}"
            " /data/large /data/large | head -c 10 >/dev/null; exit ${PIPESTATUS[0]}",
            shell=True, executable="/bin/bash", capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (141, b""))

    def test_stat(self):
        text = self.run_tool("stat", "/etc/link", "/data/second").decode()
        self.assertIn("File: /etc/link -> passwd\n", text)
        self.assertIn("Size: 5000000\n", text)
        self.assertIn("Links: 2\n", text)
        self.assertIn("Modify: 2020-09-13 12:26:40.000000000 +0000\n", text)
        entry, = self.json_lines("stat", "--json", "/attr")
        self.assertEqual({x["name"]: base64.b64decode(x["value_base64"]) for x in entry["xattrs"]},
                         {"user.colour": b"blue"})
        place, = entry["data"]
        tar = self.layers[0].bytes()
        self.assertEqual(place["layer"], digest(tar)[7:])
        self.assertEqual(tar[place["offset"]:place["offset"] + place["length"]], b"3")

    def test_find(self):
        self.assertEqual(self.run_tool("find", "-name", "so*").decode(), "/lib/so\n/lib/so.1.2\n")
        self.assertEqual(self.run_tool("find", "-type", "p").decode(), "/pipe\n")
        self.assertEqual(self.run_tool("find", "/gone").decode(), "/gone\n/gone/c\n")
        found = [e["path"] for e in self.json_lines("find", "--json", "-type", "d")]
        self.assertEqual(found, ["/", "/data", "/etc", "/gone", "/lib", "/old", "/sticky"])

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to own what is extracted")
    def test_find_finds_what_find_finds(self):
        there = os.path.join(self.dir, "unpacked")
        self.run_tool("extract", "-C", there)
        any_found = 0
        for tests in ("-perm 644", "-perm -111", "-perm /6000", "-perm -1000", "-uid 5", "-uid +0",
                      "-gid -6", "-type f -size +1M", "-type f -size -2k", "-type f -size 22c",
                      "-type f -size 0", "-type f -links 2", "-newer /lib/so", "-newer /data -type d",
                      "-maxdepth 1", "-mindepth 2 -maxdepth 2", "-maxdepth 0", "-iname SO*",
                      "-path */so*", "-path /d*", "-name so* -type f", "-type l", "-name nothing"):
            with self.subTest(tests):
                words = tests.split()
                ours = subprocess.run(
                    [TOOL, "find", "-o", f"oci.platform=linux/amd64,oci.store={self.store}", *words,
                     "-print0", self.image], capture_output=True, timeout=60, check=True).stdout
                theirs = [there + word if word.startswith("/") and before != "-perm" else word
                          for before, word in zip([""] + words, words)]
                found = subprocess.run(["find", there, *theirs, "-print0"], check=True,
                                       capture_output=True).stdout
                names = {path.removeprefix(there.encode()) or b"/"
                         for path in found.split(b"\0")[:-1]}
                self.assertEqual(set(ours.split(b"\0")[:-1]), names)
                any_found += bool(names)
        self.assertGreater(any_found, 18)

    def test_paths_that_lead_nowhere(self):
        for command, path, text in [
                ("cat", "/no", "/no: No such file"), ("cat", "/etc", "/etc: Is a directory"),
                ("cat", "/pipe", "/pipe: a fifo"), ("ls", "/removed", "/removed: No such file"),
                ("stat", "/etc/passwd/x", "Not a directory"), ("find", "/gone/a", "No such file"),
                ("ls", "/etc/passwd/", "/etc/passwd/: Not a directory"),
                ("cat", "/etc/secret", "/etc/secret: No such file")]:
            with self.subTest(command=command, path=path):
                self.run_tool(command, path, status=1)
                self.assertIn(text, self.said)
                self.assertEqual(self.said.count("\n"), 1)
        self.assertEqual(self.run_tool("cat", "/no", "/etc/passwd", status=1),
                         b"root:x:0:0\nuser:x:1:1\n")

    def test_image(self):
        before = json.loads(self.run_tool("image", "--json"))
        self.assertEqual([layer["indexed"] for layer in before["layers"]], [False] * 3)
        self.run_tool("index", words=",oci.layer=1")
        after = json.loads(self.run_tool("image", "--json"))
        self.assertEqual([layer["indexed"] for layer in after["layers"]], [False, True, False])
        blobs = [read(os.path.join(os.path.dirname(self.image_layout), f"layer{i}"))
                 for i in range(3)]
        self.assertEqual([(layer["digest"], layer["size"]) for layer in after["layers"]],
                         [(digest(blob), len(blob)) for blob in blobs])
        text = self.run_tool("image").decode()
        self.assertIn(f"Layer 1:  {digest(blobs[1])}", text)
        self.assertEqual(text.count("not indexed"), 2)

    def test_image_shows_what_would_run(self):
        self.need("umoci")
        layout = os.path.join(self.dir, "configured")
        shutil.copytree(self.image_layout, layout)
        subprocess.run(["umoci", "config", "--image", f"{layout}:v1", "--config.entrypoint", "/bin/sh",
                        "--config.cmd", "-c", "--config.user", "7:8", "--config.workingdir", "/srv",
                        "--config.env", "A=\x1b[1m"], check=True, capture_output=True)
        text = self.run_tool("image", image=f"oci:{layout}:v1").decode()
        for line in ('Entry:    ["/bin/sh"]', 'Command:  ["-c"]', "User:     7:8", "Directory: /srv",
                     "Variable: A=\x1b[1m"):  # not to a terminal
            self.assertIn(line + "\n", text)
        image = json.loads(self.run_tool("image", "--json", image=f"oci:{layout}:v1"))
        self.assertEqual(image["configuration"]["config"]["Cmd"], ["-c"])
        self.assertEqual([layer["kept"] for layer in image["layers"]], [True] * 3)

    def test_image_tells_what_is_kept(self):
        host = self.three_at_registry()
        words = f",oci.cache_dir={self.dir}/cache"
        layers = lambda: json.loads(self.run_tool("image", "--json", words=words,
                                                  image=f"{host}/three:v1"))["layers"]
        for layer in layers():
            self.assertEqual((layer["kept"], layer["indexed"]), (False, False))
            self.assertEqual((layer["kept_bytes"], layer["indexed_bytes"], layer["proved_bytes"]), (0, 0, 0))
            self.assertNotIn("unpacked_bytes", layer)
        self.run_tool("cat", "/data/large2", words=words, image=f"{host}/three:v1")
        self.assertGreater(sum(layer["kept_bytes"] for layer in layers()), 0)
        self.run_tool("pull", words=words, image=f"{host}/three:v1")
        for layer, made in zip(layers(), self.layers):
            self.assertEqual((layer["kept"], layer["indexed"]), (True, True))
            self.assertEqual({layer[key] for key in ("kept_bytes", "indexed_bytes", "proved_bytes")},
                             {layer["size"]})
            self.assertEqual(layer["unpacked_bytes"], len(made.bytes()))

    def test_plain_files(self):
        tar = self.layers[0].save(os.path.join(self.dir, "plain.tar"), packed=False)
        packed = self.layers[0].save(os.path.join(self.dir, "packed"))
        for image in (tar, packed, "file:" + packed):
            with self.subTest(image):
                self.assertEqual(self.run_tool("cat", "/gone/a", image=image), b"a")

    def test_a_layer_of_an_image(self):
        self.assertEqual(self.run_tool("cat", "/etc/passwd", words=",oci.layer=0"),
                         b"root:x:0:0\n")
        self.run_tool("ls", "/data", words=",oci.layer=1", status=1)

    def test_layers_that_are_not_packed(self):
        layout = images.layout_of(os.path.join(self.dir, "flat"), self.layers, packed=False)
        self.assertEqual(self.run_tool("cat", "/etc/passwd", "/gone/c", image=f"oci:{layout}:v1"),
                         b"root:x:0:0\nuser:x:1:1\nc")

    def test_an_erofs_image_is_read_as_it_is(self):
        self.need("mkfs.erofs")
        source, blob = os.path.join(self.dir, "source"), os.path.join(self.dir, "blob")
        os.mkdir(source)
        for name, size in (("small", 10), ("large", 100_000)):
            with open(os.path.join(source, name), "wb") as file:
                file.write(images.noise(size))
        subprocess.run(["mkfs.erofs", blob, source], check=True, capture_output=True)
        layout = os.path.join(self.dir, "native")
        make_layout.make_layout([blob], layout, tag="v1", media_type="application/x.erofs")
        for image in (blob, f"oci:{layout}:v1"):
            with self.subTest(image):
                words = ",oci.verify=off"  # else it warns
                self.assertTrue(self.run_tool("cat", "/small", "/large", image=image, words=words) ==
                                images.noise(10) + images.noise(100_000))
                self.assertIn("sound", self.run_tool("fsck", "--data", image=image,
                                                     words=words).decode())
                self.run_tool("index", image=image, status=2)
                self.assertIn("needs no index file", self.said)

    def test_a_directory_in_itself_ends_the_listing(self):
        blob = images.Layer().dir("outer").dir("outer/inner").file("outer/x", b"x").save(
            os.path.join(self.dir, "blob"), packed=False)
        self.run_tool("index", "--output", self.dir, image=blob)
        nids = {e["path"]: e["inode"].to_bytes(8, "little") for e in self.json_lines(
            "ls", "-R", "--json", image=blob, words=f",oci.tarindex={self.dir}/blob.erofs")}
        damaged = bytearray(read(os.path.join(self.dir, "blob.erofs")).replace(
            nids["/outer/inner"], nids["/outer"]))
        damaged[1032] &= 0xFE  # no checksum
        with open(os.path.join(self.dir, "damaged"), "wb") as file:
            file.write(damaged)
        words = f",oci.tarindex={self.dir}/damaged"
        self.run_tool("ls", "-R", image=blob, words=words, status=1)
        self.assertIn("/outer/inner: a directory that contains itself", self.said)
        self.run_tool("find", image=blob, words=words, status=1)
        self.run_tool("fsck", image=blob, words=words, status=1)
        for command in ("tree", "du"):
            self.run_tool(command, image=blob, words=words, status=1)
            self.assertIn("/outer/inner: ", self.said)
        out = os.path.join(self.dir, "out")
        self.run_tool("extract", "-C", out, image=blob, words=words, status=2)
        self.assertIn("/outer/inner", self.said)
        self.run_tool("cp", "-r", out + "2", image=blob + ":/outer", words=words, status=2)
        self.assertIn("/out2/inner", self.said)

    def test_zstd_is_named(self):
        blob = os.path.join(self.dir, "zstd")
        with open(blob, "wb") as file:
            file.write(b"\x28\xb5\x2f\xfd" + bytes(2000))
        self.run_tool("ls", image=blob, status=2)
        self.assertIn("zstd", self.said)
        self.assertIn(digest(read(blob)), self.said)

    def test_few_requests_once_indexed(self):
        host = self.three_at_registry()
        image = f"{host}/app:v1"
        self.run_tool("index", image=image)
        first = self.stats(host)
        self.assertEqual(first["blob_requests"], 3)
        self.assertEqual(self.run_tool("cat", "/etc/passwd", image=image),
                         b"root:x:0:0\nuser:x:1:1\n")
        self.assertTrue(self.run_tool("cat", "/lib/so", image=image) ==
                        images.noise(200_000, b"so"))
        self.run_tool("ls", "-R", image=image)
        then = self.stats(host)
        self.assertLessEqual(then["blob_requests"] - first["blob_requests"], 3)
        self.assertLess(then["bytes"] - first["bytes"], first["bytes"] / 4)

    def test_sixty_four_layers(self):
        layers = []
        for i in range(64):
            layer = images.Layer().dir("./").dir("d").file(f"d/{i}", b"%d" % i).file("last", b"%d" % i)
            if i >= 3 and i % 4 == 0:
                layer.whiteout(f"d/{i - 2}")
            layers.append(layer)
        layout = images.layout_of(os.path.join(self.dir, "many"), layers)
        image = f"oci:{layout}:v1"
        listed = self.run_tool("ls", "/d", image=image).decode().split()
        kept = [str(i) for i in range(64) if not (i % 4 == 2 and i + 2 < 64)]
        self.assertEqual(sorted(listed), sorted(kept))
        self.assertEqual(self.run_tool("cat", "/last", "/d/3", image=image), b"633")


if __name__ == "__main__":
    unittest.main()
