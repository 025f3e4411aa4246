# SPDX-License-Identifier: Apache-2.0
"""Indexes that one machine has made serve another one: pushed beside the image, signed or not, found by
the referrers API or the tag in its place, and never believed more than was asked for."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import unittest

import images
import servers
from files_test import ImageTest
from servers import run
from support import Running, REGISTRY, TOOL, two_platforms

ARTIFACT = "application/vnd.erofs-oci.index.v1"


class PushBase(ImageTest):
    """Two stores, a key, and a registry that takes what one of them has."""

    def setUp(self):
        super().setUp()
        self.first = self.store  # of who makes the index
        self.store = os.path.join(self.dir, "other")  # of who uses it
        self.image_layout = images.layout_of(os.path.join(self.dir, "layout"), self.layers)
        self.layer_bytes = sum(layer["size"] for layer in self.manifest()["layers"])
        self.key, self.public = (os.path.join(self.dir, name) for name in ("key", "key.pub"))
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
            self.key)
        run("openssl", "pkey", "-in", self.key, "-pubout", "-out", self.public)

    def manifest(self):
        layout = pathlib.Path(self.image_layout)
        entry = json.loads((layout / "index.json").read_text())["manifests"][0]
        return json.loads((layout / "blobs/sha256" / entry["digest"][7:]).read_text())

    def start(self, *options):
        self.server = Running(self, self.image_layout, "--accept-pushes", *options, program=REGISTRY)
        self.host = self.server.line.split("://", 1)[1]
        self.image = f"{self.host}/app:v1"
        self.before = self.stats(self.host)

    def push(self, *options, words="", **more):
        """What `index --push` tells of the image."""
        lines = self.json_lines("index", "--push", "--json", *options,
                                words=f",oci.store={self.first}" + words, **more)
        return [line for line in lines if "artifact" in line]

    def fetched(self):
        """Bytes of blobs that the registry has sent since the last call."""
        now = self.stats(self.host)["bytes"]
        before, self.before = self.before["bytes"], {"bytes": now}
        return now - before

    def first_contact(self, words="", image=None):
        """What reading one file costs somebody with an empty store."""
        shutil.rmtree(self.store, ignore_errors=True)
        self.fetched()
        words = f"oci.insecure=1,oci.platform=linux/amd64,oci.store={self.store}" + words
        done = subprocess.run([TOOL, "cat", "-v", "-o", words, image or self.image, "/etc/passwd"],
                              capture_output=True, timeout=60)
        self.said = done.stderr.decode()
        self.assertEqual(done.returncode, 0, self.said)
        self.assertEqual(done.stdout, b"root:x:0:0\nuser:x:1:1\n")
        return self.fetched()

    def signed(self, key=None):
        return f",oci.index=signed,oci.index_key={key or self.public}"


class PushTest(PushBase):
    def uses_it(self, words, image=None):
        self.assertLess(self.first_contact(words, image), self.layer_bytes / 4, self.said)
        self.assertIn(": indexed by", self.said)

    def reads_the_layers(self, words="", image=None):
        self.assertGreater(self.first_contact(words, image), self.layer_bytes / 2, self.said)
        self.assertNotIn(": indexed by", self.said)

    # ---- who believes what

    def test_a_signed_index(self):
        self.start()
        told, = self.push("--sign-key", self.key)
        self.assertTrue(told["signed"])
        self.assertEqual({index["push"] for index in told["indexes"]}, {"uploaded"})
        self.uses_it(self.signed())
        self.uses_it(f",oci.index_key={self.public}")  # bound, the default
        # What has been claimed for this image is there the next time, whatever becomes of the registry.
        self.assertTrue(os.listdir(os.path.join(self.store, "claimed")))
        self.assertEqual(os.listdir(os.path.join(self.store, "read")), [])

    def test_without_a_signature(self):
        self.start()
        self.push()
        for words in ("", ",oci.index=bound", self.signed(), ",oci.index=none"):
            self.reads_the_layers(words)
        self.uses_it(",oci.index=trusted")
        self.assertIn("which nobody has signed", self.said)
        self.assertFalse(os.listdir(os.path.join(self.store, "claimed")))
        digest = self.push()[0]["subject"]
        self.reads_the_layers(",oci.index=trusted", f"{self.host}/app@{digest}")

    def test_a_merkle_tree(self):
        self.start()
        told, = self.push("--verity", "--sign-key", self.key)
        [tree] = [part for part in told["indexes"] if "tree" in part]
        self.assertEqual(tree["push"], "uploaded")
        blob = pathlib.Path(self.image_layout, "blobs/sha256", tree["tree"][7:]).read_bytes()
        [kept] = pathlib.Path(self.first, "images").glob("*/verity")
        self.assertTrue(blob == kept.read_bytes())
        artifact = json.loads(pathlib.Path(
            self.image_layout, "blobs/sha256", told["artifact"][7:]).read_text())
        part = artifact["layers"][-1]
        self.assertEqual(part["mediaType"], "application/vnd.erofs-oci.verity.v1")
        self.assertEqual(part["annotations"]["dev.erofs-oci.verity.root"],
                         "sha256:" + tree["root_hash"])
        # The indexes are used as without it, and the tree is not fetched unless it is required.
        self.uses_it(self.signed())
        self.assertFalse(list(pathlib.Path(self.store, "images").glob("*/verity")))
        again, = self.push("--verity", "--sign-key", self.key)
        self.assertEqual(again["artifact"], told["artifact"])

    def test_another_key(self):
        self.start()
        self.push("--sign-key", self.key)
        other = os.path.join(self.dir, "other.pub")
        secret = os.path.join(self.dir, "other.key")
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", secret)
        run("openssl", "pkey", "-in", secret, "-pubout", "-out", other)
        self.reads_the_layers(self.signed(other))
        # A second signature serves those who have the second key.
        self.push("--sign-key", secret)
        self.uses_it(self.signed(other))
        self.uses_it(self.signed())

    # ---- proof

    def lie(self):
        """In the store of who makes the index, /etc/passwd has another name, and all digests fit."""
        changed = 0
        for entry in pathlib.Path(self.first, "read").iterdir():
            tarindex, index = (entry / "tarindex").read_bytes(), (entry / "index").read_bytes()
            lying = tarindex.replace(b"passwd", b"passwe")
            header = bytearray(index[:256])
            header[112:144] = hashlib.sha256(lying).digest()
            (entry / "tarindex").write_bytes(lying)
            (entry / "index").write_bytes(
                header + hashlib.sha256(header).digest() + index[288:])
            changed += lying != tarindex
        self.assertEqual(changed, 2)

    def verify(self, words, status):
        return self.json_lines("verify", "--json", words=words, status=status)

    def test_a_proved_index_counts_for_all_images(self):
        self.start()
        self.push("--sign-key", self.key)
        self.uses_it(self.signed())
        self.assertEqual(os.listdir(os.path.join(self.store, "read")), [])
        self.assertEqual([layer["proved"] for layer in self.verify(self.signed(), 0)], [True] * 3)
        self.assertEqual(len(os.listdir(os.path.join(self.store, "read"))), 3)
        self.assertEqual(self.run_tool("verify").decode().count(": proved\n"), 3)

    def test_an_index_that_lies_is_found_and_replaced(self):
        self.start()
        self.run_tool("index", words=f",oci.store={self.first}")
        self.lie()
        self.push("--sign-key", self.key)
        names = lambda: self.run_tool("ls", "/etc", words=self.signed()).decode().split()
        self.assertIn("passwe", names())  # that is what a key is trusted for

        layers = self.verify(self.signed(), 1)
        self.assertEqual([layer["proved"] for layer in layers], [False, False, True])
        for layer in layers[:2]:
            self.assertEqual(layer["problem"],
                             "its index is wrong: /etc: other names in this directory")
        self.assertEqual(names(), ["link", "passwd", "secret"])
        self.assertEqual([layer["proved"] for layer in self.verify(self.signed(), 0)], [True] * 3)

    def test_files_that_lie_are_found(self):
        self.start()
        self.run_tool("index", words=f",oci.store={self.first}")
        self.lie()
        files = os.path.join(self.dir, "files")
        self.run_tool("index", "--output", files, words=f",oci.store={self.first}")
        layers = self.verify(f",oci.index={files}", 1)
        self.assertEqual([layer["proved"] for layer in layers], [False, False, True])

    def test_a_registry_that_sends_other_bytes_is_found(self):
        self.start()
        self.run_tool("index")
        digest = self.manifest()["layers"][1]["digest"]
        blob = pathlib.Path(self.image_layout, "blobs/sha256", digest[7:])
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
        layers = self.verify(",oci.cache_dir=none", 1)
        self.assertEqual([layer["proved"] for layer in layers], [True, False, True])
        self.assertRegex(layers[1]["problem"], "^its bytes are sha256:")

    def test_an_index_of_another_image_is_not_used(self):
        self.start()
        told, = self.push("--sign-key", self.key)
        # The registry claims that the artifact refers to another image.
        other = images.layout_of(os.path.join(self.dir, "second"), [images.Layer().file(
            "etc/passwd", b"root:x:0:0\nuser:x:1:1\n").file("more", images.noise(100_000, b"x"))])
        for blob in pathlib.Path(other, "blobs/sha256").iterdir():
            shutil.copy(blob, os.path.join(self.image_layout, "blobs/sha256"))
        entry = json.loads(pathlib.Path(other, "index.json").read_text())["manifests"][0]
        artifact = pathlib.Path(self.image_layout, "blobs/sha256", told["artifact"][7:]).read_text()
        lie = artifact.replace(told["subject"], entry["digest"])
        self.assertNotEqual(lie, artifact)
        run("curl", "-sf", "-X", "PUT", "-H", "Content-Type: application/vnd.oci.image.manifest.v1+json",
            "--data-binary", lie, f"http://{self.host}/v2/app/manifests/lie")
        self.layer_bytes = 100_000
        self.reads_the_layers(self.signed(), f"{self.host}/app@{entry['digest']}")

    # ---- where

    def test_without_the_referrers_api(self):
        self.start("--no-referrers")
        self.push("--sign-key", self.key)
        self.uses_it(self.signed())

    def test_debians_registry(self):
        self.need("docker-registry", "skopeo")
        port = servers.docker_registry(self, self.dir, "debian", os.path.join(self.dir, "data"))
        self.host = f"localhost:{port}"
        self.image = f"{self.host}/app:v1"
        run("skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false",
            f"oci:{self.image_layout}:v1", f"docker://{self.image}")
        self.push("--sign-key", self.key)
        again, = self.push()
        self.assertEqual({index["push"] for index in again["indexes"]}, {"was there"})
        words = self.signed()
        done = subprocess.run([TOOL, "cat", "-v", "-o", f"oci.insecure,oci.platform=linux/amd64,"
                               f"oci.store={self.store}{words}", self.image, "/etc/passwd"],
                              capture_output=True, timeout=60)
        self.assertEqual(done.stdout, b"root:x:0:0\nuser:x:1:1\n")
        self.assertEqual(done.stderr.count(b"which is signed"), 3)
        # Another repository of the same registry gets the blobs without an upload.
        mounted, = self.push("--to", f"{self.host}/copy", "--mount-from", "app")
        self.assertEqual({index["push"] for index in mounted["indexes"]}, {"mounted"})

    def test_a_layout_to_a_registry(self):
        self.start()
        image = f"oci:{self.image_layout}:v1"
        self.run_tool("index", "--push", image=image, status=1)
        self.assertIn("--to", self.said)
        told, = self.push("--to", f"{self.host}/app", "--sign-key", self.key, image=image)
        self.assertEqual(told["repository"], f"{self.host}/app")
        self.uses_it(self.signed())

    def test_a_login_may_pull_and_not_push(self):
        self.start("--username", "me", "--password-file", self.secret("password"), "--token-ttl", "60")
        login = f",oci.username=me,oci.password_file={self.secret('password')}"
        self.push("--sign-key", self.key, words=login)
        shutil.rmtree(self.store, ignore_errors=True)
        self.run_tool("cat", "/etc/passwd", words=self.signed() + login)
        done = subprocess.run([TOOL, "index", "--push", "-o", "oci.insecure,oci.platform=linux/amd64",
                               self.image], capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"not authorized", done.stderr)

    def test_all_platforms(self):
        layout = os.path.join(self.dir, "platforms")
        two_platforms(layout, [layer.save(os.path.join(self.dir, f"layer{i}"))
                               for i, layer in enumerate(self.layers)])
        self.image_layout = layout
        self.start()
        done = subprocess.run([TOOL, "index", "--push", "--all-platforms", "--json", "-o",
                               f"oci.insecure,oci.store={self.first}", self.image],
                              capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        told = [line for line in map(json.loads, done.stdout.splitlines()) if "artifact" in line]
        self.assertEqual([line["platform"] for line in told], ["linux/amd64", "linux/arm64"])
        self.uses_it(",oci.index=trusted")

    def test_a_dry_run_pushes_nothing(self):
        self.start()
        told, = self.push("--dry-run", "--sign-key", self.key)
        self.assertEqual(len(told["indexes"]), 3)
        self.assertEqual(self.stats(self.host)["uploads"], 0)
        really, = self.push()
        self.assertEqual(really["artifact"], told["artifact"])
        text = self.run_tool("index", "--push", "--dry-run", words=f",oci.store={self.first}").decode()
        self.assertIn(f"Would push to {self.host}/app:  {told['artifact']}, which refers to "
                      f"{told['subject']}", text)

    def test_files(self):
        self.start()
        out = os.path.join(self.dir, "indexes")
        self.run_tool("index", "--output", out, words=f",oci.store={self.first}")
        self.uses_it(f",oci.index={out}")
        # Those of another layer are not used.
        names = sorted(name for name in os.listdir(out) if name.endswith(".index"))
        shutil.copy(os.path.join(out, names[0]), os.path.join(out, names[1]))
        shutil.copy(os.path.join(out, names[0]), os.path.join(out, names[2]))
        self.first_contact(f",oci.index={out}")
        self.assertEqual(self.said.count(": indexed by"), 1)
        self.assertIn("parts do not belong together", self.said)

    # ---- a directory in place of a registry

    def test_a_layout_of_indexes(self):
        self.start()
        out = os.path.join(self.dir, "out")
        self.run_tool("index", "--output", f"oci:{out}", words=f",oci.store={self.first}")
        again = self.json_lines("index", "--output", f"oci:{out}", "--json",
                                words=f",oci.store={self.first}")[-1]
        self.assertEqual({index["push"] for index in again["indexes"]}, {"was there"})
        # Who names it asks for it, for this mount alone; unless a signature is asked for.
        self.uses_it(f",oci.index=oci:{out}")
        self.assertIn("which nobody has signed", self.said)
        self.assertFalse(os.listdir(os.path.join(self.store, "claimed")))
        self.reads_the_layers(f",oci.index=oci:{out}" + self.signed())
        self.reads_the_layers(f",oci.index=oci:{out},oci.index=none")

        signed, = [line for line in self.json_lines(
            "index", "--output", f"oci:{out}", "--json", "--sign-key", self.key,
            words=f",oci.store={self.first}") if "artifact" in line]
        self.assertEqual(signed["artifact"], again["artifact"])
        self.uses_it(f",oci.index=oci:{out}" + self.signed())
        self.assertEqual(len(os.listdir(os.path.join(self.store, "claimed"))), 3)
        self.assertEqual(self.stats(self.host)["uploads"], 0)

        # Its files are checked against their digests.
        for index in signed["indexes"]:
            blob = pathlib.Path(out, "blobs/sha256", index["index"][7:])
            data = bytearray(blob.read_bytes())
            data[len(data) // 2] ^= 1
            blob.write_bytes(data)
        self.reads_the_layers(f",oci.index=oci:{out}" + self.signed())
        self.assertIn("no index from", self.said)

    def test_indexes_beside_the_image_in_its_layout(self):
        self.start()
        image = f"oci:{self.image_layout}"
        self.run_tool("index", "--output", image, image=image, words=f",oci.store={self.first}")
        index = json.loads(pathlib.Path(self.image_layout, "index.json").read_text())
        self.assertEqual(len(index["manifests"]), 2)
        # The image is still the only one there.
        self.first_contact(f",oci.index=oci:{self.image_layout}", image)
        self.assertEqual(self.said.count(": indexed by"), 3)

    def test_an_index_for_a_dry_run_makes_no_layout(self):
        self.start()
        out = os.path.join(self.dir, "out")
        self.run_tool("index", "--output", f"oci:{out}", "--dry-run",
                      words=f",oci.store={self.first}")
        self.assertFalse(os.path.exists(out))

    def test_a_layout_that_is_none(self):
        self.start()
        out = os.path.join(self.dir, "out")
        os.mkdir(out)
        self.reads_the_layers(f",oci.index=oci:{out}")
        self.assertIn("no index from", self.said)
        pathlib.Path(out, "oci-layout").write_text("{}")
        self.run_tool("index", "--output", f"oci:{out}", words=f",oci.store={self.first}", status=2)

    # ---- what is not there

    def test_that_there_is_no_index_is_remembered(self):
        self.start()
        cache = os.path.join(self.dir, "cache")
        words = f",oci.index=trusted,oci.cache_dir={cache}"

        def requests():
            before = self.stats(self.host)["requests"]
            self.first_contact(words)
            return self.stats(self.host)["requests"] - before

        first = requests()
        # Neither ours nor SOCI's is asked for again.
        self.assertEqual(requests(), 1)  # what the tag means; the layers are in the cache
        self.assertGreaterEqual(first, 3)
        # An hour later it is.
        notes = list(pathlib.Path(cache, "absent-1").iterdir())
        self.assertEqual(len(notes), 2)
        for note in notes:
            os.utime(note, (note.stat().st_atime, note.stat().st_mtime - 3601))
        self.assertEqual(requests(), 3)

        # Another machine has pushed one: `pull` asks for it.
        self.push()
        self.assertEqual(requests(), 1)
        self.assertNotIn(": indexed by", self.said)
        shutil.rmtree(self.store)
        done = subprocess.run([TOOL, "pull", "-v", "-o", f"oci.insecure,oci.platform=linux/amd64,"
                               f"oci.store={self.store}{words}", self.image], capture_output=True,
                              timeout=60)
        self.assertEqual(done.stderr.count(b": indexed by"), 3)

    def test_who_pushes_knows_that_there_is_an_index(self):
        self.start()
        words = f",oci.index=trusted,oci.cache_dir={os.path.join(self.dir, 'cache')}"
        self.reads_the_layers(words)
        self.push(words=words)
        self.uses_it(words)

    # ---- wrong command lines

    def test_wrong_words(self):
        self.start()
        for options, text in ((["--sign-key", self.key], "belong to --push"),
                              (["--with-start-list"], "belong to --push"),
                              (["--push", "--output", "oci:/x"], "mean a registry"),
                              (["--push", "--sign-key", self.public], "no private key"),
                              (["--push", "--sign-key", "/nowhere"], "No such file")):
            done = subprocess.run([TOOL, "index", *options, self.image], capture_output=True, text=True,
                                  timeout=60)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(text, done.stderr)
        for words, text in ((f",oci.index_key={self.key}", "no public key"),
                            (",oci.index=oci:some", "not oci: and an absolute path"),
                            (",oci.index=some", "none of none, signed, bound, trusted")):
            done = subprocess.run([TOOL, "ls", "-o", "oci.insecure" + words, self.image],
                                  capture_output=True, text=True, timeout=60)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(text, done.stderr)


if __name__ == "__main__":
    unittest.main()
