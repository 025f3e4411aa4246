# SPDX-License-Identifier: Apache-2.0
"""mount-oci cp: what cp(1) makes of the same files, and never a file outside."""
import io
import json
import os
import stat
import subprocess
import tarfile
import time
import unittest

import images
from files_test import ImageTest
from support import TOOL, read, swap_for_links


class CopyTest(ImageTest):
    def cp(self, *words, image=None, status=0, **more):
        """Its options, PATH and LOCAL; what it writes to standard output."""
        *options, path, local = words
        command = [TOOL, "cp", "-o", f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store}"]
        done = subprocess.run([*command, *options, f"{image or self.image}:{path}", local],
                              capture_output=True, timeout=60, **more)
        self.said = done.stderr.decode()
        self.assertEqual(done.returncode, status, self.said)
        return done.stdout

    def at(self, *names):
        return os.path.join(self.dir, *names)

    def out(self):
        os.mkdir(self.at("out"))
        return self.at("out")

    def need_root(self):
        if os.geteuid() != 0:
            self.skipTest("owners and devices need root")

    def test_a_file_to_a_file_and_into_a_directory(self):
        out = self.out()
        self.cp("/etc/passwd", out)
        self.cp("/etc/passwd", out + "/")
        self.cp("/etc/passwd", out + "/other")
        self.cp("/lib/so", "here", cwd=out)
        self.cp("/lib/so", ".", cwd=out)
        self.assertEqual(self.said, "")
        self.assertEqual(sorted(os.listdir(out)), ["here", "other", "passwd", "so"])
        self.assertEqual(read(out + "/passwd"), b"root:x:0:0\nuser:x:1:1\n")
        self.assertEqual(read(out + "/other"), b"root:x:0:0\nuser:x:1:1\n")
        self.assertEqual(read(out + "/here"), images.noise(200_000, b"so"))
        # A file in its place goes, and other names of that stay as they are.
        os.link(out + "/other", out + "/linked")
        self.cp("/attr", out + "/other")
        self.assertEqual((read(out + "/other"), len(read(out + "/linked"))), (b"3", 22))

    def test_names_of_images_with_ports_tags_and_digests(self):
        host = self.three_at_registry()
        out = self.out()
        for image in (f"{host}/app:v1", f"{host}/team/app:v1", self.image, "oci:" + self.image_layout):
            with self.subTest(image):
                self.cp("/etc/passwd", out + "/x", image=image)
                self.assertEqual(len(read(out + "/x")), 22)
                os.remove(out + "/x")
        digest = json.loads(self.run_tool("image", "--json", image=f"{host}/app:v1"))["digest"]
        self.cp("/etc/passwd", out + "/x", image=f"{host}/app@{digest}")
        self.assertEqual(len(read(out + "/x")), 22)
        blob = self.layers[0].save(self.at("blob.tar"), packed=False)
        for image in (blob, "file:" + blob):
            self.cp("/gone/a", out + "/" + str(len(image)), image=image)
        self.assertEqual(len(os.listdir(out)), 3)

    def test_new_files_are_this_users_with_the_permissions_that_the_mask_leaves(self):
        out = self.out()
        begin = time.time()
        self.cp("-r", "/bin", out)  # a file, in place of a directory
        self.cp("-r", "/lib", out, umask=0o027)
        self.cp("-r", "/", out + "/all", umask=0o022)
        found = images.tree(out)
        mode = lambda name: int(found[name]["mode"], 8) & 0o7777
        self.assertEqual((mode("lib"), mode("lib/so")), (0o750, 0o750))
        self.assertEqual((mode("all/sticky"), mode("all/gone/c"), mode("all/etc")), (0o755, 0o444, 0o755))
        for name, item in found.items():
            self.assertEqual(item["owner"], (os.geteuid(), os.getegid()), name)
            self.assertGreater(item["mtime"], (begin - 5) * 10**9, name)
            self.assertEqual(item["xattrs"], {}, name)
        self.assertNotIn("all/null", found)
        self.assertIn("all/pipe", found)
        self.assertIn("/all/null: ", self.said)
        self.assertEqual(found["lib/so"]["names"], ["lib/so", "lib/so.1.2"])
        self.assertEqual(found["all/etc/link"]["target"], "passwd")
        self.assertEqual(found["all/etc/secret"]["target"], "../../outside")

    def test_set_user_id_bits_need_p_and_root(self):
        layer = images.Layer().file("tool", b"#!", mode=0o6755)
        image = f"oci:{images.layout_of(self.at('odd'), [layer])}:v1"
        self.cp("/tool", self.at("plain"), image=image)
        self.assertEqual(stat.S_IMODE(os.stat(self.at("plain")).st_mode) & 0o7000, 0)
        self.cp("-p", "/tool", self.at("kept"), image=image)
        self.assertEqual(stat.S_IMODE(os.stat(self.at("kept")).st_mode) & 0o7000,
                         0o6000 if os.geteuid() == 0 else 0)

    def test_an_archive_is_what_extract_makes(self):
        self.need_root()
        there = self.at("there")
        self.run_tool("extract", "-C", there)
        self.cp("-a", "/", self.at("all"))
        self.assertEqual(images.differences(images.tree(self.at("all")), images.tree(there)), [])
        for place in ("etc", "data", "lib"):
            self.cp("-rp", f"/{place}/", self.at(place))
            self.assertEqual(images.differences(images.tree(self.at(place)),
                                                images.tree(os.path.join(there, place))), [])

    def test_a_directory_goes_into_one_that_is_there(self):
        out = self.out()
        self.cp("-r", "/gone", out)
        self.assertEqual(os.listdir(out + "/gone"), ["c"])
        self.cp("-r", "/old/.", out)
        self.cp("-r", "/lib/.", out + "/fresh")
        self.cp("-r", "/data", out + "/made/")
        self.assertEqual(sorted(os.listdir(out)), ["fresh", "gone", "made", "new"])
        self.assertEqual(sorted(os.listdir(out + "/fresh")), ["so", "so.1.2"])
        self.assertEqual(sorted(os.listdir(out + "/made")), ["empty", "large", "large2", "second"])

    def test_contents_go_beside_what_is_there(self):
        out = self.out()
        for name in ("kept", "so"):
            with open(os.path.join(out, name), "w") as file:
                file.write("mine")
        os.chmod(out, 0o701)
        self.cp("-r", "/lib/.", out)
        self.assertEqual(sorted(os.listdir(out)), ["kept", "so", "so.1.2"])
        self.assertEqual(stat.S_IMODE(os.stat(out).st_mode), 0o701)  # it is no copy
        self.assertEqual(read(out + "/so"), images.noise(200_000, b"so"))

    def test_a_link_is_followed_unless_r_copies_it(self):
        out = self.out()
        self.cp("/etc/link", out)
        self.cp("/abs", out)
        self.assertEqual(read(out + "/link"), read(out + "/abs"))
        self.assertFalse(os.path.islink(out + "/link"))
        self.cp("-r", "/etc/link", out + "/kept")
        self.assertEqual(os.readlink(out + "/kept"), "passwd")

    def test_what_cannot_be_copied(self):
        out = self.out()
        with open(out + "/file", "w") as file:
            file.write("mine")
        for words, status, text in (
                (["/etc", out], 1, "/etc: -r copies directories: Is a directory"),
                (["/no", out], 1, "/no: No such file"),
                (["/etc/secret", out], 1, "/etc/secret: No such file"),
                (["/etc/passwd/.", out], 1, "Not a directory"),
                (["/null", out], 1, "/null: a character device, which -p as root copies"),
                (["/etc/passwd", out + "/no/x"], 2, out + "/no: No such file"),
                (["/etc/passwd", out + "/new/"], 2, out + "/new/: No such file"),
                (["/etc/passwd", out + "/file/"], 2, out + "/file/: Not a directory"),
                (["/etc/passwd", out + "/file/x"], 2, out + "/file/x: Not a directory"),
                (["-r", "/etc", out + "/file"], 2, out + "/file: Not a directory")):
            with self.subTest(words):
                self.cp(*words, status=status)
                self.assertIn(text, self.said)
                self.assertEqual(self.said.count("\n"), 1)
        self.assertEqual((os.listdir(out), read(out + "/file")), (["file"], b"mine"))
        os.makedirs(out + "/passwd/x")
        self.cp("/etc/passwd", out, status=2)
        self.assertIn("/passwd: cannot be replaced: Is a directory", self.said)

    def test_a_tar(self):
        out = self.cp("-r", "/etc", "-")
        with tarfile.open(fileobj=io.BytesIO(out)) as archive:
            self.assertEqual(archive.getnames(), ["etc", "etc/link", "etc/passwd", "etc/secret"])
            self.assertEqual(len(archive.extractfile("etc/passwd").read()), 22)
            self.assertEqual(archive.getmember("etc").mtime, images.TIME + 8)
        with tarfile.open(fileobj=io.BytesIO(self.cp("/lib/so.1.2", "-"))) as archive:
            member, = archive.getmembers()
            self.assertEqual((member.name, member.type, member.size), ("so.1.2", tarfile.REGTYPE, 200_000))

    def test_json(self):
        told = json.loads(self.cp("-r", "--json", "/data", self.at("data")))
        self.assertEqual((told["files"], told["bytes"], told["warnings"]), (5, 5_700_000, 0))

    def test_holes_stay(self):
        layer = images.Layer().sparse("s", 8 << 20, {4096: b"x" * 4096})
        self.cp("/s", self.at("s"), image=f"oci:{images.layout_of(self.at('odd'), [layer])}:v1")
        self.assertEqual(os.stat(self.at("s")).st_size, 8 << 20)
        self.assertLess(os.stat(self.at("s")).st_blocks * 512, 1 << 20)

    def test_without_root(self):
        self.need_root()
        self.need("setpriv")
        os.chmod(self.dir, 0o777)
        os.chmod(self.layout, 0o755)
        self.run_tool("index")
        subprocess.run(["chown", "-R", "65534:65534", self.store], check=True)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", TOOL, "cp", "-a", "-o",
             f"oci.platform=linux/amd64,oci.store={self.store}", self.image + ":/", self.at("all")],
            capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("/all/null: only root can make devices", done.stderr)
        found = images.tree(self.at("all"))
        self.assertEqual({item["owner"] for item in found.values()}, {(65534, 65534)})
        self.assertEqual(found["etc"]["mtime"], (images.TIME + 8) * 10**9)

    # ---- hostile

    def test_links_in_the_target_lead_nowhere(self):
        outside = self.at("outside")
        os.mkdir(outside)
        with open(outside + "/passwd", "w") as file:
            file.write("precious")
        before = images.tree(outside)
        out = self.out()
        os.makedirs(out + "/all")
        for name in ("etc", "all/etc", "passwd", "all/abs"):
            target = outside + "/passwd" if name in ("passwd", "all/abs") else outside
            os.symlink(target, os.path.join(out, name))
        self.cp("-r", "/etc", out)
        self.cp("/etc/passwd", out)
        self.cp("-r", "/.", out + "/all")
        self.assertEqual(images.differences(before, images.tree(outside)), [])
        for name in ("etc", "all/etc"):
            self.assertEqual(sorted(os.listdir(os.path.join(out, name))), ["link", "passwd", "secret"])
            self.assertFalse(os.path.islink(os.path.join(out, name)))
        self.assertEqual(len(read(out + "/passwd")), 22)
        self.assertEqual(os.readlink(out + "/all/abs"), "/etc/passwd")

    def test_links_of_an_image_lead_nowhere(self):
        outside = self.at("outside")
        os.mkdir(outside)
        up = "../" * 20 + outside[1:]
        layer = images.Layer().dir("d").symlink("d/way", up).file("d/way/one", b"1").symlink("d/x", "/")
        layer.file("d/x" + outside + "/two", b"2").file("d/../../up", b"3")
        image = f"oci:{images.layout_of(self.at('odd'), [layer])}:v1"
        out = self.out()
        for path in ("/d", "/", "/d/way", "/d/../d", "/d/."):
            with self.subTest(path):
                self.cp("-r", path, out, image=image)
                self.assertEqual(os.listdir(outside), [])
        self.assertEqual(sorted(os.listdir(self.dir)), ["odd", "out", "outside", "store"])

    def test_links_put_there_meanwhile_lead_nowhere(self):
        layer = images.Layer().dir("d")
        for i in range(1500):
            layer.file(f"d/{i}", b"x")
        image = f"oci:{images.layout_of(self.at('odd'), [layer])}:v1"
        self.run_tool("index", image=image)
        outside = self.at("outside")
        os.mkdir(outside)
        swaps = 0
        for turn in range(5):
            out = self.at(f"out{turn}")
            os.mkdir(out)
            tool = subprocess.Popen([TOOL, "cp", "-r", "-o", f"oci.platform=linux/amd64,oci.store={self.store}",
                                     image + ":/d", out], stderr=subprocess.PIPE)
            swaps += swap_for_links(tool, out, outside)
            self.assertEqual(os.listdir(outside), [])
        self.assertGreater(swaps, 0)


if __name__ == "__main__":
    unittest.main()
