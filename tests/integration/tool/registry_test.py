# SPDX-License-Identifier: Apache-2.0
"""oci-registry with clients of other projects."""
import json
import os
import socket
import subprocess
import unittest
import urllib.error
import urllib.request

from support import LAYERS, PASSWORD, REGISTRY, ToolTest, digest, path, read


def get(url, method="GET", **headers):
    """Status, headers and body, also of an error."""
    request = urllib.request.Request(url, method=method, headers={
        name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


class RegistryTest(ToolTest):
    def setUp(self):
        super().setUp()
        self.blob = read(path("basic.tar.gz"))
        self.blob_path = f"/v2/any/name/blobs/{digest(self.blob)}"

    def skopeo_copy(self, host, *options):
        self.need("skopeo")
        target = os.path.join(self.dir, "copied")
        return subprocess.run(["skopeo", "copy", "-q", "--all", "--src-tls-verify=false", *options,
                               f"docker://{host}/some/app:v1", f"oci:{target}:v1"],
                              capture_output=True, text=True, timeout=60)

    def test_skopeo_copies_every_platform_out_of_it(self):
        host = self.registry()
        done = self.skopeo_copy(host)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in LAYERS:
            blob = read(path(f"{name}.tar.gz"))
            copied = os.path.join(self.dir, "copied/blobs", digest(blob).replace(":", "/"))
            self.assertEqual(read(copied), blob)

    def test_skopeo_logs_in(self):
        for options in ([], ["--token-ttl", "60"]):
            with self.subTest(options):
                host = self.registry("--username", "u", "--password-file", self.secret(), *options)
                self.assertEqual(self.skopeo_copy(host, "--src-creds", f"u:{PASSWORD}").returncode, 0)
                for wrong in (["--src-creds", "u:wrong"], ["--src-no-creds"]):
                    self.assertNotEqual(self.skopeo_copy(host, *wrong).returncode, 0)

    def test_manifests_tags_and_errors(self):
        host = self.registry()
        base = f"http://{host}"
        self.assertEqual(get(f"{base}/v2/")[0], 200)
        status, headers, by_tag = get(f"{base}/v2/a/b/manifests/v1")
        self.assertEqual((status, digest(by_tag)), (200, self.top))
        self.assertEqual(headers["Docker-Content-Digest"], self.top)
        self.assertEqual(headers["Content-Type"], "application/vnd.oci.image.index.v1+json")
        self.assertEqual(get(f"{base}/v2/a/manifests/{self.top}")[2], by_tag)
        status, headers, body = get(f"{base}/v2/a/manifests/v1", "HEAD")
        self.assertEqual((status, headers["Content-Length"], body), (200, str(len(by_tag)), b""))
        self.assertEqual(json.loads(get(f"{base}/v2/a/tags/list")[2]), {"name": "a", "tags": ["v1"]})
        status, _, body = get(f"{base}/v2/a/manifests/v2")
        self.assertEqual((status, json.loads(body)["errors"][0]["code"]), (404, "MANIFEST_UNKNOWN"))
        for bad in ("sha256:" + 64 * "0", "sha256:..%2f..%2findex.json", "x"):
            self.assertEqual(get(f"{base}/v2/a/blobs/{bad}")[0], 404, bad)
        self.assertEqual(get(f"{base}/v2/a/manifests/{digest(self.blob)}")[0], 404)  # not a manifest

    def test_blobs_by_range(self):
        host = self.registry()
        url, size = f"http://{host}{self.blob_path}", len(self.blob)
        cases = {None: (200, 0, size), "bytes=0-0": (206, 0, 1), "bytes=5-9": (206, 5, 10),
                 f"bytes={size - 1}-": (206, size - 1, size), "bytes=-7": (206, size - 7, size),
                 f"bytes=100-{size + 100}": (206, 100, size),
                 f"bytes=-{size + 9}": (206, 0, size), "bytes=0-1,4-5": (200, 0, size)}
        for given, (status, begin, end) in cases.items():
            with self.subTest(given):
                got, headers, body = get(url, **({"Range": given} if given else {}))
                self.assertEqual((got, body), (status, self.blob[begin:end]))
                where = f"bytes {begin}-{end - 1}/{size}" if status == 206 else None
                self.assertEqual(headers["Content-Range"], where)
        status, headers, _ = get(url, Range=f"bytes={size}-")
        self.assertEqual((status, headers["Content-Range"]), (416, f"bytes */{size}"))
        status, headers, body = get(url, "HEAD")
        self.assertEqual((status, headers["Content-Length"], body), (200, str(size), b""))

    def test_it_counts(self):
        count = os.path.join(self.dir, "count")
        host = self.registry("--count", count)
        get(f"http://{host}/v2/")
        get(f"http://{host}{self.blob_path}", Range="bytes=0-99")
        get(f"http://{host}{self.blob_path}", "HEAD")
        seen = self.stats(host)
        self.assertEqual((seen["requests"], seen["blob_requests"], seen["range_requests"],
                          seen["bytes"]), (3, 1, 1, 100))
        self.assertEqual(self.server.end()[0], 0)
        self.assertEqual(json.loads(read(count)), seen)
        host = self.registry()
        get(f"http://{host}{self.blob_path}")
        urllib.request.urlopen(f"http://{host}/_stats/reset", data=b"")
        self.assertEqual(set(self.stats(host).values()), {0})

    def test_tokens_expire(self):
        host = self.registry("--token-ttl", "1")
        base = f"http://{host}"
        status, headers, _ = get(f"{base}/v2/a/b/manifests/v1")
        self.assertEqual(status, 401)
        self.assertEqual(headers["WWW-Authenticate"],
                         f'Bearer realm="{base}/_token",service="mount-oci",'
                         'scope="repository:a/b:pull"')
        token = json.loads(get(f"{base}/_token")[2])
        self.assertEqual(token["expires_in"], 1)
        bearer = {"Authorization": "Bearer " + token["token"]}
        self.assertEqual(get(f"{base}/v2/a/b/manifests/v1", **bearer)[0], 200)
        import time
        time.sleep(1.1)
        status, headers, _ = get(f"{base}/v2/a/b/manifests/v1", **bearer)
        self.assertEqual(status, 401)
        self.assertIn('error="invalid_token"', headers["WWW-Authenticate"])

    def test_redirected_urls_are_good_for_a_while_and_refuse_credentials(self):
        host = self.registry("--redirect-blobs", "--redirect-ttl", "1")

        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_):
                return None

        def locate():
            try:
                urllib.request.build_opener(Stay).open(f"http://{host}{self.blob_path}")
            except urllib.error.HTTPError as error:
                return error.code, error.headers["Location"]
            return None

        status, location = locate()
        self.assertEqual(status, 307)
        self.assertNotIn(host, location)
        self.assertEqual(get(location, Range="bytes=1-3")[2], self.blob[1:4])
        self.assertEqual(get(location, Authorization="Basic eDp5")[0], 400)
        self.assertEqual(self.stats(host)["leaked_credentials"], 1)
        import time
        time.sleep(1.1)
        self.assertEqual(get(location)[0], 403)

    def test_it_is_slow_on_request(self):
        import time
        host = self.registry("--latency", "200", "--bandwidth", "500K")
        start = time.monotonic()
        get(f"http://{host}/v2/")
        self.assertGreater(time.monotonic() - start, 0.2)
        start = time.monotonic()
        get(f"http://{host}{self.blob_path}")
        self.assertGreater(time.monotonic() - start, 0.2 + len(self.blob) / 512000 * 0.9)

    def raw(self, host, data):
        """All bytes that come, and how the connection ends."""
        name, port = host.split(":")
        with socket.create_connection((name, int(port)), timeout=1) as connection:
            connection.sendall(data)
            got = b""
            try:
                while piece := connection.recv(65536):
                    got += piece
                return got, "closed"
            except ConnectionResetError:
                return got, "reset"
            except TimeoutError:
                return got, "silent"

    def test_it_is_wrong_on_request(self):
        size = len(self.blob)
        request = (f"GET {self.blob_path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                   "Range: bytes=0-999\r\n\r\n").encode()
        good = f"Content-Range: bytes 0-999/{size}".encode()
        cases = {"none": (b"206", good, self.blob[:1000], "closed"),
                 "ignore-range": (b"200", b"", self.blob, "closed"),
                 "short": (b"206", good, self.blob[:500], "closed"),
                 "wrong-range": (b"206", f"bytes 1-1000/{size}".encode(), self.blob[:1000], "closed"),
                 "wrong-total": (b"206", f"0-999/{size + 1}".encode(), self.blob[:1000], "closed"),
                 "encoded": (b"206", b"Content-Encoding: gzip", self.blob[:1000], "closed"),
                 "corrupt": (b"206", good, None, "closed"),
                 "reset": (b"206", good, None, "reset"),
                 "hang": (b"", b"", b"", "silent")}
        for kind, (status, header, body, end) in cases.items():
            with self.subTest(kind):
                options = [] if kind == "none" else ["--fault", kind]
                host = self.registry(*options)
                answer, ended = self.raw(host, request)
                head, _, got = answer.partition(b"\r\n\r\n")
                self.assertEqual(ended, end)
                self.assertIn(status, head.split(b"\r\n")[0])
                self.assertIn(header, head)
                if kind == "corrupt":
                    wrong = [i for i in range(1000) if got[i] != self.blob[i]]
                    self.assertEqual(wrong, [500])
                elif body is not None:
                    self.assertEqual(got, body)
                self.assertEqual(self.stats(host)["faults"], int(kind != "none"))
                self.assertEqual(self.server.end()[0], 0)

    def test_it_fails_every_nth_blob_request(self):
        host = self.registry("--fail-every", "3:429")
        seen = [get(f"http://{host}{self.blob_path}")[0] for _ in range(6)]
        self.assertEqual(seen, [200, 200, 429, 200, 200, 429])

    def test_bad_calls(self):
        empty = os.path.join(self.dir, "empty")
        os.mkdir(empty)
        cases = [((), 1, "missing argument: DIR"),
                 (("--username", "u", empty), 1, "--username and --password-file belong together"),
                 (("--fail-every", "2:200", empty), 1, "--fail-every 2:200: not N or N:STATUS"),
                 (("--fault", "explode", empty), 1, "--fault explode: not KIND"),
                 ((empty,), 2, "oci-layout: No such file"),
                 ((self.layout, "--listen", "nonsense"), 1, "nonsense: not HOST:PORT"),
                 ((self.layout, "--listen", "192.0.2.1:1"), 2, "192.0.2.1:1"),
                 ((self.layout, "--username", "u", "--password-file", empty + "/no"), 2, "No such file"),
                 ((self.layout, "--cert", "/dev/null", "--key", "/dev/null"), 1, "not a certificate")]
        for arguments, status, text in cases:
            with self.subTest(arguments):
                got, message = self.refused(*arguments, program=REGISTRY)
                self.assertIn(text, message)
                self.assertEqual(got, status)


if __name__ == "__main__":
    unittest.main()
