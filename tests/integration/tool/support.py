# SPDX-License-Identifier: Apache-2.0
"""What the tests of mount-oci share: starting and always ending programs, and test data."""
import ctypes
import functools
import gzip
import hashlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(os.path.dirname(os.path.dirname(HERE)), "data", "oci")
sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "tools"))
import make_layout  # noqa: E402

# Where debian-essential/, a real layer, is; tests that want it are skipped where it is not.
FIXTURES = os.environ.get("EROFS_OCI_FIXTURES", os.path.join(HERE, "../../../../shared/fixtures"))
TOOL = os.environ["MOUNT_OCI"]
REGISTRY = os.path.join(os.path.dirname(TOOL), "oci-registry")
SANITIZED = any(name in pathlib.Path(TOOL).read_bytes() for name in (b"__asan_init", b"__tsan_init"))
LAYERS = ["basic", "ckpt", "multi"]
UNPROVED = "no index is there that was made by reading it"  # a warning
PASSWORD = "correct horse, battery \"staple\""


def path(name):
    return os.path.join(DATA, name)


def read(file):
    with open(file, "rb") as stream:
        return stream.read()


def with_little_stack():
    """For preexec_fn: a recursion by the depth of an image's tree does not fit."""
    size = (2048 if SANITIZED else 256) << 10
    resource.setrlimit(resource.RLIMIT_STACK, (size, size))


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def two_platforms(directory, layers):
    """Makes a layout whose one tag, v1, is an index: linux/amd64 has all layers, linux/arm64 the
    first one. The index's digest."""
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
             "manifests": []}
    for architecture, chosen in (("amd64", layers), ("arm64", layers[:1])):
        manifest, _ = make_layout.make_layout(chosen, directory, platform=f"linux/{architecture}")
        platform = {"os": "linux", "architecture": architecture}
        index["manifests"].append(manifest | {"platform": platform})
    layout = pathlib.Path(directory)
    top = make_layout.put_json(layout, index)
    entry = top | {"annotations": {make_layout.REF_NAME: "v1"}}
    (layout / "index.json").write_text(json.dumps(index | {"manifests": [entry]}))
    return top["digest"]


def expected_image(name):
    """The tarindex and the decompressed tar behind it, cut where the tarindex ends it."""
    tarindex = read(path(f"gz-{name}.erofs"))
    slot = int.from_bytes(tarindex[1112:1114], "little") * 128
    blocks = int.from_bytes(tarindex[slot + 64:slot + 68], "little")
    tar = gzip.decompress(read(path(f"{name}.tar.gz")))
    return tarindex + tar[:512 * blocks].ljust(512 * blocks, b"\0")


def remove_tree(directory):
    """As shutil.rmtree, but a file may vanish meanwhile: a server that is ending removes its socket."""
    def failed(_, name, error):
        if not isinstance(error[1], FileNotFoundError):
            raise error[1]
    shutil.rmtree(directory, onerror=failed)


@functools.cache
def own_mounts():
    """From here on mounts are this process's own: in a namespace that another test makes a copy of, a
    file system would live on when it is unmounted here. Why that cannot be, or nothing."""
    if ctypes.CDLL(None).unshare(0x20000) != 0:  # CLONE_NEWNS
        return "no mount namespace of our own"
    if subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode != 0:
        return "mounts cannot be made private"
    # Copies of what other tests have mounted would keep their file systems alive.
    with open("/proc/self/mounts") as table:
        others = [line.split()[1] for line in table if line.split()[2] in ("erofs", "fuse.erofs_oci")]
    if others:
        subprocess.run(["umount", "-l", *others], capture_output=True)
    return None


