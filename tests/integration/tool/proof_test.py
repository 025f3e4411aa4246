# SPDX-License-Identifier: Apache-2.0
"""Indexes from elsewhere are compared with the layers while these are read, before, or when a user asks: a
proved one counts for all images, and one that lies stops all reads and is not used again."""
import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import time
import unittest
import zlib

import images
from push_test import PushBase
from support import TOOL, Running, read
from survive_test import wait_for

LETTERS = bytes(b"abcdefghijklmnop"[byte & 15] for byte in range(256))
TABLE = 288  # of an index file


def text(number, size=1 << 20):
    """Bytes that pack to a half and look far back."""
    return random.Random(number).randbytes(size).translate(LETTERS)


class Index:
    """The files of an index, to tell another one of the same layer: doc/formats/index_file.md."""

    def __init__(self, entry):
        self.entry = entry
        self.file = bytearray((entry / "index").read_bytes())
        self.tree = (entry / "tarindex").read_bytes()
        self.spans, = struct.unpack_from("<Q", self.file, 152)
        self.pieces, = struct.unpack_from("<Q", self.file, 232)
        self.digests = TABLE + 32 * self.spans
        self.windows = self.digests + 32 * self.pieces

    def save(self):
        """With all digests of the file itself right."""
        self.file[16:24] = struct.pack("<Q", len(self.file))
        self.file[112:144] = hashlib.sha256(self.tree).digest()
        self.file[160:192] = hashlib.sha256(self.file[TABLE:self.windows]).digest()
        self.file[256:288] = hashlib.sha256(self.file[:256]).digest()
        (self.entry / "tarindex").write_bytes(self.tree)
        (self.entry / "index").write_bytes(self.file)

    def replace(self, old, new):
        assert self.tree.count(old) == 1 and len(old) == len(new), self.tree.count(old)
        self.tree = self.tree.replace(old, new)
        self.save()

    def mode(self):
        # i_mode of the file that has this one alone.
        self.replace(struct.pack("<H", 0o100741), struct.pack("<H", 0o106755))

    def link(self):
        self.replace(b"honest-target", b"/etc/shadow//")

    def piece(self):
        self.file[self.windows - 40] ^= 1
        self.save()

    def window(self):
        """One byte of what the last span with a window looks back at."""
        at, chosen = self.windows, None
        for span in range(self.spans):
            record = TABLE + 32 * span
            size, = struct.unpack_from("<I", self.file, record + 20)
            if size:
                chosen = record, at, size
            at += size
        record, at, size = chosen
        window = bytearray(zlib.decompress(self.file[at:at + size], -15))
        used = max(i for i, byte in enumerate(window) if byte)
        window[used] ^= 1
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(bytes(window)) + packer.flush()
        self.file[at:at + size] = packed
        self.file[record + 20:record + 28] = struct.pack("<II", len(packed), zlib.crc32(packed))
        self.save()


LIES = ["mode", "link", "piece", "window"]


@unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/fuse"), "needs root and /dev/fuse")
class ProofTest(PushBase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        lower = images.Layer().dir("lower").file("lower/kept", text(7, 700_000))
        upper = images.Layer().dir("d").symlink("link", "honest-target").file("d/x", b"x", mode=0o741)
        cls.files = {"lower/kept": text(7, 700_000), "d/x": b"x"}
        for number in range(4):
            cls.files[f"d/file{number}"] = text(number)
            upper.file(f"d/file{number}", text(number))
        cls.layers = [lower, upper]

    def setUp(self):
        super().setUp()
        self.make_target()
        self.log = os.path.join(self.dir, "log")

    def publish(self, lie=None, *options):
        """A registry with a signed index, of which the upper layer's tells a lie."""
        self.start(*options)
        self.run_tool("index", words=f",oci.store={self.first}")
        if lie:
            getattr(Index(self.entry_of(self.digest(1))), lie)()
        self.push("--sign-key", self.key)
        self.fetched()

    def digest(self, layer):
        return self.manifest()["layers"][layer]["digest"]

    def entry_of(self, digest):
        return pathlib.Path(self.first, "read", digest.replace(":", "-"))

    def stored(self, kind):
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(os.path.join(self.store, kind)))
        return []

    def words(self, words="", image=None):
        return (f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store},oci.start_list=off"
                + self.signed() + words)

    def try_mount(self, words="", *options, way="fuse-tree", image=None):
        return subprocess.run([TOOL, "mount", "-v", "--attach", way, "--journal", self.journal, "--log-file",
                               self.log, *options, "-o", self.words(words), image or self.image,
                               self.target], capture_output=True, text=True, timeout=120)

    def mount(self, *words, **options):
        done = self.try_mount(*words, **options)
        self.assertEqual(done.returncode, 0, done.stderr + self.logged())

    def umount(self):
        done = subprocess.run([TOOL, "umount", "--journal", self.journal, self.target],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)

    def logged(self):
        return read(self.log).decode() if os.path.exists(self.log) else ""

    def one_status(self):
        one, = self.status()
        return one

    def states(self):
        return [layer["state"] for layer in self.one_status().get("layers", [])]

    def wait_until(self, states, seconds=120):
        self.assertTrue(wait_for(lambda: self.states() == states, seconds),
                        json.dumps(self.one_status(), indent=1) + self.logged())

    def is_right_and_proved(self):
        self.is_right()
        self.wait_until(["proved", "proved"])

    def replace_worker(self):
        worker = self.one_status()["worker"]
        os.kill(worker, signal.SIGKILL)
        is_new = lambda status: status.get("worker") not in (worker, 0) and status.get("worker_alive")
        self.assertTrue(wait_for(lambda: is_new(self.one_status())), self.logged())

    def read_file(self, name):
        with open(os.path.join(self.target, name), "rb", 0) as file:
            # What the kernel has in memory says nothing of what is served.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return b"".join(iter(lambda: file.read(1 << 20), b""))

    def is_right(self):
        for name, data in self.files.items():
            self.assertTrue(self.read_file(name) == data, name)
        self.assertEqual(os.readlink(os.path.join(self.target, "link")), "honest-target")
        self.assertEqual(os.stat(os.path.join(self.target, "d/x")).st_mode & 0o7777, 0o741)

    def fails(self, names=None):
        """Reads of these files fail, or of all."""
        for name in names or self.files:
            with self.assertRaises(OSError, msg=name):
                self.read_file(name)

    # ---- who writes what all images share

    def test_what_came_from_elsewhere_is_shared_once_it_is_proved(self):
        self.publish()
        out = os.path.join(self.dir, "files")
        self.run_tool("index", "--output", out, words=f",oci.store={self.first}")
        signed, unsigned = self.signed(), ",oci.index=trusted"
        words = "oci.insecure=1,oci.platform=linux/amd64,oci.store=" + self.store
        # where from, entries that were read and that are claims, and whose verify=before changes that
        for name, index, read_alone, claims in (
                ("own reading", ",oci.index=none", 2, 0), ("a signed artifact", signed, 0, 2),
                ("one that nobody has signed", unsigned, 0, 0), ("files", f",oci.index={out}", 0, 0)):
            for before in "", ",oci.verify=before":
                with self.subTest(name=name, before=before):
                    done = subprocess.run([TOOL, "cat", "-o", words + index + before, self.image, "/d/x"],
                                          capture_output=True, timeout=60)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual(len(self.stored("read")), 2 if before else read_alone)
                    self.assertEqual(len(self.stored("claimed")), claims)
                    for entry in self.stored("claimed"):
                        path = os.path.join(self.store, "claimed", entry, "proved")
                        self.assertEqual(os.path.exists(path), bool(before))
                    shutil.rmtree(self.store)

    # ---- a proof that succeeds

    def test_a_proof_in_the_background(self):
        for way in "fuse-tree", "fuse-file":
            with self.subTest(way=way):
                self.publish()
                self.mount(",oci.verify=background", way=way)
                self.assertTrue(self.read_file("d/file2") == self.files["d/file2"])
                self.wait_until(["proved", "proved"])
                # Each byte has come once; the rest are manifests, the index, and chunks that a read and the
                # proof have asked for at the same time.
                self.assertLess(self.fetched(), self.layer_bytes + 400_000)
                status = self.one_status()
                self.assertTrue(status["proof"]["proved"])
                self.assertTrue(wait_for(lambda: self.one_status()["disk"]["complete"]))
                self.assertEqual(status["mismatch"], "")
                self.assertEqual(len(self.stored("read")), 2)
                self.assertEqual(self.stored("refuted"), [])
                text = subprocess.run([TOOL, "status", "--journal", self.journal], capture_output=True,
                                      text=True).stdout
                self.assertIn("layers:   2 proved, 0 pending, 0 failed", text)
                self.server.kill()
                self.is_right()
                self.umount()
                # The next mount has nothing to prove, whoever asks.
                self.mount(",oci.verify=before,oci.pull=missing", way=way)
                self.is_right_and_proved()
                self.umount()
                shutil.rmtree(self.store)
                shutil.rmtree(self.first)

    def test_without_being_asked_only_what_is_here_is_compared(self):
        self.publish()
        self.mount()
        self.assertTrue(self.read_file("d/file2") == self.files["d/file2"])
        time.sleep(2.5)  # it looks every 2 s
        self.assertEqual(self.states(), ["pending", "pending"])
        self.assertLess(self.fetched(), self.layer_bytes * 3 / 4)
        self.assertEqual(self.stored("read"), [])
        self.umount()
        words = self.signed() + ",oci.start_list=off"
        self.run_tool("pull", words=words)
        self.fetched()
        self.mount()
        self.wait_until(["proved", "proved"])
        self.assertEqual(len(self.stored("read")), 2)
        self.assertLess(self.fetched(), 20_000)
        self.umount()

    def test_off(self):
        self.publish("window")
        self.run_tool("pull", words=self.signed())
        self.mount(",oci.verify=off")
        time.sleep(2.5)
        self.assertEqual(self.states(), ["pending", "pending"])
        self.assertIn("oci.verify=off", self.one_status()["layers"][0]["problem"])
        self.umount()

    def test_a_killed_worker_is_no_end_of_it(self):
        self.publish(None, "--bandwidth", "400000")
        self.mount(",oci.verify=background")
        self.assertTrue(wait_for(lambda: "pending" in self.states()))
        worker = self.one_status()["worker"]
        os.kill(worker, signal.SIGKILL)
        self.wait_until(["proved", "proved"])
        self.assertNotEqual(self.one_status()["worker"], worker)
        self.assertLess(self.fetched(), self.layer_bytes + 1_500_000)  # and a MiB that was under way
        self.is_right()
        self.umount()

    def test_a_registry_that_is_away_for_a_while(self):
        self.publish()
        self.mount(",oci.verify=background,oci.timeout=2,oci.retry=0")
        os.kill(self.server.process.pid, signal.SIGSTOP)
        self.addCleanup(self.server.process.send_signal, signal.SIGCONT)
        problem = lambda: [layer for layer in self.one_status().get("layers", []) if "problem" in layer]
        if wait_for(lambda: problem() or self.states() == ["proved", "proved"], 30) and problem():
            self.assertEqual(problem()[0]["state"], "pending")
            self.assertEqual(self.one_status()["mismatch"], "")
        os.kill(self.server.process.pid, signal.SIGCONT)
        self.wait_until(["proved", "proved"])
        self.umount()

    def test_serve(self):
        self.publish()
        socket = os.path.join(self.dir, "socket")
        server = Running(self, "serve", "-v", "-o", self.words(",oci.verify=background"), "--socket", socket,
                         self.image)
        self.assertTrue(wait_for(lambda: len(self.stored("read")) == 2))
        code, said = server.end()
        self.assertEqual(code, 0)
        self.assertEqual(said.count(": proved: its index is what it holds"), 2)

    # ---- lies

    def test_an_index_that_lies_stops_all_reads(self):
        for lie in LIES:
            with self.subTest(lie=lie):
                self.publish(lie)
                self.mount(",oci.verify=background")
                with contextlib.suppress(OSError):  # the lie may be in it
                    self.read_file("d/file1")
                self.wait_until(["proved", "failed"])
                self.fails()
                status = self.one_status()
                self.assertRegex(status["mismatch"], r"^layer 1 \(sha256:.*its index is wrong: ")
                self.assertIn("its index is wrong", status["layers"][1]["problem"])
                self.assertTrue(wait_for(lambda: "read_before" in self.one_status()))
                self.assertIn("/d/file1", self.one_status()["read_before"]["names"])
                self.assertNotIn("/lower/kept", self.one_status()["read_before"]["names"])
                self.assertIn("may have been read before: /d/file1", self.logged())
                self.assertEqual(len(self.stored("refuted")), 1)
                self.assertEqual(len(self.stored("read")), 1)

                # The next worker serves it as little.
                worker = status["worker"]
                os.kill(worker, signal.SIGKILL)
                self.assertTrue(wait_for(lambda: self.one_status().get("worker") not in (worker, 0)
                                         and self.one_status()["worker_alive"]))
                self.fails()
                self.assertTrue(wait_for(lambda: self.states() == ["proved", "failed"]))
                self.umount()

                # The next mount says so and reads the layer.
                os.remove(self.log)
                self.mount(",oci.verify=background")
                self.assertIn("an index is not used that was compared with the layer before, and lies: "
                              "its index is wrong: ", self.logged())
                self.is_right_and_proved()
                self.umount()
                shutil.rmtree(self.store)
                shutil.rmtree(self.first)

    def test_a_mount_of_wrong_bytes_is_not_shared(self):
        self.publish("window")
        self.mount(",oci.verify=background")
        self.wait_until(["proved", "failed"])
        self.fails()
        lying = self.target
        self.target = os.path.join(self.dir, "another")
        os.mkdir(self.target)
        self.addCleanup(subprocess.run, ["umount", "-l", self.target], capture_output=True)
        self.mount(",oci.verify=background")
        self.is_right()
        self.assertEqual(sorted(one["mount_points"] for one in self.status()),
                         sorted([[lying], [self.target]]))
        self.umount()
        self.target = lying
        self.umount()

    def test_the_kernels_files_fail_too(self):
        self.publish("window")
        self.mount(",oci.verify=background", way="fuse-file")
        self.wait_until(["proved", "failed"])
        self.fails(["d/file0", "d/file3", "lower/kept"])
        self.umount()

    def test_metrics_tell_of_it(self):
        self.publish("link")
        metrics = os.path.join(self.dir, "metrics")
        self.mount(",oci.verify=background", "--metrics", metrics)
        self.wait_until(["proved", "failed"])
        said = subprocess.run(["curl", "-s", "--unix-socket", metrics, "http://x/metrics"],
                              capture_output=True, text=True).stdout
        for name, count in ("layers_proved", 1), ("layers_pending", 0), ("layers_failed", 1), (
                "digest_mismatch", 1):
            self.assertRegex(said, rf"(?m)^erofs_oci_{name}\{{.*\}} {count}$")
        self.umount()

    # ---- before

    def test_before_mounts_what_is_proved(self):
        self.publish()
        self.mount(",oci.verify=before")
        self.assertEqual(len(self.stored("read")), 2)
        self.is_right_and_proved()
        self.assertLess(self.fetched(), 2 * self.layer_bytes)
        self.umount()

    def test_before_reads_the_layer_in_place_of_a_lie(self):
        for lie in LIES:
            with self.subTest(lie=lie):
                self.publish(lie)
                self.mount(",oci.verify=before")
                self.assertRegex(self.logged(), "its index is wrong: .*; the layer is read instead")
                self.is_right_and_proved()
                self.replace_worker()
                self.is_right_and_proved()
                self.umount()
                shutil.rmtree(self.store)
                shutil.rmtree(self.first)

    def test_before_reads_the_layer_in_place_of_files_that_lie(self):
        self.publish("mode")
        out = os.path.join(self.dir, "files")
        self.run_tool("index", "--output", out, words=f",oci.store={self.first}")
        for store in self.store, "none":
            with self.subTest(store=store):
                self.mount(f",oci.index={out},oci.verify=before,oci.store={store}")
                self.assertRegex(self.logged(), "its index is wrong: .*; the layer is read instead")
                self.is_right_and_proved()
                self.replace_worker()
                self.is_right_and_proved()
                # The same if what was made by reading the layer has gone.
                for made in pathlib.Path(self.dir).glob("**/read"):
                    if not made.is_relative_to(self.first):
                        shutil.rmtree(made)
                self.replace_worker()
                self.is_right_and_proved()
                self.umount()
                os.remove(self.log)

    def test_before_keeps_proofs_where_no_store_is_for_all(self):
        self.publish()
        out = os.path.join(self.dir, "files")
        self.run_tool("index", "--output", out, words=f",oci.store={self.first}")
        self.mount(f",oci.index={out},oci.verify=before,oci.store=none")
        self.assertEqual(len(list(pathlib.Path(self.journal).glob("**/proved"))), 2)
        self.umount()

    def test_before_refuses_what_nothing_proves(self):
        blob = self.layers[1].save(os.path.join(self.dir, "layer.tar.gz"))
        out = os.path.join(self.dir, "files")
        index = lambda *words: subprocess.run([TOOL, "index", *words, blob], check=True, capture_output=True)
        index("-o", "oci.store=none", "--output", out)
        own = f"oci.tarindex={out}/layer.tar.gz.erofs,oci.zinfo={out}/layer.tar.gz.zinfo"
        words = f"oci.store={self.store},{own},oci.verify=before"
        for image in blob, f"oci:{self.image_layout}:v1":
            more = "" if image == blob else ",oci.layer=1"
            done = subprocess.run([TOOL, "ls", "-o", words + more, image], capture_output=True, text=True,
                                  timeout=60)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("oci.verify=before: without an index nothing proves the layer first", done.stderr)
        # An index that was made by reading the layer has a digest of each piece.
        index("-o", f"oci.store={self.store}")
        done = subprocess.run([TOOL, "ls", "-o", words + ",oci.layer=1", f"oci:{self.image_layout}:v1"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)

    def tool(self, command, *arguments, words=""):
        return subprocess.run([TOOL, command, "-o", self.words(words), self.image, *arguments],
                              capture_output=True, timeout=60)

    def test_commands_that_read(self):
        self.publish("mode")
        # Who trusts the key, and does not ask, believes it.
        self.assertIn(b"6755", self.tool("stat", "/d/x").stdout)
        done = self.tool("stat", "/d/x", words=",oci.verify=before")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"0741", done.stdout)
        self.assertIn(b"another mode", done.stderr)
        self.assertIn(b"0741", self.tool("stat", "/d/x").stdout)
        done = self.tool("verify")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        # A process that keeps nothing forgets no lie meanwhile.
        done = self.tool("stat", "/d/x", words=",oci.verify=before,oci.store=none")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"0741", done.stdout)

    def test_contents_that_the_configuration_does_not_name(self):
        layout = pathlib.Path(self.image_layout)
        config = layout / "blobs/sha256" / self.manifest()["config"]["digest"][7:]
        wrong = json.loads(config.read_text())
        wrong["rootfs"]["diff_ids"][0] = "sha256:" + "0" * 64
        self.replace_config(layout, json.dumps(wrong).encode())
        self.publish()
        done = self.tool("cat", "/d/x", words=",oci.verify=before")
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"the image's configuration says sha256:000", done.stderr)
        if self.try_mount(",oci.verify=background").returncode == 0:
            self.wait_until(["failed", "pending"])
            self.fails()
            self.umount()
        else:  # all is in the layer cache, so that the lie may be found before the mount is looked at
            self.assertIn("the image's configuration says sha256:000", self.logged())
        self.assertEqual(self.stored("refuted"), [])  # the index says what the layer holds

    def replace_config(self, layout, data):
        def put(data):
            name = hashlib.sha256(data).hexdigest()
            (layout / "blobs/sha256" / name).write_bytes(data)
            return {"digest": f"sha256:{name}", "size": len(data)}

        manifest = self.manifest()
        manifest["config"].update(put(data))
        index = json.loads((layout / "index.json").read_text())
        index["manifests"][0].update(put(json.dumps(manifest).encode()))
        (layout / "index.json").write_text(json.dumps(index))

    # ---- verify of a mount

    def verify_mount(self):
        return subprocess.run([TOOL, "verify", "--journal", self.journal, "-o",
                               f"oci.cache_dir={self.dir}/cache", self.target], capture_output=True,
                              text=True, timeout=60)

    def test_verify_of_a_mount(self):
        verify = self.verify_mount
        self.publish("link")
        done = verify()
        self.assertEqual(done.returncode, 2)
        self.assertIn("no image is mounted there", done.stderr)
        self.mount(",oci.verify=off")
        done = verify()
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stdout, r"layer 0 .*: proved\nlayer 1 .*: its index is wrong: /link: another "
                                      "target or device number\n")
        self.umount()
        self.mount()
        done = verify()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count(": proved\n"), 2)
        self.umount()

    def test_verify_of_a_mount_by_files_that_lie(self):
        self.publish("mode")
        out = os.path.join(self.dir, "files")
        self.run_tool("index", "--output", out, words=f",oci.store={self.first}")
        self.mount(f",oci.index={out}")
        self.assertEqual(os.stat(os.path.join(self.target, "d/x")).st_mode & 0o7777, 0o6755)
        done = self.verify_mount()
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(": its index is wrong: /d/x: another mode", done.stdout)
        self.assertTrue(wait_for(lambda: "failed" in self.states(), 60))
        self.fails()
        self.umount()
        self.mount(f",oci.index={out}")
        self.is_right()
        self.umount()

    def test_what_another_process_has_found(self):
        self.publish("link")
        self.mount()
        self.wait_until(["pending", "pending"])
        self.assertEqual(self.tool("verify").returncode, 1)
        self.assertTrue(wait_for(lambda: "failed" in self.states()))
        self.fails()
        self.umount()


if __name__ == "__main__":
    unittest.main()
