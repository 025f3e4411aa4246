# SPDX-License-Identifier: Apache-2.0
"""mount-oci doctor: what it says of registries that are as they should be, and of such as are not."""
import http.server
import json
import os
import socket
import subprocess
import threading
import time
import unittest

from support import PASSWORD, TOOL, ToolTest, digest, path, read


class DoctorTest(ToolTest):
    def doctor(self, image, status, words="oci.insecure=1", *options):
        """The findings, by their checks."""
        begin = time.monotonic()
        done = subprocess.run([TOOL, "doctor", "--json", "-o", words + ",oci.platform=linux/amd64",
                               *options, image], capture_output=True, text=True, timeout=20,
                              env=dict(os.environ, HOME=self.dir, DOCKER_CONFIG=self.dir))
        self.assertLess(time.monotonic() - begin, 4.5, "three seconds, on a machine that is not busy")
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        told = json.loads(done.stdout)
        self.assertEqual(told["image"], image)
        for one in told["checks"]:
            self.assertEqual(one["state"] == "failed", bool(one.get("advice")) and one["state"] != "warning"
                             and one["check"] != "throughput", one)
        return {one["check"]: one for one in told["checks"]}

    def test_all_is_well(self):
        host = self.registry()
        found = self.doctor(f"{host}/a:v1", 0)
        self.assertEqual({name: one["state"] for name, one in found.items() if name != "machine"},
                         {"reachable": "ok", "TLS": "warning", "login": "ok", "image": "ok",
                          "redirect": "ok", "ranges": "ok", "throughput": "ok"})
        self.assertIn("206", found["ranges"]["text"])
        self.assertIn("3 layers", found["image"]["text"])
        for number in "with 1 connection", "with 4", "with 8":
            self.assertIn(number, found["throughput"]["text"])
        self.assertLessEqual(self.stats(host)["bytes"], 50 << 20)

    def test_in_plain_words(self):
        host = self.registry()
        done = subprocess.run([TOOL, "doctor", "-o", "oci.insecure=1", f"{host}/a:v9"],
                              capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("failed   image: ", done.stdout)
        self.assertIn("-> check the repository, the tag and oci.platform", done.stdout)

    def test_no_registry(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        found = self.doctor(f"127.0.0.1:{port}/a:v1", 1)
        self.assertEqual(found["reachable"]["state"], "failed")
        self.assertIn("firewall", found["reachable"]["advice"])

    def test_a_registry_that_says_nothing(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            found = self.doctor(f"127.0.0.1:{silent.getsockname()[1]}/a:v1", 1)
        self.assertEqual(found["reachable"]["state"], "failed")

    def test_tls(self):
        self.need("openssl")
        key, cert = os.path.join(self.dir, "key"), os.path.join(self.dir, "cert")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                        "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key,
                        "-out", cert], check=True, capture_output=True)
        port = self.registry("--cert", cert, "--key", key).split(":")[1]
        found = self.doctor(f"localhost:{port}/a:v1", 1, "oci.connections=4")
        self.assertEqual(found["TLS"]["state"], "failed")
        self.assertIn("oci.ca=FILE", found["TLS"]["advice"])
        found = self.doctor(f"localhost:{port}/a:v1", 0, f"oci.ca={cert}")
        self.assertEqual(found["TLS"]["state"], "ok")

    def test_login(self):
        host = self.registry("--username", "me", "--password-file", self.secret(), "--token-ttl", "60")
        found = self.doctor(f"{host}/a:v1", 1)
        self.assertEqual(found["login"]["state"], "failed")
        self.assertIn(f"docker login {host}", found["login"]["advice"])
        self.assertNotIn("ranges", found)
        file = self.secret()
        os.chmod(file, 0o600)
        found = self.doctor(f"{host}/a:v1", 0,
                            f"oci.insecure=1,oci.username=me,oci.password_file={file}")
        self.assertIn("accepts it", found["login"]["text"])
        self.assertNotIn(PASSWORD, json.dumps(found))

    def test_ranges(self):
        for fault, text in (("ignore-range", "(200)"), ("wrong-total", "")):
            with self.subTest(fault):
                found = self.doctor(f"{self.registry('--fault', fault)}/a:v1", 1)
                self.assertEqual(found["ranges"]["state"], "failed")
                self.assertIn(text, found["ranges"]["text"])
                self.assertNotIn("throughput", found)

    def test_a_layer_that_does_not_come(self):
        found = self.doctor(f"{self.registry('--fault', 'hang')}/a:v1", 1)
        self.assertTrue({"ranges", "time"} & {name for name, one in found.items()
                                              if one["state"] == "failed"}, found)

    def test_redirects(self):
        for life, state in (("600", "ok"), ("20", "warning")):
            with self.subTest(life):
                host = self.registry("--redirect-blobs", "--redirect-ttl", life)
                found = self.doctor(f"{host}/a:v1", 0)
                self.assertEqual(found["redirect"]["state"], state)
                self.assertIn(f"whose URLs live {life} s", found["redirect"]["text"])
                self.assertNotIn("signature", json.dumps(found))

    def test_slow(self):
        found = self.doctor(f"{self.registry('--bandwidth', '200K')}/a:v1", 0)
        self.assertEqual(found["throughput"]["state"], "warning")
        self.assertIn("mirror", found["throughput"]["advice"])

    def test_clock(self):
        manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                               "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                                          "digest": digest(b"{}"), "size": 2}, "layers": []}).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            ahead = 0

            def date_time_string(self, timestamp=None):
                return super().date_time_string(time.time() + self.ahead)

            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                self.send_header("Content-Length", str(len(manifest)))
                self.end_headers()
                self.wfile.write(manifest)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        image = f"127.0.0.1:{server.server_port}/a:v1"
        self.assertEqual(self.doctor(image, 0)["clock"]["state"], "ok")
        for ahead, word in ((600, "behind"), (-600, "ahead of")):
            Handler.ahead = ahead
            found = self.doctor(image, 0)
            self.assertEqual(found["clock"]["state"], "warning")
            self.assertIn(word, found["clock"]["text"])

    def test_images_on_this_machine(self):
        found = self.doctor(f"oci:{self.layout}:v1", 0)
        self.assertIn("3 layers on this machine", found["image"]["text"])
        self.assertEqual(self.doctor("oci:/no/such", 1)["image"]["state"], "failed")
        self.assertTrue(read(path("basic.tar.gz")))


if __name__ == "__main__":
    unittest.main()
