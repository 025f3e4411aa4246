# SPDX-License-Identifier: Apache-2.0
"""Images of less than 1 MB that are made to take memory or time: mount-oci refuses each by a limit that
the message names, or serves it, and takes at most 64 MiB more than for a tiny image."""
import gzip
import io
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zlib

import ztoc
from support import REGISTRY, Running, SANITIZED, TOOL, digest, make_layout

MOST = 64 << 10  # KiB above idle
LARGEST = 1_000_000  # bytes of an image

# A program of its own forks the tool: what a process had before exec counts in its ru_maxrss.
LAUNCH = """
import os, subprocess, sys
tool = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(tool.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


# ---------------------------------------------------------------- tars

def tar(members):
    """A tar, gzipped, of (name, data or link target or None) each."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT,
                      compresslevel=6) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.LNKTYPE, content
                content = b""
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return out.getvalue()


def header(name, size=0, kind=b"0", more=b""):
    """A header alone, by hand; `more` is what stands from byte 345 on."""
    raw = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = b"%011o\0" % size
    raw[156:157] = kind
    raw[345:345 + len(more)] = more
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def tree_bomb(seed, count=4200):
    """Each member's path makes two thousand directories: 8 million in all."""
    return tar((f"{seed}/{i}/" + "d/" * 2030 + "f", None) for i in range(count))


def names_bomb():
    return tar((f"{i:05}" + ("/" + "n" * 255) * 15, None) for i in range(4000))


def links_bomb():
    """Hard links whose targets are nowhere: they are kept until the end."""
    return tar((f"{i:05}" + ("/" + "l" * 255) * 15, "/".join(["t" * 250] * 16))
               for i in range(4000))


def xattrs_bomb(names, value, count):
    """Members that all have the same attributes."""
    first = tarfile.TarInfo("x")
    first.pax_headers = {f"SCHILY.xattr.user.{name}": value for name in names}
    records = first.tobuf(tarfile.PAX_FORMAT)[:-512]
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6) as file:
        for i in range(count):
            file.write(records + header(str(i)))
    return out.getvalue()


def pax_bomb():
    """An extended header of 1 GiB."""
    return gzip.compress(header("x", 1 << 30, b"x") + bytes(1 << 20))


def sparse_bomb(segments):
    """A file of GNU's old format with a map of so many segments of 512 bytes, every other block."""
    fields = [b"%011o\0%011o\0" % (1024 * i, 512) for i in range(segments)]
    first = b"".join(fields[:4]).ljust(96, b"\0")
    size = b"%011o\0" % (1024 * segments)
    more = bytes(41) + first + (b"\1" if segments > 4 else b"\0") + size
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6) as file:
        file.write(header("sparse", 512 * segments, b"S", more))
        for at in range(4, segments, 21):
            more_follow = b"\1" if at + 21 < segments else b"\0"
            file.write((b"".join(fields[at:at + 21]).ljust(504, b"\0") + more_follow).ljust(512, b"\0"))
        if segments < 1 << 18:  # else nobody comes that far
            file.write(bytes(512 * segments + 1024))
    return out.getvalue()


