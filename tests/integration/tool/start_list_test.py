# SPDX-License-Identifier: Apache-2.0
"""Start lists: what a mount needs first is recorded, and fetched ahead at the next cold start."""
import glob
import hashlib
import json
import os
import random
import socket
import struct
import subprocess
import unittest

import images
from servers import run
from support import TOOL, Running, ToolTest, make_layout, read
from survive_test import wait_for

CHUNK = 8192  # of the layer cache
PIECE = 32768  # of an index
GAP = 65536
FILES = 16
READ = ["d03", "d14", "d08", "d09"]
LETTERS = bytes(b"abcdefghijklmnop"[byte & 15] for byte in range(256))


def text(number):
    """A megabyte that packs to a half."""
    return random.Random(number).randbytes(1 << 20).translate(LETTERS)


def ranges_of(file):
    """doc/formats/start_list.md: (layer, age, begin, end) in order."""
    data = read(file)
    assert data[:8] == b"\x89EOS\r\n\x1a\n", data[:8]
    version, layers, ranges, zero = struct.unpack_from("<4I", data, 8)
    assert (version, zero) == (1, 0)
    begin = 24 + 32 * layers
    assert len(data) == begin + 24 * ranges + 32
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    return [struct.unpack_from("<IIQQ", data, begin + 24 * i) for i in range(ranges)]


def fetched_for(ranges, size):
    """Bytes that fetching them takes, in whole chunks, with what lies between them."""
    joined = []
    for _, _, begin, end in sorted(ranges, key=lambda one: one[2]):
        begin, end = begin // CHUNK * CHUNK, min(-(-end // CHUNK) * CHUNK, size)
        if joined and begin - joined[-1][1] <= GAP:
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([begin, end])
    return sum(end - begin for begin, end in joined)


