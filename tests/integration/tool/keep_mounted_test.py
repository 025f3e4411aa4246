# SPDX-License-Identifier: Apache-2.0
"""example/keep_mounted.cpp: a program that keeps what it reads mounted, whoever is killed. Without NBD;
tests/guest/survive.sh has it with a device."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from support import own_mounts

PROGRAM = os.environ.get("KEEP_MOUNTED", "example-keep_mounted")


class KeepMountedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() == 0:
            own_mounts()

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="keep_mounted-")
        self.addCleanup(self.folder.cleanup)
        self.top = pathlib.Path(self.folder.name)
        self.target = self.top / "mnt"
        self.target.mkdir()
        self.addCleanup(subprocess.run, ["umount", "-l", self.target], capture_output=True)
        files = self.top / "files"
        files.mkdir()
        for number in range(20):
            (files / str(number)).write_bytes(os.urandom(50_000))
        self.files = {file.name: file.read_bytes() for file in files.iterdir()}
        self.image = self.top / "image.erofs"
        subprocess.run(["mkfs.erofs", self.image, files], check=True, capture_output=True)

    def start(self, image=None, target=None):
        process = subprocess.Popen([PROGRAM, image or self.image, target or self.target], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def mounted(self):
        process = self.start()
        self.assertRegex(process.stdout.readline(), "^mounted, by fuse-")
        return process

    def read(self):
        """All files, read anew: other mounts of this machine keep what the kernel holds of them."""
        found = {}
        for path in self.target.iterdir():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                found[path.name] = file.read()
        return found

    def worker(self, process, killed):
        """The pid of a worker that nobody has killed; a killed one is replaced within seconds."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
            children = " ".join((task / "children").read_text() for task in tasks)
            for child in map(int, children.split()):
                if child not in killed:
                    return child
            time.sleep(0.01)
        self.fail("no new worker")

    def test_reads_go_on_whoever_is_killed(self):
        process = self.mounted()
        killed = set()
        for _ in range(10):
            worker = self.worker(process, killed)
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
            self.assertEqual(self.read(), self.files)
        subprocess.run(["umount", self.target], check=True)
        self.assertEqual(process.wait(20), 0)

    def test_a_signal_unmounts(self):
        process = self.mounted()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0)
        self.assertEqual(list(self.target.iterdir()), [])

    def test_a_second_signal_ends_a_mount_in_use(self):
        process = self.mounted()
        with open(self.target / "0", "rb") as file:
            process.send_signal(signal.SIGTERM)
            self.assertIn("is in use", process.stderr.readline())
            self.assertEqual(len(file.read(1)), 1)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(20), 0)

    def test_what_cannot_be_mounted_says_why_and_leaves_nothing(self):
        for image, target, reason in ((self.top / "none", None, "No such file"),
                                      ("/etc/passwd", None, "mount"),
                                      (None, self.top / "nowhere", "No such file")):
            process = self.start(image, target)
            self.assertEqual(process.wait(20), 1)
            self.assertIn(reason, process.stderr.read())
        self.assertNotIn(str(self.top), pathlib.Path("/proc/self/mounts").read_text())


if __name__ == "__main__":
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        print("skipped: needs root and /dev/fuse")
        sys.exit(77)
    unittest.main()
