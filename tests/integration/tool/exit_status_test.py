# SPDX-License-Identifier: Apache-2.0
"""The exit statuses that the manual documents, and what goes to standard error with them."""
import os
import re
import subprocess
import tempfile
import unittest

import images
from support import DATA, TOOL, make_layout

NOBODY_LISTENS = "127.0.0.1:1/team/app:1"


def run(*words, **more):
    environment = dict(os.environ, HOME="/nonexistent", TERM="xterm-256color")
    return subprocess.run([TOOL, *words], stdin=subprocess.DEVNULL, timeout=60, env=environment,
                          **({"capture_output": True, "text": True} | more))


class ExitStatusTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.dir = folder.name
        layout = os.path.join(cls.dir, "image")
        make_layout.make_layout([os.path.join(DATA, "basic.tar.gz")], layout)
        cls.image = f"oci:{layout}:latest"
        cls.store = f"oci.store={cls.dir}/store"
        cls.offline = "oci.insecure,oci.retry=off,oci.store=none"

    def status(self, *words):
        return run(*words).returncode

    def test_the_manual_lists_them(self):
        text = run("--help").stdout
        section = re.search(r"\nEXIT STATUS\n(.*?)\n\n", text, re.S).group(1)
        self.assertEqual(re.findall(r"^  (\d+) ", section, re.M), ["0", "1", "2", "32", "141"])

    def test_0_is_success(self):
        self.assertEqual(self.status("--version"), 0)
        self.assertEqual(self.status("help", "mount"), 0)
        self.assertEqual(self.status("ls", "-o", self.store, self.image), 0)

    def test_1_is_a_wrong_command_line_or_a_path_that_is_not_there(self):
        self.assertEqual(self.status(), 1)
        self.assertEqual(self.status("unmount", "/mnt"), 1)
        self.assertEqual(self.status("ls", "--wrong", self.image), 1)
        self.assertEqual(self.status("mount", "-o", "nosuidd", self.image, self.dir), 1)
        self.assertEqual(self.status("mount", "Not A Reference", self.dir), 1)
        self.assertEqual(self.status("ls", "-o", self.store, self.image, "/nothing"), 1)
        config = os.path.join(self.dir, "config")
        with open(config, "w") as file:
            file.write("oci.cahce = 1\n")
        self.assertEqual(self.status("ls", "--config", config, self.image), 1)

    def test_2_is_an_operation_that_failed(self):
        self.assertEqual(self.status("ls", "-o", self.offline, NOBODY_LISTENS), 2)
        self.assertEqual(self.status("image", "-o", self.offline, NOBODY_LISTENS), 2)
        self.assertEqual(self.status("--log-file", "/nonexistent/log", self.image, self.dir), 2)

    def test_of_diff_1_is_a_difference_and_2_all_that_went_wrong(self):
        other = os.path.join(self.dir, "other")
        make_layout.make_layout([os.path.join(DATA, "multi.tar.gz")], other, tag="same")
        make_layout.make_layout([images.Layer().file("x").save(os.path.join(self.dir, "x"))], other)
        diff = lambda *words: self.status("diff", "-o", self.store, *words)
        self.assertEqual(diff(self.image, self.image), 0)
        self.assertEqual(diff(self.image, f"oci:{other}:same"), 0)  # other blobs of the same tar
        self.assertEqual(diff(self.image, f"oci:{other}:latest"), 1)
        for words in (["--wrong", self.image, self.image], [self.image], [self.image, "Not A Reference"],
                      [self.image, "oci:/nonexistent"], [self.image, self.image, "/nothing"]):
            self.assertEqual(diff(*words), 2)

    def test_32_is_a_mount_that_failed(self):
        journal = ["--journal", os.path.join(self.dir, "journal")]
        self.assertEqual(self.status("mount", *journal, "-f", "--allow-unconfined", "-o", self.offline,
                                     NOBODY_LISTENS, self.dir), 32)
        self.assertEqual(self.status("umount", *journal, "/nonexistent"), 32)
        self.assertEqual(self.status("reattach", *journal, "/nonexistent"), 32)

    def test_141_is_a_reader_that_has_ended(self):
        ours, theirs = os.pipe()
        os.close(ours)
        with os.fdopen(theirs, "wb") as closed:
            done = run("ls", "-lR", "-o", self.store, self.image, stdout=closed, stderr=subprocess.PIPE,
                       capture_output=False)
        self.assertEqual((done.returncode, done.stderr), (141, ""))

    def test_an_error_names_the_help_that_helps(self):
        self.assertIn("Try 'mount-oci find --help'", run("find", "--wrong", "i").stderr)
        self.assertIn("Try 'mount-oci mount --help'", run("-o", "nosuidd", "i", "/m").stderr)
        self.assertIn("Try 'mount-oci --help'", run("unmount", "/m").stderr)

    def test_quiet_leaves_errors_alone(self):
        usual = run("ls", "-o", self.store + ",oci.cache_dir=/proc/nonexistent", self.image)
        quiet = run("ls", "-q", "-o", self.store, self.image)
        self.assertEqual((usual.returncode, quiet.returncode, quiet.stderr), (0, 0, ""))
        self.assertNotEqual(run("ls", "-q", "-o", self.offline, NOBODY_LISTENS).stderr, "")

    def test_nothing_is_coloured(self):
        for words in (["--help"], ["ls", "-o", self.store, self.image], ["ls", "--wrong"]):
            done = run(*words)
            self.assertNotIn("\x1b", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
