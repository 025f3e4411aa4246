# SPDX-License-Identifier: Apache-2.0
"""A real layer in Debian's docker-registry, over TLS with a private CA and with a password, served by
mount-oci and read by NBD clients of other projects."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import servers
from servers import run
from support import Running, TOOL, make_layout, read
import support

FIXTURE = pathlib.Path(support.FIXTURES) / "debian-essential"
USER, PASSWORD = "reader", "a pass, word"


class DockerRegistry(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="docker-registry-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        cls.authority = servers.Authority(cls.dir)
        cls.start()
        make_layout.make_layout([FIXTURE / "layer.tar.gz"], cls.dir / "layout", tag="v1")
        run("skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests",
            f"--dest-cert-dir={cls.authority.dir}", f"--dest-creds={USER}:{PASSWORD}",
            f"oci:{cls.dir}/layout:v1", f"docker://{cls.host}/debian:v1")
        (cls.dir / "password").write_text(PASSWORD + "\n")
        cls.expected = cls.dir / "expected"
        tarindex = read(FIXTURE / "layer.erofs")
        slot = int.from_bytes(tarindex[1112:1114], "little") * 128
        length = 512 * int.from_bytes(tarindex[slot + 64:slot + 68], "little")
        tar = run("gzip", "-dc", FIXTURE / "layer.tar.gz")
        cls.expected.write_bytes(tarindex + tar[:length].ljust(length, b"\0"))

    @classmethod
    def start(cls):
        cert, key = cls.authority.issue("server")
        hashed = run("htpasswd", "-nbB", USER, PASSWORD)
        (cls.dir / "htpasswd").write_bytes(hashed)
        port = servers.docker_registry(
            cls, cls.dir, "registry", cls.dir / "data", f", tls: {{certificate: {cert}, key: {key}}}",
            f"auth: {{htpasswd: {{realm: test, path: {cls.dir}/htpasswd}}}}\n")
        cls.host = f"localhost:{port}"

    def serve(self):
        options = (f"oci.layer=0,oci.tarindex={FIXTURE}/layer.erofs,oci.zinfo={FIXTURE}/layer.zinfo,"
                   f"oci.ca={self.dir}/ca/ca.crt,oci.username={USER},"
                   f"oci.password_file={self.dir}/password")
        place = self.dir / f"s{self.id().rsplit('.')[-1]}"
        return Running(self, "serve", "--socket", str(place), "-o", options,
                       f"{self.host}/debian:v1"), place

    def same(self, file):
        run("cmp", file, self.expected)

    def test_nbdcopy_with_one_and_with_four_connections(self):
        server, _ = self.serve()
        for connections in (1, 4):
            copy = self.dir / f"copy{connections}"
            run("nbdcopy", f"--connections={connections}", server.line, copy)
            self.same(copy)
            copy.unlink()
        self.assertEqual(server.end()[0], 0)

    def test_nbdinfo_and_qemu_img(self):
        server, _ = self.serve()
        size = run("nbdinfo", "--size", server.line, text=True).strip()
        self.assertEqual(int(size), self.expected.stat().st_size)
        copy = self.dir / "qemu"
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", server.line, copy)
        self.same(copy)
        copy.unlink()

    def test_nbdkit_in_between(self):
        server, place = self.serve()
        copy = self.dir / "nbdkit"
        run("nbdkit", "-U", "-", "nbd", f"socket={place}", "--run", f"nbdcopy $uri {copy}")
        self.same(copy)
        copy.unlink()

    def test_a_wrong_password_is_said_once(self):
        (self.dir / "wrong").write_text("nope\n")
        done = subprocess.run(
            [TOOL, "serve", "--socket", str(self.dir / "never"), "-o",
             f"oci.layer=0,oci.ca={self.dir}/ca/ca.crt,oci.username={USER},"
             f"oci.password_file={self.dir}/wrong", f"{self.host}/debian:v1"],
            capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stderr.count("not authorized"), 1, done.stderr)
        self.assertIn(f'user "{USER}" from oci.username and {self.dir}/wrong', done.stderr)
        self.assertNotIn("nope", done.stderr)

    def test_what_is_not_there_is_said_with_what_there_is(self):
        for name, said in (("debian:v2", f'{self.host}/debian has no tag "v2"; it has "v1"'),
                           ("nothing:v1", f'{self.host} has no repository "nothing"')):
            done = subprocess.run(
                [TOOL, "ls", "-o", f"oci.ca={self.dir}/ca/ca.crt,oci.username={USER},"
                 f"oci.password_file={self.dir}/password", f"{self.host}/{name}"],
                capture_output=True, text=True, timeout=60)
            self.assertEqual((done.returncode, done.stderr),
                             (2, f"mount-oci: {self.host}/{name}: {said}\n"))


if __name__ == "__main__":
    if not FIXTURE.exists():
        print("skipped: no large layer; see EROFS_OCI_FIXTURES")
        sys.exit(77)
    unittest.main(verbosity=2)
