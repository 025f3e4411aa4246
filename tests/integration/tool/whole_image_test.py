# SPDX-License-Identifier: Apache-2.0
"""Images of three and of 64 layers, pushed by skopeo to Debian's docker-registry: unpacked, checked,
and served as one device that the kernel mounts, they are what umoci makes of the same image, file by
file."""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import images
from support import Running, TOOL, read

NEEDED = ("docker-registry", "skopeo", "umoci", "nbdcopy")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.stderr}")
    return done.stdout


class WholeImage:
    """What holds of an image of any number of layers; each subclass makes one."""

    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="whole-image-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        cls.start_registry()
        cls.made = cls.make()
        layout = images.layout_of(cls.dir / "image", cls.made)
        run("skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests",
            "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{cls.host}/app:v1")
        cls.wanted = images.tree(images.unpacked(layout, cls.dir / "bundle"))
        shutil.rmtree(layout)  # from here on there is only the registry
        cls.image = f"{cls.host}/app:v1"
        cls.words = f"oci.insecure=1,oci.platform=linux/amd64,oci.store={cls.dir}/store"

    @classmethod
    def start_registry(cls):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        cls.host = f"127.0.0.1:{port}"
        (cls.dir / "config.yml").write_text(f"""version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {cls.dir}/data}}}}
http: {{addr: "{cls.host}"}}
""")
        log = open(cls.dir / "log", "wb")
        cls.addClassCleanup(log.close)
        server = subprocess.Popen(["docker-registry", "serve", cls.dir / "config.yml"],
                                  stdout=log, stderr=log)
        cls.addClassCleanup(lambda: (server.kill(), server.wait()))
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(read(cls.dir / "log"))

    def same(self, directory):
        found = images.tree(str(directory))
        self.assertGreater(len(found), 20)
        self.assertEqual(images.differences(found, self.wanted), [])

    def test_1_extracted_with_no_index_and_with_those_of_the_store(self):
        for out in ("first", "second"):
            run(TOOL, "extract", "-o", self.words, "-C", self.dir / out, self.image)
            self.same(self.dir / out)
            kept = os.listdir(self.dir / "store/read")
            self.assertEqual(len(kept), len({layer.bytes() for layer in self.made}))

    def test_2_every_byte_is_sound(self):
        report = json.loads(run(TOOL, "fsck", "--data", "--json", "-o", self.words, self.image))
        self.assertEqual((report["count"], report["findings"]), (0, []))

    def test_3_mounted_by_the_kernel(self):
        place, copy, target = (self.dir / name for name in ("socket", "device", "target"))
        server = Running(self, "serve", "--socket", str(place), "-o", self.words, self.image)
        run("nbdcopy", server.line, copy)
        self.assertEqual(server.end(), (0, ""))
        target.mkdir()
        said = ""
        for way in ("ro,loop", "ro"):
            mounted = subprocess.run(["mount", "-t", "erofs", "-o", way, copy, target],
                                     capture_output=True, text=True)
            said += mounted.stderr
            if mounted.returncode == 0:
                break
        else:
            self.skipTest("this machine mounts no EROFS file: " + said)
        self.addCleanup(subprocess.run, ["umount", target])
        self.same(target)


class ThreeLayers(WholeImage, unittest.TestCase):
    @staticmethod
    def make():
        return images.three_layers()


class ManyLayers(WholeImage, unittest.TestCase):
    @staticmethod
    def make():
        return images.many_layers(64)


class UmociInsertTest(unittest.TestCase):
    """`umoci insert` of Debian 12 ends a layer without padding and without an end marker."""

    def test_its_layer_is_read(self):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="umoci-insert-"))
        self.addCleanup(shutil.rmtree, directory)
        layout = images.layout_of(directory / "image", images.three_layers())
        (directory / "file").write_text("inserted")
        run("umoci", "insert", "--image", f"{layout}:v1", directory / "file", "/put/in")
        image = f"oci:{layout}:v1"
        words = f"oci.platform=linux/amd64,oci.store={directory}/store"
        self.assertEqual(run(TOOL, "cat", "-o", words, image, "/put/in"), "inserted")
        self.assertEqual(json.loads(run(TOOL, "fsck", "--data", "--json", "-o", words, image))
                         ["findings"], [])
        run(TOOL, "extract", "-o", words, "-C", directory / "out", image)
        found = images.tree(str(directory / "out"))
        wanted = images.tree(images.unpacked(layout, directory / "bundle"))
        # umoci gives the directories that it makes by the way the time of now.
        self.assertEqual([text for text in images.differences(found, wanted)
                          if not text.startswith((".: mtime", "put: mtime"))], [])


if __name__ == "__main__":
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        print("skipped: needs root and", *(missing or NEEDED))
        sys.exit(77)
    unittest.main(verbosity=2)
