# SPDX-License-Identifier: Apache-2.0
"""mount-oci extract: what umoci makes of the same image, and never a file outside."""
import json
import os
import resource
import signal
import subprocess
import tarfile
import time
import unittest

import images
from files_test import ImageTest
from support import TOOL, read, swap_for_links


class ExtractTest(ImageTest):
    def extracted(self, *arguments, **more):
        out = os.path.join(self.dir, "out")
        self.run_tool("extract", "-C", out, *arguments, **more)
        return out

    def compare(self, a, b, **more):
        lines = images.differences(images.tree(a, **more), images.tree(b, **more))
        self.assertEqual(lines, [])

    def need_root(self):
        if os.geteuid() != 0:
            self.skipTest("owners and devices need root")

    def test_equals_umoci(self):
        self.need_root()
        self.need("umoci")
        theirs = images.unpacked(self.image_layout, os.path.join(self.dir, "bundle"))
        self.compare(self.extracted(), theirs)

    def test_from_a_registry_equals_umoci(self):
        self.need_root()
        self.need("umoci")
        host = self.three_at_registry()
        theirs = images.unpacked(self.image_layout, os.path.join(self.dir, "bundle"))
        self.compare(self.extracted(image=f"{host}/app:v1"), theirs)

    def test_as_a_tar(self):
        self.need_root()
        packed = self.run_tool("extract", "--tar")
        other = os.path.join(self.dir, "other")
        os.mkdir(other)
        subprocess.run(["tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C",
                        other], input=packed, check=True)
        self.compare(self.extracted(), other)

    def test_large_numbers_and_holes(self):
        self.need_root()
        source = os.path.join(self.dir, "source")
        os.mkdir(source)
        with open(os.path.join(source, "sparse"), "wb") as file:
            for at in (1 << 20, 5 << 20):
                file.seek(at)
                file.write(images.noise(70_000, b"%d" % at))
            file.truncate(40 << 20)
        with open(os.path.join(source, "old"), "wb") as file:
            file.write(b"old")
        os.utime(os.path.join(source, "old"), ns=(0, -1_500_000_001))
        os.chown(os.path.join(source, "old"), 3_000_000_000, 70_000)
        blob = os.path.join(self.dir, "blob")
        subprocess.run(["tar", "--sparse", "--format=pax", "-C", source, "-cf", blob, "."], check=True)
        out = self.extracted(image=blob)
        self.compare(out, source)
        self.assertLess(os.stat(os.path.join(out, "sparse")).st_blocks * 512, 1 << 20)
        other = os.path.join(self.dir, "other")
        os.mkdir(other)
        subprocess.run(["tar", "-xp", "--warning=no-timestamp", "--numeric-owner", "-C", other], check=True,
                       input=self.run_tool("extract", "--tar", image=blob))
        self.compare(other, source)
        self.assertLess(os.stat(os.path.join(other, "sparse")).st_blocks * 512, 1 << 20)

    def test_some_paths(self):
        out = self.extracted("/lib", "/etc/passwd")
        found = images.tree(out)
        self.assertEqual(sorted(found), [".", "etc", "etc/passwd", "lib", "lib/so", "lib/so.1.2"])
        self.assertEqual(found["etc"]["mode"], oct(0o40755))
        self.run_tool("extract", "-C", out, "/no", status=1)
        self.assertIn("/no: No such file", self.said)

    def test_over_what_is_there(self):
        self.need_root()
        out = os.path.join(self.dir, "out")
        outside = os.path.join(self.dir, "outside")
        os.makedirs(os.path.join(out, "data"))
        os.mkdir(outside)
        for name in ("etc", "bin", "null"):
            os.symlink(outside, os.path.join(out, name))  # in the way of a directory and of files
        with open(os.path.join(out, "data/empty"), "w") as file:
            file.write("not empty")
        os.link(os.path.join(out, "data/empty"), os.path.join(self.dir, "kept"))
        self.extracted()
        self.assertEqual(os.listdir(outside), [])
        self.assertEqual(read(os.path.join(self.dir, "kept")), b"not empty")
        other = os.path.join(self.dir, "other")
        self.run_tool("extract", "-C", other)
        self.compare(out, other)

    def test_a_directory_in_the_way_of_a_file(self):
        out = os.path.join(self.dir, "out")
        os.makedirs(os.path.join(out, "etc/passwd"))
        self.run_tool("extract", "-C", out, status=2)
        self.assertIn("/etc/passwd: cannot be replaced: Is a directory", self.said)

    def test_json(self):
        out = os.path.join(self.dir, "out")
        told = json.loads(self.run_tool("extract", "-C", out, "--json"))
        self.assertEqual(told["files"], len(images.tree(out)))
        self.assertEqual(told["warnings"], 0)

    # ---- hostile

    def test_hostile_names_stay_inside(self):
        outside = os.path.join(self.dir, "outside")
        os.mkdir(outside)
        with open(os.path.join(outside, "precious"), "w") as file:
            file.write("precious")
        before = images.tree(outside)
        depth = "../" * 20
        layer = images.Layer()
        layer.file(depth + outside[1:] + "/one", b"1").file(outside + "/two", b"2")
        layer.symlink("way", outside).file("way/three", b"3").symlink("up", depth + outside[1:])
        layer.file("up/precious", b"4").symlink("root", "/").file("root" + outside + "/five", b"5")
        layer.link("hard", depth + outside[1:] + "/precious").link("hard2", "way/precious")
        layer.symlink("loop", "loop").file("a/./b//../c", b"6").file("n" * 255, b"7")
        layer.dir("x/" * 100).file("x/" * 100 + "deep", b"8")
        blob = layer.save(os.path.join(self.dir, "blob"))
        out = os.path.join(self.dir, "out")
        done = subprocess.run([TOOL, "extract", "-o", f"oci.store={self.store}", "-C", out, blob],
                              capture_output=True, timeout=60, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(images.differences(before, images.tree(outside)), [])
        self.assertEqual(sorted(os.listdir(self.dir)), ["blob", "out", "outside", "store"])
        found = images.tree(out)
        self.assertEqual(read(os.path.join(out, outside[1:], "one")), b"1")
        self.assertEqual(read(os.path.join(out, "a/c")), b"6")
        self.assertIn("x/" * 100 + "deep", found)
        packed = os.path.join(self.dir, "packed")
        with open(packed, "wb") as file:
            file.write(self.run_with_warnings("extract", "--tar", blob))
        with tarfile.open(packed) as archive:
            for member in archive:
                self.assertFalse(member.name.startswith("/") or ".." in member.name.split("/"))

    def run_with_warnings(self, command, option, image):
        done = subprocess.run([TOOL, command, "-o", f"oci.store={self.store}", option, image],
                              capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_a_name_too_long_is_left_out(self):
        blob = images.Layer().file("n" * 256, b"x").file("kept", b"y").save(os.path.join(self.dir, "blob"))
        out = os.path.join(self.dir, "out")
        done = subprocess.run([TOOL, "extract", "-o", f"oci.store={self.store}", "-C", out, f"file:{blob}"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("a name of 256 bytes", done.stderr)
        self.assertEqual(os.listdir(out), ["kept"])

    def test_links_put_there_meanwhile_lead_nowhere(self):
        layer = images.Layer().dir("d")
        for i in range(1500):
            layer.file(f"d/{i}", b"x")
        blob = layer.save(os.path.join(self.dir, "blob"))
        out, outside = os.path.join(self.dir, "out"), os.path.join(self.dir, "outside")
        os.mkdir(outside)
        self.run_tool("index", image=blob)
        for _ in range(5):
            tool = subprocess.Popen([TOOL, "extract", "-o", f"oci.store={self.store}", "-C", out,
                                     blob], stderr=subprocess.PIPE)
            swap_for_links(tool, out, outside)
            self.assertEqual(os.listdir(outside), [])
            subprocess.run(["rm", "-rf", out], check=True)

    def test_a_file_that_could_not_be_finished_is_removed(self):
        self.run_tool("index")
        out = os.path.join(self.dir, "out")
        limit = 1 << 20  # bytes a file may have

        def bound():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.run_tool("extract", "-C", out, status=2, preexec_fn=bound)
        self.assertIn("File too large", self.said)
        self.assertIn("/data/large", self.said)
        self.assertNotIn("large", os.listdir(os.path.join(out, "data")))

    def test_a_signal_leaves_no_half_file(self):
        host = self.three_at_registry()
        self.run_tool("index", image=f"{host}/app:v1")
        self.server.kill()
        host = self.three_at_registry("--bandwidth", "1M")
        words = f"oci.insecure=1,oci.platform=linux/amd64,oci.cache_dir=none,oci.store={self.store}"
        out = os.path.join(self.dir, "out")
        tool = subprocess.Popen([TOOL, "extract", "-o", words, "-C", out, f"{host}/app:v1"],
                                stderr=subprocess.PIPE)
        large = os.path.join(out, "data/large")
        while not os.path.exists(large) and tool.poll() is None:
            time.sleep(0.05)
        tool.terminate()
        tool.communicate(timeout=20)
        self.assertNotEqual(tool.returncode, 0)
        if os.path.exists(large):  # a second signal, or patience at its end
            self.assertEqual(tool.returncode, 128 + 15)

    def test_without_root(self):
        self.need_root()
        self.need("setpriv")
        os.chmod(self.dir, 0o777)
        os.chmod(self.layout, 0o755)
        self.run_tool("index")
        subprocess.run(["chown", "-R", "65534:65534", self.store], check=True)
        out = os.path.join(self.dir, "out")
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", TOOL, "extract", "-o",
             f"oci.platform=linux/amd64,oci.store={self.store}", "-C", out, self.image],
            capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("/null: only root can make devices", done.stderr)
        found = images.tree(out)
        self.assertEqual(found["bin"]["owner"], (65534, 65534))
        self.assertEqual(found["sticky"]["mode"], oct(0o41777))
        self.assertFalse(any(int(item["mode"], 8) & 0o6000 for item in found.values()))
        self.assertEqual(found["data/large"]["names"], ["data/large", "data/second"])


    def test_nothing_that_gives_power(self):
        if os.geteuid() != 0:
            self.skipTest("not root")
        power = {"security.capability": "\x01\x00\x00\x02\x20" + "\x00" * 15, "trusted.x": "y",
                 "user.x": "stays"}
        blob = (images.Layer().file("tool", b"#!", mode=0o6755, xattrs=power)
                .add("disk", tarfile.BLKTYPE, device=(8, 0)).link("disk2", "disk")
                .add("pipe", tarfile.FIFOTYPE).save(os.path.join(self.dir, "blob")))
        for options, mode, names, keys in (
                ([], 0o6755, ["disk", "disk2", "pipe", "tool"], set(power)),
                (["--safe"], 0o755, ["pipe", "tool"], {"user.x"})):
            with self.subTest(options):
                out = os.path.join(self.dir, "out" + "".join(options))
                done = subprocess.run([TOOL, "extract", "-o", f"oci.store={self.store}", *options, "-C",
                                       out, blob], capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual("/disk: a device: left out" in done.stderr, bool(options))
                self.assertEqual(sorted(os.listdir(out)), names)
                tool = os.path.join(out, "tool")
                self.assertEqual(os.stat(tool).st_mode & 0o7777, mode)
                kept = set(os.listxattr(tool))
                self.assertLessEqual(kept, keys)
                self.assertEqual("security.capability" in kept, not options)
        self.run_tool("extract", "--safe", "--tar", status=1)


class KernelTest(ImageTest):
    """The device's bytes, mounted by the kernel without a network block device."""

    def test_the_kernel_sees_what_umoci_unpacks(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to mount")
        self.need("umoci", "nbdcopy")
        server = self.serve(self.image, f"oci.platform=linux/amd64,oci.store={self.store}")
        self.assertIsNotNone(self.copy(server.line))
        image, target = os.path.join(self.dir, "copy"), os.path.join(self.dir, "target")
        os.mkdir(target)
        for way in (["-o", "ro,loop"], ["-o", "ro"]):
            mounted = subprocess.run(["mount", "-t", "erofs", *way, image, target],
                                     capture_output=True, text=True)
            if mounted.returncode == 0:
                break
        else:
            self.skipTest("this machine mounts no EROFS file: " + mounted.stderr)
        self.addCleanup(subprocess.run, ["umount", target])
        theirs = images.unpacked(self.image_layout, os.path.join(self.dir, "bundle"))
        self.assertEqual(images.differences(images.tree(target), images.tree(theirs)), [])


if __name__ == "__main__":
    unittest.main()
