# SPDX-License-Identifier: Apache-2.0
"""mount-oci index and fsck: make indexes, read them back, check them, and never leave half of one."""
import json
import os
import pty
import signal
import subprocess
import tarfile
import time
import unittest

import images
from files_test import ImageTest
from support import TOOL, digest, path, read
from survive_test import wait_for


def files_below(directory):
    return sorted(os.path.relpath(os.path.join(folder, name), directory)
                  for folder, _, names in os.walk(directory) for name in names)


class IndexTest(ImageTest):
    def test_into_the_store(self):
        told = self.json_lines("index", "--json", "--verify")
        self.assertEqual([layer["verified"] for layer in told], [True] * 3)
        self.assertEqual([layer["diff_id"] for layer in told],
                         [digest(layer.bytes()) for layer in self.layers])
        entries = sorted(os.listdir(os.path.join(self.store, "read")))
        self.assertEqual(entries, sorted(layer["digest"].replace(":", "-") for layer in told))
        self.assertEqual(os.listdir(os.path.join(self.store, "tmp")), [])

    def test_only_the_first_layers(self):
        whole = self.json_lines("index", "--json")
        lowest = self.json_lines("index", "--json", words=",oci.first_layers=2")
        self.assertEqual(lowest, whole[:2])
        alone = self.run_tool("ls", "-R", "/", words=",oci.layer=0")
        self.assertEqual(self.run_tool("ls", "-R", "/", words=",oci.first_layers=1"), alone)
        self.assertNotEqual(self.run_tool("ls", "-R", "/", words=",oci.first_layers=2"), alone)
        self.run_tool("ls", "/", words=",oci.first_layers=4", status=1)

    def test_files_that_other_tools_read(self):
        out = os.path.join(self.dir, "out")
        told = self.json_lines("index", "--json", "--verify", "--output", out)
        self.assertEqual([layer["verified"] for layer in told], [True] * 3)
        name = told[0]["digest"][7:]
        self.assertEqual([f for f in files_below(out) if f.startswith(name)],
                         [f"{name}.erofs", f"{name}.index", f"{name}.zinfo"])
        self.assertFalse([f for f in files_below(out) if f.endswith(".part")])
        # The index is the store's, byte by byte, and the other two make a layer readable.
        kept = os.path.join(self.store, "read", "sha256-" + name, "index")
        self.assertTrue(read(kept) == read(os.path.join(out, name + ".index")))
        words = (f",oci.layer=0,oci.tarindex={out}/{name}.erofs,oci.zinfo={out}/{name}.zinfo")
        self.assertTrue(self.run_tool("cat", "/data/second", words=words) ==
                        images.noise(5_000_000, b"large"))

    def merkle_tree(self, words="", options=()):
        """What index tells of the tree, after the layers."""
        return self.json_lines("index", "--verity", "--json", *options, words=words)[-1]

    def tree_file(self):
        [folder] = os.listdir(os.path.join(self.store, "images"))
        return os.path.join(self.store, "images", folder, "verity")

    def test_a_merkle_tree_is_that_of_veritysetup(self):
        tree = self.merkle_tree()
        [folder] = os.listdir(os.path.join(self.store, "images"))
        device = read(os.path.join(self.store, "images", folder, "image"))
        self.assertEqual(tree["tree_size"], os.path.getsize(self.tree_file()))
        # The device: metadata, then each layer's tar on a page of its own.
        for layer in self.layers:
            data = layer.bytes()
            device += data + bytes(-len(data) % 4096)
        self.assertEqual(tree["device_size"], len(device))
        file = os.path.join(self.dir, "device")
        with open(file, "wb") as out:
            out.write(device)
        environment = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
        subprocess.run(["veritysetup", "verify", file, self.tree_file(), tree["root_hash"]],
                       check=True, env=environment)
        device = bytearray(device)
        device[-5000] ^= 1
        with open(file, "wb") as out:
            out.write(device)
        done = subprocess.run(["veritysetup", "verify", file, self.tree_file(), tree["root_hash"]],
                              env=environment, capture_output=True)
        self.assertNotEqual(done.returncode, 0)

    def test_a_merkle_tree_is_made_again(self):
        tree = self.merkle_tree()
        first = read(self.tree_file())
        os.remove(self.tree_file())
        self.assertEqual(self.merkle_tree(), tree)
        self.assertTrue(read(self.tree_file()) == first)
        # Of other layers it is another one.
        self.assertNotEqual(self.merkle_tree(words=",oci.first_layers=2")["root_hash"],
                            tree["root_hash"])
        text = self.run_tool("index", "--verity").decode()
        self.assertIn(f"Merkle tree:  root hash {tree['root_hash']}, ", text)

    def test_a_merkle_tree_needs_a_store(self):
        self.run_tool("index", "--verity", words=",oci.store=none", status=1)
        self.assertIn("oci.store is none", self.said)

    def test_files_go_nowhere_else(self):
        if os.geteuid() != 0:
            self.skipTest("not root")
        victim, out = os.path.join(self.dir, "victim"), os.path.join(self.dir, "out")
        with open(victim, "w") as file:
            file.write("precious")
        os.mkdir(out)
        name = self.json_lines("index", "--json")[0]["digest"][7:]
        for end in ".erofs", ".erofs.part":
            os.symlink(victim, os.path.join(out, name + end))
        self.run_tool("index", "--output", out)
        self.assertEqual(read(victim), b"precious")
        self.assertFalse(os.path.islink(os.path.join(out, name + ".erofs")))
        link = os.path.join(self.dir, "link")
        os.symlink(out, link)
        os.chown(link, 65534, 65534, follow_symlinks=False)
        self.run_tool("index", "--output", link, status=2)
        self.assertIn("symbolic link of user 65534", self.said)
        os.symlink(victim, os.path.join(self.dir, "log"))
        self.run_tool("index", "--log-file", os.path.join(self.dir, "log"), status=2)
        self.assertEqual(read(victim), b"precious")

    def test_gc_prunes_the_store(self):
        self.run_tool("ls", "/")
        entries = lambda: sorted(f"{part}/{name}" for part in ("read", "images")
                                 for name in os.listdir(os.path.join(self.store, part)))
        self.assertEqual(len(entries()), 4)
        gc = lambda *words, status=0: subprocess.run(
            [TOOL, "gc", "--journal", os.path.join(self.dir, "none"), "-o", f"oci.store={self.store}",
             *words], capture_output=True, text=True, timeout=60)
        self.assertEqual(gc().stdout, "")
        self.assertEqual(gc("--keep=1d").stdout, "")
        self.assertEqual(gc("--keep=1G").stdout, "")
        self.assertEqual(gc("--keep=soon").returncode, 1)
        old = os.path.join(self.store, entries()[0])
        os.utime(old, (time.time() - 3 * 86400,) * 2)
        self.assertEqual(gc("--keep=2d").stdout.split()[0], old)
        self.assertEqual(len(entries()), 3)
        self.assertEqual(len(gc("--keep=0").stdout.splitlines()), 3)
        self.assertEqual(entries(), [])
        self.run_tool("ls", "/")  # makes them again

    def test_the_zinfo_is_like_what_mkfs_makes(self):
        out = os.path.join(self.dir, "out")
        for name in ("basic", "ckpt"):
            with self.subTest(name):
                self.run_tool("index", "--output", out, "--verify", image=path(name + ".tar.gz"))
                ours = read(os.path.join(out, name + ".tar.gz.zinfo"))
                theirs = read(path(f"gz-{name}.zinfo"))
                # As many checkpoints as mkfs has, or one less, the first at the same place, and the
                # others as far apart: at blocks with smaller windows.
                entry = 17 + 32768
                self.assertIn((len(theirs) - len(ours)) // entry, (0, 1))
                self.assertEqual(ours[4:12], theirs[4:12])
                self.assertEqual(ours[12:12 + 17], theirs[12:12 + 17])  # in, out, bits
                outs = [int.from_bytes(ours[at + 8:at + 16], "little")
                        for at in range(12, len(ours), entry)]
                self.assertTrue(all(b - a > 4 << 20 for a, b in zip(outs, outs[1:])), outs)

    def test_verify_takes_what_overlayfs_left_in_a_layer(self):
        archive = os.path.join(self.dir, "layer.tar")
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            directory = tarfile.TarInfo("opaque")
            directory.type = tarfile.DIRTYPE
            directory.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
            tar.addfile(directory)
            device = tarfile.TarInfo("whiteout")
            device.type = tarfile.CHRTYPE
            tar.addfile(device)
        told, = self.json_lines("index", "--json", "--verify", image=archive)
        self.assertTrue(told["verified"])
        self.assertEqual(self.run_tool("ls", "/", image=archive), b"opaque\nwhiteout\n")

    def test_verify_finds_an_index_of_something_else(self):
        self.run_tool("index", words=",oci.layer=0")
        folder = os.path.join(self.store, "read")
        entry, = os.listdir(folder)
        other = images.Layer().file("a", b"1").save(os.path.join(self.dir, "other"))
        self.run_tool("index", image=other)
        second, = set(os.listdir(folder)) - {entry}
        # A whole entry, under a name that it does not belong to, is not taken.
        subprocess.run(["rm", "-rf", os.path.join(folder, entry)], check=True)
        subprocess.run(["cp", "-r", os.path.join(folder, second), os.path.join(folder, entry)],
                       check=True)
        told, = self.json_lines("index", "--json", "--verify", words=",oci.layer=0")
        self.assertTrue(told["verified"])
        self.assertEqual(told["diff_id"], digest(self.layers[0].bytes()))

    def test_a_damaged_index_is_made_again(self):
        self.run_tool("index")
        folder = os.path.join(self.store, "read")
        entry = os.path.join(folder, sorted(os.listdir(folder))[0])
        good = read(os.path.join(entry, "tarindex"))
        with open(os.path.join(entry, "tarindex"), "r+b") as file:
            file.seek(len(good) // 2)
            file.write(bytes([good[len(good) // 2] ^ 1]))
        self.run_tool("index", "--verify")
        self.assertTrue(read(os.path.join(entry, "tarindex")) == good)

    def test_a_signal_ends_it_and_nothing_half_made_stays(self):
        for number, status in ((signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGKILL, -9)):
            with self.subTest(number):
                host = self.three_at_registry("--bandwidth", "300K")
                image = f"{host}/app:v1"
                words = f"oci.insecure=1,oci.platform=linux/amd64,oci.cache_dir=none,oci.store={self.store}"
                tool = subprocess.Popen([TOOL, "index", "-o", words, image], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
                self.assertTrue(wait_for(lambda: self.stats(host)["bytes"] > 100_000))
                tool.send_signal(number)
                start = time.monotonic()
                tool.communicate(timeout=20)
                self.assertLess(time.monotonic() - start, 5)
                self.assertEqual(tool.returncode, status)
                self.assertEqual(os.listdir(os.path.join(self.store, "tmp")), [])
                self.server.kill()
        told = self.json_lines("index", "--json", "--verify")
        self.assertEqual([layer["verified"] for layer in told], [True] * 3)

    def test_two_at_a_time(self):
        words = f"oci.platform=linux/amd64,oci.store={self.store}"
        tools = [subprocess.Popen([TOOL, "index", "-o", words, self.image], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE) for _ in range(4)]
        for tool in tools:
            self.assertEqual(tool.communicate(timeout=60)[1], b"")
            self.assertEqual(tool.returncode, 0)
        self.assertEqual(len(os.listdir(os.path.join(self.store, "read"))), 3)
        self.assertEqual(os.listdir(os.path.join(self.store, "tmp")), [])

    def test_a_full_disk(self):
        self.mount_small(self.store, "size=16k,mode=700")
        # What is asked for is there all the same; the store has whole entries or none.
        self.assertEqual(self.run_with_warnings("cat", "/etc/passwd"), b"root:x:0:0\nuser:x:1:1\n")
        self.assertIn("No space left on device", self.said)
        self.assertEqual(os.listdir(os.path.join(self.store, "tmp")), [])
        for entry in os.listdir(os.path.join(self.store, "read")):
            self.assertIn("index", os.listdir(os.path.join(self.store, "read", entry)))

    def test_a_full_disk_leaves_no_file_beside_the_whole_ones(self):
        out = os.path.join(self.dir, "out")
        self.mount_small(out, "size=48k")
        self.run_tool("index", "--output", out, status=2)
        self.assertIn("No space left on device", self.said)
        wanted = os.path.join(self.dir, "wanted")
        self.run_tool("index", "--output", wanted)
        self.assertLess(len(files_below(out)), len(files_below(wanted)))
        for name in files_below(out):
            self.assertTrue(read(os.path.join(out, name)) == read(os.path.join(wanted, name)), name)

    def run_with_warnings(self, command, *arguments):
        words = f"oci.platform=linux/amd64,oci.store={self.store}"
        done = subprocess.run([TOOL, command, "-o", words, self.image, *arguments],
                              capture_output=True, timeout=60)
        self.said = done.stderr.decode()
        self.assertEqual(done.returncode, 0, self.said)
        return done.stdout

    def test_no_store(self):
        self.store = "none"
        self.assertEqual(self.run_tool("cat", "/gone/c"), b"c")
        self.assertFalse(os.path.exists("none"))

    def test_a_second_mount_reads_no_layer_again(self):
        host = self.three_at_registry()
        words = f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store}"
        for most in (3, 0):
            before = self.stats(host)["blob_requests"]
            server = self.serve(f"{host}/app:v1", words)
            self.assertLessEqual(self.stats(host)["blob_requests"] - before, most)
            self.assertEqual(server.end(), (0, ""))

    def test_a_layer_that_is_not_what_its_digest_says(self):
        host = self.three_at_registry("--fault", "corrupt")
        self.run_tool("index", image=f"{host}/app:v1", status=2)
        self.assertRegex(self.said, "layer [0-2] .*(CRC|digest mismatch|corrupt)")
        self.run_tool("index")
        self.run_tool("cat", "/data/large", image=f"{host}/app:v1", words=",oci.timeout=3", status=2)
        self.assertIn("digest mismatch", self.said)

    # ---- progress

    def index_slowly(self, *options, **streams):
        host = self.three_at_registry("--bandwidth", "3M")
        words = f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store}"
        return subprocess.Popen([TOOL, "index", *options, "-o", words, f"{host}/app:v1"],
                                stdout=subprocess.DEVNULL, **streams)

    def test_a_terminal_gets_one_line_that_goes_away(self):
        ours, theirs = pty.openpty()
        start = time.monotonic()
        tool = self.index_slowly(stderr=theirs)
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 4096):
                said += piece
        except OSError:
            pass  # the terminal's other end is closed
        self.assertEqual(tool.wait(20), 0)
        took = time.monotonic() - start
        self.assertNotIn(b"\n", said)
        self.assertIn(b"of 3 layers, ", said)
        self.assertIn(b"MB/s", said)
        self.assertTrue(said.endswith(b"\r\x1b[K"), said[-50:])
        self.assertGreater(said.count(b"indexing"), 5)
        self.assertLessEqual(said.count(b"indexing"), 10 * took + 4)

    def test_elsewhere_there_are_messages_if_asked_for(self):
        tool = self.index_slowly("-v", stderr=subprocess.PIPE)
        said = tool.communicate(timeout=20)[1].decode()
        self.assertEqual(tool.returncode, 0)
        self.assertRegex(said, r"layer 0 is read, 5\.[0-9] MB; indexing: [1-3] of 3 layers")
        self.assertNotIn("\r", said)
        tool = self.index_slowly(stderr=subprocess.PIPE)
        self.assertEqual(tool.communicate(timeout=20)[1], b"")

    def test_one_layer_keeps_its_number(self):
        host = self.three_at_registry()
        words = f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store},oci.layer=2"
        done = subprocess.run([TOOL, "index", "-v", "-o", words, f"{host}/app:v1"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("layer 2 is read, ", done.stderr)
        self.server.kill()
        host = self.three_at_registry("--fault", "corrupt")
        self.store = "none"
        self.run_tool("index", image=f"{host}/app:v1", words=",oci.layer=1", status=2)
        self.assertRegex(self.said, r"layer 1 \(sha256:")

    # ---- fsck

    def test_fsck(self):
        self.assertIn("sound", self.run_tool("fsck").decode())
        report = json.loads(self.run_tool("fsck", "--data", "--json"))
        self.assertEqual((report["count"], report["findings"]), (0, []))
        self.assertEqual(report["data_bytes"], sum(len(layer.bytes()) for layer in self.layers))

    def test_fsck_finds_what_changed(self):
        self.run_tool("index")
        host = self.three_at_registry("--fault", "corrupt")
        report = json.loads(self.run_tool("fsck", "--data", "--json", image=f"{host}/app:v1",
                                          words=",oci.timeout=3", status=1))
        self.assertEqual(report["count"], 4)  # the configuration is one of them
        for finding in report["findings"]:
            self.assertIn("digest mismatch", finding["text"])

    def test_fsck_of_a_file_that_is_no_image(self):
        blob = os.path.join(self.dir, "junk")
        with open(blob, "wb") as file:
            file.write(b"junk" * 1000)
        self.run_tool("fsck", image=blob, status=2)
        self.assertIn("tar", self.said)


if __name__ == "__main__":
    unittest.main()
