# SPDX-License-Identifier: Apache-2.0
"""mount-oci serve: the right bytes, or an error that names its cause, in time."""
import base64
import contextlib
import gzip
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import tarfile
import threading
import time
import unittest

import images
from support import (PASSWORD, TOOL, LAYERS, UNPROVED, Running, ToolTest, digest, expected_image,
                     make_layout, path, read)


class ServeTest(ToolTest):
    def http_server(self, handler):
        """Start a server on a port of its own that logs nothing; the test's end stops it."""
        handler.log_message = lambda *_: None
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server

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

    def erofs_image(self, *options):
        self.need("mkfs.erofs")
        source, image = os.path.join(self.dir, "source"), os.path.join(self.dir, "native")
        os.makedirs(source, exist_ok=True)
        for name, size in (("small", 10), ("large", 300_000)):
            with open(os.path.join(source, name), "wb") as file:
                file.write(images.noise(size))
        subprocess.run(["mkfs.erofs", *options, image, source], check=True, capture_output=True)
        return image

    def native_layout(self, image):
        layout = os.path.join(self.dir, "layout")
        make_layout.make_layout([image], layout, tag="v1", media_type="application/x.erofs")
        return layout, os.path.join(layout, "blobs", "sha256", digest(read(image)).split(":")[1])

    def test_an_erofs_image_is_served_as_it_is_only_if_asked_for(self):
        image = self.erofs_image()  # with data in inodes
        layout, _ = self.native_layout(image)
        _, message = self.serve_refused(f"oci:{layout}:v1", "oci.store=none")
        self.assertIn("-o oci.native=yes", message)
        server = self.serve(f"oci:{layout}:v1", "oci.native=yes,oci.store=none")
        self.assertTrue(self.copy(server.line) == read(image))
        self.assertRegex(server.end(warned=False)[1], UNPROVED)

    def test_an_erofs_image_is_indexed_like_a_tar(self):
        image = self.erofs_image("-Eforce-inode-extended,noinline_data")
        layout, blob = self.native_layout(image)
        store = os.path.join(self.dir, "store")
        server = self.serve(f"oci:{layout}:v1", f"oci.store={store}")
        served = self.copy(server.line)
        self.assertEqual(server.end(), (0, ""))
        self.assertTrue(served != read(image) and images.noise(300_000) in served)
        # As it is, but with what the index tells of its bytes.
        words = f"oci.native=yes,oci.store={store}"
        server = self.serve(f"oci:{layout}:v1", words)
        self.assertTrue(self.copy(server.line) == read(image))
        self.assertEqual(server.end(warned=False), (0, ""))
        wrong = bytearray(read(image))
        at = wrong.index(images.noise(300_000)) + 123_456
        wrong[at] ^= 1
        with open(blob, "wb") as file:
            file.write(wrong)
        _, message = self.serve_refused(f"oci:{layout}:v1", words)
        piece = at // 32768 * 32768
        right = digest(read(image)[piece:piece + 32768])
        self.assertIn(f"bytes {piece} to {piece + 32768}: not {right}: digest mismatch", message)

    def test_a_damaged_erofs_image_is_given_to_no_kernel(self):
        image = self.erofs_image("-Enosbcrc")
        damaged = bytearray(read(image))
        at = damaged.index(b"largesmall")  # names of the root directory
        damaged[at:at + 10] = b"zargesmall"
        with open(image, "wb") as file:
            file.write(damaged)
        _, message = self.serve_refused(image, "oci.native")
        self.assertIn("names out of order", message)

    def test_wrong_bytes_are_found_once_all_are_read(self):
        good = gzip.decompress(read(path("ckpt.tar.gz")))
        tar, layout = os.path.join(self.dir, "tar"), os.path.join(self.dir, "layout")
        with open(tar, "wb") as file:
            file.write(good)
        make_layout.make_layout([tar], layout, tag="v1",
                                media_type="application/vnd.oci.image.layer.v1.tar")
        wrong = bytearray(good)
        wrong[len(good) // 2] ^= 16
        with open(os.path.join(layout, "blobs", "sha256", digest(good).split(":")[1]), "wb") as file:
            file.write(wrong)
        for verify in "lazy", "background":
            with self.subTest(verify):
                server = self.serve(f"oci:{layout}:v1", f"oci.tarindex={path('gz-ckpt.erofs')},"
                                                        f"oci.verify={verify},oci.store=none")
                self.copy(server.line)  # its last reads may be told already
                self.assertIsNone(self.copy(server.line))
                said = server.end(warned=False)[1]
                self.assertRegex(said, UNPROVED)
                self.assertIn(f"bytes are {digest(wrong)}, not {digest(good)}", said)
        server = self.serve(f"oci:{layout}:v1", f"oci.tarindex={path('gz-ckpt.erofs')},"
                                                "oci.verify=off,oci.store=none")
        self.assertTrue(bytes(wrong[:1_000_000]) in self.copy(server.line))
        self.assertEqual(server.end(warned=False), (0, ""))

    def test_four_forms(self):
        tar = os.path.join(self.dir, "tar")
        with open(tar, "wb") as file:
            file.write(gzip.decompress(read(path("basic.tar.gz"))))
        image = self.erofs_image()
        native = read(image)
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
                (image, "oci.native", bytes(native))]:
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
            self.assertRegex(message, 'user "u" from oci.username.*: not authorized$')
            self.assertNotIn("hunter2", message)
            status, message = self.serve_refused(f"{host}/app:v1", self.words("ckpt"))
            self.assertRegex(message, "wants a user name and password$|not authorized$")

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
        mirror = "http://" + self.registry()
        words = self.words("ckpt", mirror=mirror + ";resolve")
        self.assert_serves("127.0.0.1:1/app:v1", words, "ckpt").end()
        # A tag is the registry's to explain, and it is not there.
        status, message = self.serve_refused("127.0.0.1:1/app:v1", self.words("ckpt", mirror=mirror))
        self.assertIn("127.0.0.1:1", message)
        host = self.registry()
        self.assert_serves(f"{host}/app:v1", self.words("ckpt", mirror="http://127.0.0.1:1"),
                           "ckpt").end()
        host = self.registry()
        mirror = "http://" + self.registry("--fault", "wrong-total")
        self.assert_serves(f"{host}/app:v1", self.words("ckpt", mirror=mirror), "ckpt").end()

    def test_a_mirror_never_gets_the_registrys_password(self):
        secret = self.secret()
        host = self.registry("--username", "u", "--password-file", secret)
        sent = []

        class Mirror(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                sent.append((self.path, self.headers.get("Authorization")))
                self.send_response(self.server.status)
                self.send_header("WWW-Authenticate", self.server.challenge)
                self.send_header("Content-Length", "0")
                self.end_headers()

        server = self.http_server(Mirror)
        name = f"http://127.0.0.1:{server.server_address[1]}"
        words = self.words("ckpt", username="u", password_file=secret, mirror=f"{name};resolve")
        for challenge in ("Basic realm=x", f'Bearer realm="{name}/token",service="s"',
                          f'Bearer realm="{name}/token",scope="repository:app:push"'):
            for server.status in (401, 403):
                with self.subTest(challenge=challenge, status=server.status):
                    server.challenge = challenge
                    sent.clear()
                    self.assert_serves(f"{host}/app:v1", words, "ckpt").end()
                    self.assertGreater(len(sent), 0)
                    self.assertEqual({value for _, value in sent}, {None})

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

    def test_a_server_that_drips_is_given_up(self):
        host = self.registry()

        class Drip(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                headers = {name: value for name, value in self.headers.items() if name != "Host"}
                with contextlib.closing(http.client.HTTPConnection(host)) as upstream:
                    upstream.request("GET", self.path, headers=headers)
                    answer = upstream.getresponse()
                    self.send_response(answer.status)
                    for name in "Content-Type", "Content-Range", "Content-Length":
                        if name in answer.headers:
                            self.send_header(name, answer.headers[name])
                    self.end_headers()
                    body = answer.read()
                if not self.server.drips or "/blobs/" not in self.path:
                    self.wfile.write(body)
                    return
                try:
                    for at in range(0, len(body), 10):
                        self.wfile.write(body[at:at + 10])
                        time.sleep(0.5)
                except OSError:
                    pass

        server = self.http_server(Drip)
        image = f"127.0.0.1:{server.server_address[1]}/app:v1"
        words = f"oci.insecure=1,oci.platform=linux/amd64,oci.layer=1,oci.timeout=4," \
                f"oci.cache_dir=none,oci.store={self.dir}/store"
        for server.drips, command in ((False, ["index"]), (True, ["cat"]), (True, ["index"])):
            if command == ["index"] and server.drips:
                words = words.replace("/store", "/another")
            name = [] if command == ["index"] else [self.file_of("ckpt")]
            begin = time.monotonic()
            done = subprocess.run([TOOL, *command, "-o", words, image, *name], capture_output=True,
                                  timeout=100)
            with self.subTest(command=command, drips=server.drips):
                self.assertEqual(done.returncode == 0, not server.drips, done.stderr)
                self.assertLess(time.monotonic() - begin, 40)

    @staticmethod
    def file_of(name):
        """A file of a layer that is not empty."""
        with tarfile.open(path(f"{name}.tar.gz")) as archive:
            return next(m.name for m in archive if m.isreg() and m.size > 100_000)

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
            (f"{host}/app:v2", self.words("ckpt"), 2, '/app has no tag "v2"; it has "v1"$'),
            (f"{host}/app@{missing}", self.words("ckpt"), 2, "not found"),
            (f"{host}/APP:v1", self.words("ckpt"), 1, "APP"),
            (f"docker.io/app:v1", self.words("ckpt"), 1, "never used over http"),
            ("127.0.0.1:1/app", self.words("ckpt"), 2, "127.0.0.1:1.*cannot connect: Connection refused$"),
            (good, self.words("ckpt", insecure=0), 2, "TLS: .*; it may speak http: see oci.insecure$"),
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
                "mount", "umount", "serve", "index", "ls", "cat", "stat", "find", "extract",
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
