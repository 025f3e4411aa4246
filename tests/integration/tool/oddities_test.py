# SPDX-License-Identifier: Apache-2.0
"""What is odd in a layer: each command leaves the same out, says so once, and serves the rest."""
import os
import subprocess
import unittest

import images
from files_test import ImageTest
from support import TOOL, read

# What is said when the layers are indexed: of the bottom one, then of the other.
LEFT_OUT = ["attribute 'user.large' of 65536 bytes", "a name of 256 bytes",
            "'file' is not a directory", "no link target", "device number 5000:1"]


class OdditiesTest(ImageTest):
    def setUp(self):
        super().setUp()
        self.odd_layers, self.expected = images.odd_layers()
        layout = images.layout_of(os.path.join(self.dir, "odd"), self.odd_layers)
        self.image = f"oci:{layout}:v1"

    def told(self, command, *arguments, image=None):
        """Runs a command that indexes the layers; its status, standard output and warnings."""
        words = f"oci.platform=linux/amd64,oci.store={self.store}"
        done = subprocess.run([TOOL, command, "-o", words, *self.split(command, arguments, image)],
                              capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def test_the_first_command_says_what_is_left_out(self):
        for command in "index", "ls", "fsck":
            with self.subTest(command):
                self.store = os.path.join(self.dir, "store-" + command)
                status, _, said = self.told(command)
                self.assertEqual(status, 0, said)
                for text in LEFT_OUT:
                    self.assertIn(text, said)
                self.assertEqual(len(said.splitlines()), len(LEFT_OUT), said)

    def test_every_command_shows_the_rest(self):
        self.told("index")
        self.assertEqual(self.run_tool("ls").decode().split(), sorted(self.expected))
        for name, content in self.expected.items():
            self.assertTrue(self.run_tool("cat", "/" + name) == content, name)
        attr, = self.json_lines("stat", "--json", "/attr")
        self.assertEqual([one["name"] for one in attr["xattrs"]], ["user.small"])
        told = self.json_lines("index", "--json", "--verify")
        self.assertEqual([layer["verified"] for layer in told], [True] * 2)
        self.run_tool("fsck")

        out = os.path.join(self.dir, "out")
        self.run_tool("extract", "-C", out)
        self.assertEqual(sorted(os.listdir(out)), sorted(self.expected))
        for name, content in self.expected.items():
            self.assertTrue(read(os.path.join(out, name)) == content, name)
        packed = self.run_tool("extract", "--tar")
        other = os.path.join(self.dir, "other")
        os.mkdir(other)
        subprocess.run(["tar", "-x", "-C", other], input=packed, check=True)
        self.assertTrue(read(os.path.join(other, "sparse")) == self.expected["sparse"])

    def test_an_index_of_a_sparse_file_is_whole(self):
        """Files of `--output` serve the layer without the store."""
        out = os.path.join(self.dir, "out")
        self.told("index", "--output", out)
        name, = [layer["digest"][7:] for layer in self.json_lines("index", "--json")][:1]
        words = f",oci.layer=0,oci.tarindex={out}/{name}.erofs,oci.zinfo={out}/{name}.zinfo"
        self.assertTrue(self.run_tool("cat", "/sparse", words=words) == self.expected["sparse"])

    def test_a_whiteout_of_nothing_is_refused(self):
        bottom = images.Layer().file("d/kept", b"k")
        layers = [bottom, images.Layer().file("d/.wh.")]
        layout = images.layout_of(os.path.join(self.dir, "bare"), layers)
        for command in "index", "ls", "fsck":
            with self.subTest(command):
                status, out, said = self.told(command, image=f"oci:{layout}:v1")
                self.assertNotEqual(status, 0)
                self.assertEqual(out, "")
                self.assertIn("member 'd/.wh.' at offset 0: a whiteout that names nothing", said)
                self.assertIn("layer 1 (sha256:", said)


if __name__ == "__main__":
    unittest.main()