def too_deep():
    """Symbolic links lead further down than any path could."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "a/" * 1500
        archive.addfile(tarfile.TarInfo("a/" * 1500 + "f"))
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("link/" + "b/" * 1500 + "f"))
    return out.getvalue()


# ---------------------------------------------------------------- gzips

def stored(data, final=False):
    return struct.pack("<BHH", final, len(data), len(data) ^ 0xffff) + data


def gzip_of(blocks, content_crc, size):
    return (b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + blocks +
            struct.pack("<II", content_crc, size & 0xffffffff))


def empty_blocks(count):
    """A small tar, and in the middle of its one file many blocks of nothing."""
    data = header("f", 1024) + bytes(512)
    rest = bytes(512 + 1024)
    return gzip_of(stored(data) + stored(b"") * count + stored(rest, True), zlib.crc32(data + rest),
                   len(data + rest))


def giant_block(runs):
    """A file of zeros in one deflate block: 8 * `runs` matches of 258 bytes, 13 bits each."""
    zeros = 1 + 8 * runs * 258
    start = header("zeros", zeros // 512 * 512 - 2048)

    class Bits:
        value, length = 0, 0

        def put(self, bits, count, most_significant_first=False):
            for i in range(count):
                bit = bits >> (count - 1 - i if most_significant_first else i) & 1
                self.value |= bit << self.length
                self.length += 1

    head, match, end = Bits(), Bits(), Bits()
    head.put(0b011, 3)  # the last block, of the fixed code
    head.put(0x30, 8, True)  # a literal zero
    while head.length % 8:  # 13 bits each: after some matches the next one begins at a byte
        head.put(0b11000101, 8, True)
        head.put(0, 5)
    zeros += (head.length - 11) // 13 * 258
    for _ in range(8):
        match.put(0b11000101, 8, True)
        match.put(0, 5)
    end.put(0, 7)
    blocks = (stored(start) + head.value.to_bytes(head.length // 8, "little") +
              match.value.to_bytes(13, "little") * runs + end.value.to_bytes(1, "little"))
    crc, left = zlib.crc32(start), zeros
    while left:
        piece = bytes(min(left, 1 << 20))
        crc, left = zlib.crc32(piece, crc), left - len(piece)
    return gzip_of(blocks, crc, len(start) + zeros)


def flood():
    return tar([("zeros", bytes(20 << 20))])


# ---------------------------------------------------------------- images

def put_manifest(place, manifest):
    entry = make_layout.put_json(place, manifest) | {
        "platform": {"os": "linux", "architecture": "amd64"},
        "annotations": {make_layout.REF_NAME: "v1"}}
    (place / "index.json").write_text(json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
         "manifests": [entry]}))


def make_image(place, layers, more=None):
    """A layout of gzipped layers; each is put there once it is made. `more` goes into the manifest."""
    (place / "blobs/sha256").mkdir(parents=True)
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    config = make_layout.put_json(place, {"architecture": "amd64", "os": "linux", "config": {},
                                          "rootfs": {"type": "layers", "diff_ids": []}})
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config,
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                            "digest": make_layout.put(place, layer), "size": len(layer)}
                           for layer in layers]} | (more or {})
    put_manifest(place, manifest)
    return manifest


TINY = tar([("f", b"1")])
SERVED = None

# (name, layers, what else the manifest has, more words, what the message says)
IMAGES = [
    ("directories by paths", lambda: [tree_bomb(0)], {}, "", "files in .* bytes of layers .* oci.memory"),
    ("the same in ten layers", lambda: [tree_bomb(i, 420) for i in range(10)], {}, "",
     "files in .* bytes of layers .* oci.memory"),
    ("long names", lambda: [names_bomb()], {}, "", "files in .* bytes of layers .* oci.memory"),
    ("hard links to nowhere", lambda: [links_bomb()], {}, "",
     "files in .* bytes of layers .* oci.memory"),
    ("attributes", lambda: [xattrs_bomb("abcd", "v" * 65000, 300)], {}, "", "files in .* bytes of layers .* oci.memory"),
    ("small attributes", lambda: [xattrs_bomb(range(1000), "", 600)], {}, "",
     "files in .* bytes of layers .* oci.memory"),
    ("an extended header", lambda: [pax_bomb()], {}, "", "1073741824 bytes, more than 1048576"),
    ("sparse maps", lambda: [sparse_bomb(300_000)], {}, "", "sparse map of more than 262144 segments"),
    ("sparse maps in four layers", lambda: [sparse_bomb(50_000 + i) for i in range(4)], {}, "", SERVED),
    ("deep directories", lambda: [too_deep()], {}, "", SERVED),  # but for what lies too deep
    ("blocks of nothing", lambda: [empty_blocks(180_000)], {}, "", SERVED),
    ("one block", lambda: [giant_block(30_000)], {}, "", SERVED),
    ("many decoded bytes", lambda: [flood()], {}, ",oci.index_size=4M", "4194304 bytes.*oci.index_size"),
    ("many layers", lambda: [TINY] * 4000, {}, "", "4000 entries, at most 200"),
    ("layers", lambda: [TINY] * 200, {}, "", SERVED),
    ("nested JSON", lambda: [TINY], {"x": json.loads("[" * 500 + "]" * 500)}, "", "nested too deeply"),
    ("JSON of many values", lambda: [TINY], {"x": [{}] * 300_000}, "", SERVED),
]


class HostileImageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.top = pathlib.Path(tempfile.mkdtemp(prefix="hostile-"))
        cls.addClassCleanup(shutil.rmtree, cls.top)
        make_image(cls.top / "tiny", [TINY])
        status, text, cls.idle = cls.run_tool(f"oci:{cls.top}/tiny:v1")
        assert status == 0, text

    @staticmethod
    def run_tool(image, words="", command="ls"):
        """The exit status, the messages, and the peak of memory in KiB."""
        given = "oci.store=none,oci.platform=linux/amd64" + words
        done = subprocess.run([sys.executable, "-c", LAUNCH, TOOL, command, "-v", "-o", given, image],
                              capture_output=True, text=True, timeout=120)
        return done.returncode, done.stderr, int(done.stdout.splitlines()[-1])

    def check(self, outcome, message):
        status, text, peak = outcome
        if message is SERVED:
            self.assertEqual(status, 0, text)
        else:
            self.assertEqual(status, 2, text)
            self.assertRegex(text, message)
        if not SANITIZED:  # their memory is not the program's
            self.assertLess(peak - self.idle, MOST, f"{peak} KiB, idle {self.idle} KiB\n{text}")

    def test_each(self):
        for number, (name, layers, more, words, message) in enumerate(IMAGES):
            with self.subTest(name):
                place = self.top / str(number)
                make_image(place, layers(), more)
                size = sum(blob.stat().st_size for blob in (place / "blobs/sha256").iterdir())
                self.assertLess(size, LARGEST)
                outcome = self.run_tool(f"oci:{place}:v1", words)
                if os.environ.get("SHOW_MEMORY"):
                    print(f"{name}: {size} bytes, {outcome[2] - self.idle} KiB above idle, {outcome[0]}")
                self.check(outcome, message)

    def test_more_memory_lets_an_image_be_served(self):
        place = self.top / "more"
        make_image(place, [tree_bomb(0, 60)])  # 120,000 directories
        self.assertEqual(self.run_tool(f"oci:{place}:v1")[0], 2)
        self.assertEqual(self.run_tool(f"oci:{place}:v1", ",oci.memory=1G")[0], 0)

    def test_a_span_that_a_ztoc_makes_giant(self):
        place = self.top / "ztoc"
        size = 1 << 30  # as the manifest and the ztoc have it; the blob is short
        manifest = make_image(place, [TINY])
        manifest["layers"][0]["size"] = size
        member = {0: "f", 1: "reg", 2: (8, 512), 3: (8, 1), 5: (8, 0o644), 10: ztoc.rfc3339(0)}
        points = (1).to_bytes(4, "little") + size.to_bytes(8, "little") * 2
        data = ztoc.flat({0: "0.9", 1: "hostile", 2: (8, size), 3: (8, size), 4: {0: [member]},
                          5: {0: (1, 2), 1: (4, 0), 2: [digest(b"")], 3: points}})
        index = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": ztoc.INDEX % 2,
            "config": {"mediaType": ztoc.INDEX % 2, "size": 2, "digest": make_layout.put(place, b"{}")},
            "layers": [{"mediaType": "application/octet-stream", "size": len(data),
                        "digest": make_layout.put(place, data), "annotations": {
                            "com.amazon.soci.image-layer-digest": manifest["layers"][0]["digest"]}}]}
        named = make_layout.put_json(place, index)["digest"]
        put_manifest(place, manifest | {"annotations": {"com.amazon.soci.index-digest": named}})
        host = Running(self, place, program=REGISTRY).line.split("://", 1)[1]
        outcome = self.run_tool(f"{host}/app:v1", ",oci.insecure=1")
        self.check(outcome, f"a span of {size} bytes .* oci.memory")


if __name__ == "__main__":
    unittest.main()
