# SPDX-License-Identifier: Apache-2.0
"""What happens to requests that a server does not answer, when a command, a worker or a mount is to
end; and to mounts whose credentials are refused for a while."""
import base64
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import unittest

from support import PASSWORD, TOOL, ToolTest, make_layout, path, stop
from survive_test import contents, wait_for


def has_unread_bytes(host):
    """Whether a client has sent something to a server that does not read it."""
    port = f"{int(host.rsplit(':', 1)[1]):04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        lines = [line.split() for line in table][1:]
    return any(line[1].endswith(":" + port) and int(line[4].split(":")[1], 16) > 0 for line in lines)


class NetworkTest(ToolTest):
    def stall(self):
        """The server answers nothing more, as one behind a broken line."""
        stop(self.server.process)
        self.addCleanup(self.server.process.send_signal, signal.SIGCONT)


class StallTest(NetworkTest):
    def test_indexing_ends_at_once(self):
        host = self.registry("--bandwidth", "4K")
        tool = subprocess.Popen([TOOL, "index", "-o", f"oci.insecure=1,oci.store={self.dir}/store",
                                 f"{host}/app:v1"], stderr=subprocess.PIPE, text=True)
        self.addCleanup(tool.kill)
        self.assertTrue(wait_for(lambda: self.stats(host)["blob_requests"] > 0))
        self.stall()
        tool.send_signal(signal.SIGTERM)
        errors = tool.communicate(timeout=20)[1]
        # One that has not ended by itself after 3 s is ended by the signal.
        self.assertEqual(tool.returncode, 2, errors)
        self.assertIn("stopping", errors)


@unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/fuse"), "needs root and /dev/fuse")
class MountTest(NetworkTest):
    def setUp(self):
        super().setUp()
        self.make_target()
        self.wanted = contents(path("ckpt.tar.gz"))

    def command(self, image, way, words, *options):
        return ["mount", "--attach", way, "--journal", self.journal, *options, "-o", words, image,
                self.target]

    def begin_read(self):
        """A thread that reads all files, since some may lie in what has come already; what it has got
        is in `self.got`."""
        self.got = None

        def read_all():
            got = {}
            try:
                for name in self.wanted:
                    with open(os.path.join(self.target, name), "rb") as stream:
                        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                        got[name] = hashlib.sha256(stream.read()).digest()
                self.got = got
            except OSError as error:
                self.got = error
        thread = threading.Thread(target=read_all)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.process.send_signal, signal.SIGCONT)  # before that
        return thread

    def test_a_worker_ends_at_once_and_leaves_its_reads_to_the_next_one(self):
        for way in ("fuse-tree", "fuse-file"):
            with self.subTest(way):
                host = self.registry()
                words = self.words("ckpt") + ",oci.verify=off,oci.start_list=off"
                subprocess.run([TOOL, *self.command(f"{host}/app:v1", way, words)], check=True,
                               timeout=60)
                worker = self.status()[0]["worker"]
                self.stall()
                reader = self.begin_read()
                self.assertTrue(wait_for(lambda: has_unread_bytes(host)))
                begin = time.monotonic()
                os.kill(worker, signal.SIGTERM)
                self.assertTrue(wait_for(lambda: not os.path.exists(f"/proc/{worker}")))
                self.assertLess(time.monotonic() - begin, 5)  # a read may take 30 s
                self.server.process.send_signal(signal.SIGCONT)
                reader.join()
                self.assertEqual(self.got, self.wanted)
                subprocess.run(["umount", self.target], check=True)
                self.server.end()

    def test_a_mount_without_supervisor_ends_at_once(self):
        """The first signal unmounts, and the last user is served on; the second one ends that, too."""
        host = self.registry()
        words = self.words("ckpt") + ",oci.verify=off,oci.start_list=off"
        mount = subprocess.Popen(
            [TOOL, *self.command(f"{host}/app:v1", "fuse-tree", words, "--no-supervise",
                                 "--allow-unconfined", "--foreground")], stderr=subprocess.PIPE)
        self.addCleanup(mount.kill)
        self.assertTrue(wait_for(lambda: os.path.ismount(self.target)))
        self.stall()
        reader = self.begin_read()
        self.assertTrue(wait_for(lambda: has_unread_bytes(host)))
        mount.send_signal(signal.SIGTERM)
        self.assertTrue(wait_for(lambda: not os.path.ismount(self.target)))
        begin = time.monotonic()
        mount.send_signal(signal.SIGTERM)
        mount.communicate(timeout=60)
        reader.join()
        self.assertLess(time.monotonic() - begin, 5)
        self.assertIsInstance(self.got, OSError)

    def log_in(self, host, password):
        config = pathlib.Path(self.dir) / "config.json"
        login = base64.b64encode(f"u:{password}".encode()).decode()
        config.write_text(json.dumps({"auths": {host: {"auth": login}}}))
        return dict(os.environ, DOCKER_CONFIG=self.dir, HOME=self.dir)

    def test_a_mount_recovers_when_its_credentials_do(self):
        """A worker must read the registry to begin, since the image is served as it is."""
        self.need("mkfs.erofs")
        source = pathlib.Path(self.dir) / "source"
        source.mkdir()
        (source / "file").write_bytes(os.urandom(100_000))
        image = os.path.join(self.dir, "native.erofs")
        subprocess.run(["mkfs.erofs", image, source], check=True, capture_output=True)
        self.layout = os.path.join(self.dir, "layout")
        make_layout.make_layout([image], self.layout, tag="v1",
                                media_type="application/x.erofs")
        host = self.registry("--username", "u", "--password-file", self.secret())
        environment = self.log_in(host, PASSWORD)
        subprocess.run([TOOL, *self.command(f"{host}/app:v1", "fuse-tree",
                                            "oci.insecure=1,oci.native=yes,oci.store=none")],
                       check=True, timeout=60, env=environment)
        before = self.status()[0]
        self.log_in(host, "rotated")
        os.kill(before["worker"], signal.SIGKILL)
        self.assertTrue(wait_for(lambda: "not authorized" in self.status()[0]["last_error"]))
        # Long enough for a supervisor that gives up to have done so.
        restarts = self.status()[0]["restarts"]
        self.assertTrue(wait_for(lambda: self.status()[0]["restarts"] > restarts + 1))
        self.log_in(host, PASSWORD)
        with open(os.path.join(self.target, "file"), "rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self.assertEqual(stream.read(), (source / "file").read_bytes())
        self.assertEqual(self.status()[0]["supervisor"], before["supervisor"])
        subprocess.run(["umount", self.target], check=True)


if __name__ == "__main__":
    unittest.main()