class Client:
    """An NBD client of an export of any name."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        assert self.take(16) == b"NBDMAGICIHAVEOPT"
        self.take(2)
        self.socket.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
        self.size, _ = struct.unpack(">QH", self.take(10))

    def take(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, "the server has closed"
            data += piece
        return data

    def read(self, offset, length):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, offset, length))
        assert struct.unpack(">IIQ", self.take(16)) == (0x67446698, 0, 7)
        return self.take(length)


class StartListTest(ToolTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        layer = images.Layer()
        for number in range(FILES):
            layer.file(f"d{number:02}", text(number))
        blob = layer.save(os.path.join(cls.layout, "layer.tar.gz"))
        cls.size = os.path.getsize(blob)
        cls.start_layout = os.path.join(cls.layout, "start")
        make_layout.make_layout([blob], cls.start_layout, tag="v1")

    def setUp(self):
        super().setUp()
        layout, self.layout = self.layout, self.start_layout
        try:
            self.host = self.registry()
        finally:
            self.layout = layout
        self.image = f"{self.host}/app:v1"
        self.store = os.path.join(self.dir, "store")
        self.caches = 0
        done = subprocess.run([TOOL, "index", "-o", self.words("none"), self.image],
                              capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)

    def words(self, cache):
        return f"oci.insecure=1,oci.store={self.store},oci.cache_dir={cache}"

    def fresh(self):
        """Words with an empty cache, where the registry's counts begin anew."""
        self.caches += 1
        self.before = self.stats(self.host)
        return self.words(os.path.join(self.dir, f"cache{self.caches}"))

    def counted(self):
        now = self.stats(self.host)
        return {key: now[key] - self.before[key] for key in ("range_requests", "bytes")}

    def lists(self):
        return glob.glob(os.path.join(self.store, "starts", "*", "list"))

    def mount(self, words, *options):
        if not os.path.exists("/dev/fuse"):
            self.skipTest("no FUSE")
        self.mnt = os.path.join(self.dir, "mnt")
        self.journal = os.path.join(self.dir, "journal")
        os.makedirs(self.mnt, exist_ok=True)
        done = subprocess.run([TOOL, "mount", "--attach=fuse-tree", "--journal", self.journal, "-o",
                               words, *options, self.image, self.mnt], capture_output=True,
                              timeout=60)
        if done.returncode != 0 and b"fuse" in done.stderr.lower():
            self.skipTest(done.stderr.decode())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(self.umount, check=False)

    def umount(self, check=True):
        done = subprocess.run([TOOL, "umount", "--journal", self.journal, self.mnt],
                              capture_output=True, timeout=60)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)

    def whole_status(self):
        return super().status()[0]

    def status(self):
        return self.whole_status()["start_list"]

    def read_files(self):
        for name in READ:
            self.assertTrue(read(os.path.join(self.mnt, name)) == text(int(name[1:])))

    def use_mount(self, *options):
        """Mounts cold, reads the files, unmounts; what the registry has counted."""
        self.mount(self.fresh(), *options)
        self.read_files()
        self.umount()
        return self.counted()

    def test_a_mount_records_what_the_next_one_fetches(self):
        without = self.use_mount("--start-list=record")
        file, = self.lists()
        ranges = ranges_of(file)
        self.assertTrue(ranges)
        needed = sum(end - begin for _, _, begin, end in ranges)
        # Four files of 16, and no more of them than where spans begin and pieces end.
        self.assertLess(needed, self.size * 7 / 16)

        self.mount(self.fresh())
        wanted = fetched_for(ranges, self.size)
        self.assertTrue(wait_for(lambda: self.counted()["bytes"] >= wanted))
        ahead = self.counted()
        self.read_files()
        # A worker tells what it has counted once a second.
        self.assertTrue(wait_for(lambda: self.status()["used"] >= needed), self.status())
        self.assertGreaterEqual(self.status()["fetched"], needed)
        self.umount()
        with_list = self.counted()

        self.assertEqual(with_list, ahead)  # reads fetched nothing
        self.assertLessEqual(with_list["range_requests"], without["range_requests"])
        self.assertLess(with_list["bytes"], without["bytes"])
        # The manifest's, too; whole pieces; and a chunk of the cache may be on its way twice where two
        # requests meet.
        self.assertLessEqual(with_list["bytes"],
                             wanted + 20_000 + len(ranges) * 2 * (PIECE + CHUNK))
        self.assertEqual({age for _, age, _, _ in ranges_of(file)}, {0})

    def test_what_the_cache_has_is_not_fetched(self):
        words = self.fresh()
        self.mount(words)
        self.read_files()
        self.umount()
        self.before = self.stats(self.host)
        self.mount(words)
        self.assertTrue(wait_for(lambda: self.status()["fetched"] > 0))
        self.read_files()
        self.umount()
        self.assertEqual(self.counted()["range_requests"], 0)

    def test_off_and_use_record_nothing(self):
        self.use_mount("--start-list", "off")
        self.use_mount("-o", "oci.start_list=use")
        self.assertEqual(self.lists(), [])
        self.use_mount()
        kept = read(self.lists()[0])
        self.mount(self.fresh(), "--start-list", "off")
        self.read_files()
        self.assertTrue(wait_for(lambda: self.whole_status()["hedges"]["requests"] > 0))
        self.assertEqual(self.status(), {"fetched": 0, "used": 0})
        self.umount()
        self.assertTrue(read(self.lists()[0]) == kept)

    def test_a_damaged_list_is_none(self):
        self.use_mount()
        file, = self.lists()
        os.truncate(file, 70)
        log = os.path.join(self.dir, "log")
        self.mount(self.fresh(), "-d", "7", "--log-file", log)
        self.read_files()
        self.umount()
        self.assertIn(b"the start list is not used", read(log))
        self.assertTrue(ranges_of(file))  # a new one

    def test_serve(self):
        places = [random.Random(1).randrange(15 << 20) // 4096 * 4096 for _ in range(8)]

        def serve(*options):
            path = os.path.join(self.dir, "socket")
            return Running(self, "serve", "-o", self.fresh(), "--socket", path, *options,
                           self.image), path

        server, path = serve("--start-list=record")
        client = Client(path)
        first = [client.read(at, 4096) for at in places]
        self.assertEqual(self.lists(), [])  # not at each read
        self.assertEqual(server.end(), (0, ""))
        without = self.counted()
        ranges = ranges_of(self.lists()[0])
        wanted = fetched_for(ranges, self.size)
        # Each begins close in front of what was read, wherever in a span that is.
        self.assertTrue(glob.glob(os.path.join(self.store, "read", "*", "checkpoints")))
        self.assertLessEqual(sum(end - begin for _, _, begin, end in ranges), 8 * 3 * PIECE)

        server, path = serve()
        self.assertTrue(wait_for(lambda: self.counted()["bytes"] >= wanted))
        ahead = self.counted()
        client = Client(path)
        self.assertTrue([client.read(at, 4096) for at in places] == first)
        self.assertEqual(server.end(), (0, ""))
        self.assertEqual(self.counted(), ahead)
        self.assertLess(ahead["bytes"], without["bytes"])

    def signed_by(self, name):
        """A private key, and the words of who has the public one."""
        key, public = (os.path.join(self.dir, name + end) for end in (".key", ".pub"))
        run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
        run("openssl", "pkey", "-in", key, "-pubout", "-out", public)
        return key, f",oci.index=signed,oci.index_key={public}"

    def elsewhere(self, words, *options):
        """Serves the image to who has no index and no layer of it, up to what reads need."""
        self.elsewheres = getattr(self, "elsewheres", 0) + 1
        self.store = os.path.join(self.dir, f"elsewhere{self.elsewheres}")
        path = os.path.join(self.dir, "socket")
        return Running(self, "serve", "-o", self.fresh() + words, "--socket", path, *options,
                       self.image), Client(path)

    def test_a_list_travels_with_the_index(self):
        self.server.kill()
        layout, self.layout = self.layout, self.start_layout
        self.host = self.registry("--accept-pushes")
        self.layout = layout
        self.image = f"{self.host}/app:v1"
        key, signed = self.signed_by("owner")
        push = [TOOL, "index", "--push", "--json", "--with-start-list", "--sign-key", key, "-o",
                f"oci.insecure,oci.store={self.store}", self.image]
        done = subprocess.run(push, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"--with-start-list: no mount of this image has recorded one", done.stderr)
        self.assertEqual(self.stats(self.host)["uploads"], 0)

        places = [random.Random(1).randrange(15 << 20) // 4096 * 4096 for _ in range(8)]
        path = os.path.join(self.dir, "socket")
        server = Running(self, "serve", "-o", self.fresh(), "--socket", path, self.image)
        client = Client(path)
        right = [client.read(at, 4096) for at in places]
        self.assertEqual(server.end(), (0, ""))
        file, = self.lists()
        ranges = ranges_of(file)
        wanted = fetched_for(ranges, self.size)
        pushed = json.loads(subprocess.run(push, check=True, capture_output=True,
                                           timeout=60).stdout.splitlines()[-1])
        kinds = [kind for part in pushed["indexes"] for kind in part if kind in (
            "index", "checkpoints", "start_list")]
        self.assertEqual(kinds, ["index", "checkpoints", "start_list"])
        index = sum(part["size"] for part in pushed["indexes"])

        # The list is used at once, and is there for the next mount.
        server, client = self.elsewhere(signed)
        self.assertTrue(wait_for(lambda: self.counted()["bytes"] >= wanted + index))
        ahead = self.counted()
        self.assertTrue([client.read(at, 4096) for at in places] == right)
        self.assertEqual(self.counted(), ahead)  # reads fetched nothing
        self.assertLess(ahead["bytes"], wanted + index + 60_000 + len(ranges) * 2 * (PIECE + CHUNK))
        self.assertEqual(server.end(), (0, ""))
        self.assertEqual({age for _, age, _, _ in ranges_of(self.lists()[0])}, {0})
        kept, = glob.glob(os.path.join(self.store, "*", "*", "checkpoints"))
        self.assertIn("/claimed/", kept)  # for that image alone, as its index

        # Who does not take the index takes nothing that came with it.
        _, stranger = self.signed_by("stranger")
        server, client = self.elsewhere(stranger, "--start-list=use")
        self.assertTrue([client.read(at, 4096) for at in places] == right)
        self.assertEqual(server.end(), (0, ""))
        self.assertGreaterEqual(self.counted()["bytes"], self.size)  # it has read the layer
        self.assertEqual(glob.glob(os.path.join(self.store, "*", "*", "checkpoints")), [])
        self.assertEqual(self.lists(), [])

    def test_a_server_ends_while_it_fetches_ahead(self):
        self.use_mount()
        self.server.kill()
        layout, self.layout = self.layout, self.start_layout
        host = self.registry("--bandwidth", "20000")  # minutes for what the list names
        self.layout = layout
        path = os.path.join(self.dir, "socket")
        # Another port is another registry, but the layers are the same.
        server = Running(self, "serve", "-o", self.words("none"), "--socket", path, f"{host}/app:v1")
        self.assertTrue(wait_for(lambda: self.stats(host)["range_requests"] > 0))
        self.assertEqual(server.end(), (0, ""))


if __name__ == "__main__":
    unittest.main()
