# SPDX-License-Identifier: Apache-2.0
"""mount-oci serve: the right bytes, or an error that names its cause, in time."""
import base64
import gzip
import json
import os
import re
import signal
import subprocess
import time
import unittest

from support import PASSWORD, TOOL, LAYERS, Running, ToolTest, digest, expected_image, path, read


class ServeTest(ToolTest):
    def assert_serves(self, image, words, name, *options):
        server = self.serve(image, words, *options)
        self.assertTrue(self.copy(server.line) == expected_image(name), "other bytes than expected")
        return server

    # ---- the right bytes

    def test_layers_of_a_registry(self):
        host = self.registry()
        for name in LAYERS:
            with self.subTest(name):
                server = self.assert_serves(f"{host}/app:v1", self.words(name), name)
                self.assertEqual(server.end(), (0, ""))
                self.assertEqual(os.listdir(self.dir), ["copy"])  # the socket is gone

    def test_references(self):
        host = self.registry()
        blob = digest(read(path("ckpt.tar.gz")))
        for image, words in [
                (f"{host}/app@{self.top}", self.words("ckpt")),
                (f"{host}/app:v1", self.words("ckpt", layer=None, blob=blob)),
                (f"{host}/app:v1", self.words("ckpt", layer=None, blob=blob[7:])),
                (f"{host}/app:v1", self.words("ckpt", platform="linux/amd64")),
                (f"oci:{self.layout}:v1", self.words("ckpt")),
                (f"oci:{self.layout}@{self.top}", self.words("ckpt")),
                (f"oci:{self.layout}", self.words("ckpt"))]:
            with self.subTest(image=image, words=words):
                self.assert_serves(image, words, "ckpt").end()

    def test_the_only_layer_needs_no_name(self):
        self.assert_serves(f"oci:{self.layout}", self.words(
            "basic", layer=None, platform="linux/arm64"), "basic").end()

    def test_four_forms(self):
        tar = os.path.join(self.dir, "tar")
        with open(tar, "wb") as file:
            file.write(gzip.decompress(read(path("basic.tar.gz"))))
        native = bytearray(read(path("gz-basic.erofs")))
        native[1032] &= 0xFE  # no checksum
        native[1110:1112] = b"\0\0"  # no extra device
        image = os.path.join(self.dir, "native")
        with open(image, "wb") as file:
            file.write(native)
        packed = os.path.join(self.dir, "native.gz")
        with open(packed, "wb") as file:
            file.write(gzip.compress(native, mtime=0))
        zinfo = os.path.join(self.dir, "zinfo")  # one checkpoint, behind the header of 10 bytes
        with open(zinfo, "wb") as file:
            file.write((1).to_bytes(4, "little") + bytes(8) + (10).to_bytes(8, "little") + bytes(8) +
                       bytes(1) + bytes(32768))
        tarindex = path("gz-basic.erofs")
        for image_name, words, expected in [
                (path("basic.tar.gz"), f"oci.tarindex={tarindex},oci.zinfo={path('gz-basic.zinfo')}",
                 expected_image("basic")),
                (tar, f"oci.tarindex={tarindex}", expected_image("basic")),
                ("file:" + packed, f"oci.zinfo={zinfo}", bytes(native)),
                (image, "ro", bytes(native))]:
            with self.subTest(image_name):
                server = self.serve(image_name, words)
                self.assertTrue(self.copy(server.line) == expected)
                server.end()

    def test_tcp(self):
        host = self.registry()
        server = Running(self, "serve", "--listen", "127.0.0.1:0", "-o", self.words("basic"),
                         f"{host}/app:v1")
        self.assertRegex(server.line, r"^nbd://127\.0\.0\.1:[0-9]+$")
        self.assertTrue(self.copy(server.line, "--connections=4") == expected_image("basic"))
        self.assertEqual(server.end(signal.SIGINT)[0], 0)

    def test_qemu_reads_the_same(self):
        self.need("qemu-img")
        host = self.registry()
        server = self.serve(f"{host}/app:v1", self.words("ckpt"))
        out = os.path.join(self.dir, "out")
        subprocess.run(["qemu-img", "convert", "-O", "raw", server.line, out], check=True, timeout=60)
        self.assertTrue(read(out) == expected_image("ckpt"))

    def test_one_request_a_span(self):
        host = self.registry()
        server = self.assert_serves(f"{host}/app:v1", self.words("ckpt"), "ckpt")
        seen = self.stats(host)
        blob = len(read(path("ckpt.tar.gz")))
        # Four spans, and one look at the blob's first bytes.
        self.assertLessEqual(seen["range_requests"], 5)
        self.assertLessEqual(seen["bytes"], blob * 1.02 + 4096)
        server.end()

    # ---- logins

    def test_logins(self):
        for options in ([], ["--token-ttl", "1"], ["--redirect-blobs"],
                        ["--token-ttl", "1", "--redirect-blobs", "--redirect-ttl", "1"]):
            with self.subTest(options):
                host = self.registry("--username", "u", "--password-file", self.secret(), *options)
                words = self.words("ckpt", username="u", password_file=self.secret())
                server = self.serve(f"{host}/app:v1", words)
                time.sleep(1.2 if "1" in options else 0)  # tokens and URLs are old by now
                self.assertTrue(self.copy(server.line) == expected_image("ckpt"))
                self.assertEqual(self.stats(host)["leaked_credentials"], 0)
                self.assertEqual(server.end(), (0, ""))

    def test_secrets_stay_secret(self):
        host = self.registry("--username", "u", "--password-file", self.secret("hunter2,"))
        server = self.serve(f"{host}/app:v1", self.words("ckpt", username="u", password='"hunter2,"'),
                            "-d", "9")
        self.assertTrue(self.copy(server.line) == expected_image("ckpt"))
        process = f"/proc/{server.process.pid}"
        self.assertNotIn(b"hunter2", read(process + "/cmdline"))
        self.assertNotIn(b"hunter2", read(process + "/environ"))
        self.assertIn(b"oci.layer=1", read(process + "/cmdline"))
        status, said = server.end()
        self.assertEqual(status, 0)
        self.assertNotIn("hunter2", said)

    def test_a_wrong_password_is_named_but_not_shown(self):
        for options in ([], ["--token-ttl", "60"]):
            host = self.registry("--username", "u", "--password-file", self.secret(), *options)
            words = self.words("ckpt", username="u", password="hunter2")
            status, message = self.serve_refused(f"{host}/app:v1", words)
            self.assertEqual(status, 2)
            self.assertIn("not authorized", message)
            self.assertNotIn("hunter2", message)
            status, message = self.serve_refused(f"{host}/app:v1", self.words("ckpt"))
            self.assertIn("not authorized", message)

    def test_logins_of_docker_are_used(self):
        host = self.registry("--username", "u", "--password-file", self.secret())
        auth = base64.b64encode(f"u:{PASSWORD}".encode()).decode()
        with open(os.path.join(self.dir, "config.json"), "w") as file:
            json.dump({"auths": {host: {"auth": auth}}}, file)
        server = self.serve(f"{host}/app:v1", self.words("ckpt"),
                            env={**os.environ, "DOCKER_CONFIG": self.dir})
        self.assertTrue(self.copy(server.line) == expected_image("ckpt"))

    def test_a_private_authority(self):
        self.need("openssl")
        cert, key = os.path.join(self.dir, "cert.pem"), os.path.join(self.dir, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=test",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
                       check=True, capture_output=True)
        host = self.registry("--cert", cert, "--key", key, "--username", "u", "--password-file",
                             self.secret(), "--token-ttl", "60", "--redirect-blobs")
        words = self.words("ckpt", insecure=None, username="u", password_file=self.secret())
        os.chdir(self.dir)  # paths may be relative
        self.addCleanup(os.chdir, "/")
        self.assert_serves(f"{host}/app:v1", words + ",oci.ca=cert.pem", "ckpt").end()
        status, message = self.serve_refused(f"{host}/app:v1", words)
        self.assertEqual(status, 2)
        self.assertRegex(message, "TLS.*certificate")

    def test_mirrors(self):
        mirror = self.registry()
        server = self.assert_serves("127.0.0.1:1/app:v1", self.words("ckpt", mirror=mirror), "ckpt")
        server.end()
        host = self.registry()
        self.assert_serves(f"{host}/app:v1", self.words("ckpt", mirror="http://127.0.0.1:1"),
                           "ckpt").end()
        host = self.registry()
        mirror = self.registry("--fault", "wrong-total")
        self.assert_serves(f"{host}/app:v1", self.words("ckpt", mirror=mirror), "ckpt").end()

    # ---- a registry that misbehaves

    def test_passing_failures_pass(self):
        for options in (["--fail-every", "2"], ["--fail-every", "3:429"], ["--fail-every", "2:500"],
                        ["--fault", "short:2"], ["--fault", "reset:2"], ["--fault", "ignore-range"],
                        ["--latency", "30", "--bandwidth", "4M"]):
            with self.subTest(options):
                host = self.registry(*options)
                server = self.assert_serves(f"{host}/app:v1", self.words("ckpt"), "ckpt")
                self.assertEqual(server.end()[0], 0)
                self.server.end()

    def test_wrong_answers_are_refused(self):
        for kind, text in [("wrong-range", "from offset 1"), ("wrong-total", "1002464"),
                           ("encoded", "packed the content")]:
            with self.subTest(kind):
                host = self.registry("--fault", kind)
                status, message = self.serve_refused(f"{host}/app:v1", self.words("ckpt", timeout=3))
                self.assertEqual(status, 2)
                self.assertIn(text, message)
                self.assertIn(digest(read(path("ckpt.tar.gz"))), message)

    def test_failures_after_the_start_are_errors_of_reads_and_the_server_goes_on(self):
        self.need("nbdinfo")
        host = self.registry()
        server = self.serve(f"{host}/app:v1", self.words("ckpt", timeout=2, cache="1M"))
        self.server.kill()
        start = time.monotonic()
        self.assertIsNone(self.copy(server.line))
        self.assertLess(time.monotonic() - start, 10)
        self.assertEqual(subprocess.run(["nbdinfo", "--size", server.line], capture_output=True,
                                        text=True).stdout.strip(), str(len(expected_image("ckpt"))))
        status, said = server.end()
        self.assertEqual(status, 0)
        self.assertRegex(said, r"read of [0-9]+ bytes at offset [0-9]+: .*cannot connect")

    def test_a_registry_that_never_answers_costs_no_more_than_the_deadline(self):
        host = self.registry("--fault", "hang")
        start = time.monotonic()
        status, message = self.serve_refused(f"{host}/app:v1", self.words("ckpt", timeout=2))
        self.assertLess(time.monotonic() - start, 6)
        self.assertEqual(status, 2)
        self.assertIn("deadline exceeded", message)

    # ---- what does not belong together

    def test_messages(self):
        host = self.registry()
        good = f"{host}/app:v1"
        nowhere = os.path.join(self.dir, "nowhere")
        missing = "sha256:" + 64 * "0"
        cases = [
            (good, self.words("ckpt", tarindex=nowhere), 2,
             rf"oci\.tarindex: {nowhere}: No such file or directory"),
            (good, self.words("ckpt", zinfo=nowhere), 2, rf"oci\.zinfo: {nowhere}: No such file"),
            (good, self.words("ckpt", zinfo=path("gz-multi.zinfo")), 2, "span [0-9]+"),
            (good, self.words("basic", zinfo=path("gz-ckpt.zinfo")), 2, "last checkpoint"),
            (good, self.words("ckpt", tarindex=path("gz-basic.erofs")), 2, "where the tarindex ends it"),
            (good, self.words("basic", tarindex=path("gz-ckpt.erofs")), 2, "the tarindex describes"),
            (good, self.words("ckpt", tarindex=path("gz-ckpt.zinfo")), 2, "no EROFS superblock"),
            (good, self.words("ckpt", zinfo=path("gz-ckpt.erofs")), 2, "zinfo"),
            (good, self.words("ckpt", zinfo=None), 2, "gzip; give the zinfo"),
            (good, self.words("ckpt", tarindex=None), 2, "must be an EROFS image"),
            (good, self.words("ckpt", layer=3), 1, r"layer index 3 out of range \(0\.\.2\)"),
            (good, self.words("ckpt", layer=None), 1, r"the image has 3 layers \(0\.\.2\)"),
            (good, self.words("ckpt", layer=None, blob=missing), 2,
             f"layer digest {missing} not found in image layers"),
            (good, self.words("ckpt", platform="linux/s390x"), 2, "linux/s390x.*linux/amd64, linux/arm64"),
            (f"{host}/app:v2", self.words("ckpt"), 2, "/v2/app/manifests/v2.*not found"),
            (f"{host}/app@{missing}", self.words("ckpt"), 2, "not found"),
            (f"{host}/APP:v1", self.words("ckpt"), 1, "APP"),
            (f"docker.io/app:v1", self.words("ckpt"), 1, "never used over http"),
            ("127.0.0.1:1/app", self.words("ckpt"), 2, "127.0.0.1:1.*cannot connect"),
            (good, self.words("ckpt", insecure=0), 2, host),  # https to an http port
            (good, self.words("ckpt", insecure=0, ca=nowhere), 2, "oci.ca"),
            (f"oci:{self.layout}:v9", self.words("ckpt"), 2, "v9.*v1"),
            (f"oci:{nowhere}", self.words("ckpt"), 2, "oci-layout: No such file"),
            (f"file:{nowhere}", "ro", 2, "No such file"),
            ("/dev/zero", "ro", 2, "neither a regular file nor a block device"),
        ]
        for image, words, status, text in cases:
            with self.subTest(image=image, words=words):
                got, message = self.serve_refused(image, words)
                self.assertRegex(message, text)
                self.assertEqual(got, status, message)
                self.assertEqual(message.count("\n"), 0, message)  # once
                self.assertTrue(message.startswith("mount-oci: "))
        if os.environ.get("SHOW_MESSAGES"):
            for image, words, *_ in cases:
                print(self.serve_refused(image, words)[1])

    def test_help_and_version(self):
        for command in ([], *[[word] for word in (
                "mount", "umount", "serve", "registry", "index", "ls", "cat", "stat", "find", "extract",
                "fsck", "image")]):
            done = subprocess.run([TOOL, *command, "--help"], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("SYNOPSIS", done.stdout)
            self.assertLessEqual(max(map(len, done.stdout.splitlines())), 110)
        done = subprocess.run([TOOL, "--version"], capture_output=True, text=True)
        self.assertRegex(done.stdout, r"^mount-oci \(erofs_oci\) [0-9]+\.[0-9]+\.[0-9]+\n$")
        status, message = self.refused("--wrong")
        self.assertEqual(status, 1)
        self.assertTrue(re.search(r"unexpected argument: --wrong\nTry '.*--help'", message))


if __name__ == "__main__":
    unittest.main()