def stop(process):
    """Stops a child: when this returns, none of its threads runs. A signal alone takes effect some
    time after it was sent, until when a server may well answer one more request."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


class Running:
    """A program that prints one line when it is ready."""

    def __init__(self, case, *arguments, program=TOOL, **options):
        self.process = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, **options)
        case.addCleanup(self.kill)
        self.line = self.process.stdout.readline().strip()
        if not self.line:
            case.fail(f"{arguments}: not ready: {self.process.communicate(timeout=20)[1]}")

    def end(self, number=signal.SIGTERM, warned=True):
        """Asks it to end; its exit status and what it had to say. With `warned`, without the warning
        that nothing checks each read of a layer."""
        self.process.send_signal(number)
        errors = self.process.communicate(timeout=20)[1]
        if warned:
            errors = "".join(line for line in errors.splitlines(True)
                             if not re.search(UNPROVED, line))
        return self.process.returncode, errors

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def swap_for_links(tool, directory, outside):
    """While a program writes to a directory's `d`, puts links to `outside` in its place; how often."""
    swaps = 0
    while tool.poll() is None:
        try:
            os.rename(os.path.join(directory, "d"), os.path.join(directory, f"away{swaps}"))
            os.symlink(outside, os.path.join(directory, "d"))
            swaps += 1
        except OSError:
            pass
    tool.communicate()
    return swaps


class ToolTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.geteuid() == 0:
            own_mounts()  # where that cannot be, others may see what is mounted
        cls.layout = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.layout)
        cls.top = two_platforms(cls.layout, [path(f"{name}.tar.gz") for name in LAYERS])

    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(remove_tree, self.dir)

    def make_target(self):
        """A directory to mount at, and a place for records. What is mounted there at the end goes."""
        self.target = os.path.join(self.dir, "mount")
        os.mkdir(self.target)
        self.journal = os.path.join(self.dir, "journal")
        self.addCleanup(subprocess.run, ["umount", "-l", self.target], capture_output=True)

    def status(self):
        """What `status` tells of the mounts in the journal."""
        done = subprocess.run([TOOL, "status", "--json", "--journal", self.journal],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def mount_small(self, directory, words):
        """Mounts a small file system, or skips the test."""
        if os.geteuid() != 0:
            self.skipTest("needs root to mount a small file system")
        os.makedirs(directory, exist_ok=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", words, "none", directory],
                          capture_output=True).returncode != 0:
            self.skipTest("no tmpfs can be mounted here")
        self.addCleanup(subprocess.run, ["umount", directory])

    def need(self, *programs):
        for program in programs:
            if shutil.which(program) is None:
                self.skipTest(f"{program} is not installed")

    def registry(self, *options):
        """A registry; its host:port."""
        self.server = Running(self, self.layout, *options, program=REGISTRY)
        return self.server.line.split("://", 1)[1]

    def stats(self, host):
        with urllib.request.urlopen(f"http://{host}/_stats") as answer:
            return json.load(answer)

    def words(self, name, **more):
        """The -o list of a layer."""
        given = {"layer": LAYERS.index(name), "insecure": 1, "tarindex": path(f"gz-{name}.erofs"),
                 "zinfo": path(f"gz-{name}.zinfo"), "cache_dir": "none", **more}
        return ",".join(f"oci.{key}={value}" for key, value in given.items() if value is not None)

    def serve(self, image, words, *options, **more):
        socket = os.path.join(self.dir, "socket")
        return Running(self, "serve", "-o", words, "--socket", socket, *options, image, **more)

    def copy(self, uri, *options):
        """All bytes of an export, by nbdcopy."""
        self.need("nbdcopy")
        target = os.path.join(self.dir, "copy")
        done = subprocess.run(["nbdcopy", *options, uri, target], capture_output=True, text=True,
                              timeout=60)
        return read(target) if done.returncode == 0 else None

    def secret(self, text=PASSWORD):
        file = os.path.join(self.dir, "password")
        with open(file, "w") as stream:
            stream.write(text + "\n")
        return file

    def refused(self, *arguments, program=TOOL, timeout=20):
        """A command that must fail: its status and its whole message."""
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=timeout)
        self.assertNotEqual(done.returncode, 0, arguments)
        self.assertEqual(done.stdout, "")
        return done.returncode, done.stderr.strip()

    def serve_refused(self, image, words, **options):
        return self.refused("serve", "-o", words, "--socket", os.path.join(self.dir, "never"), image,
                            **options)
