# SPDX-License-Identifier: Apache-2.0
"""Images made for a test, what an independent unpacker makes of them, and trees compared."""
import collections
import gzip
import hashlib
import io
import os
import random
import stat
import subprocess
import tarfile

from support import make_layout

TIME = 1_600_000_000


class Layer:
    """A layer's tar, member by member."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name, kind=tarfile.REGTYPE, data=None, xattrs=None, **fields):
        member = tarfile.TarInfo(name)
        member.type = kind
        usual = {tarfile.DIRTYPE: 0o755, tarfile.SYMTYPE: 0o777}.get(kind, 0o644)
        member.mode = fields.pop("mode", usual)
        member.mtime = fields.pop("mtime", TIME)
        member.linkname = fields.pop("to", "")
        member.uid, member.gid = fields.pop("owner", (0, 0))
        member.devmajor, member.devminor = fields.pop("device", (0, 0))
        for key, value in (xattrs or {}).items():
            member.pax_headers["SCHILY.xattr." + key] = value
        assert not fields, fields
        if data is not None:
            member.size = len(data)
        self.tar.addfile(member, io.BytesIO(data) if data is not None else None)
        return self

    def sparse(self, name, size, pieces):
        """A file of zeros, but for the bytes at the offsets of `pieces`, in GNU tar's form 0.1."""
        member = tarfile.TarInfo(name)
        member.mtime = TIME
        runs = [f"{at},{len(data)}" for at, data in sorted(pieces.items())]
        member.pax_headers = {"GNU.sparse.map": ",".join(runs), "GNU.sparse.size": str(size)}
        data = b"".join(data for _, data in sorted(pieces.items()))
        member.size = len(data)
        self.tar.addfile(member, io.BytesIO(data))
        return self

    def dir(self, name, **fields):
        return self.add(name, tarfile.DIRTYPE, **fields)

    def file(self, name, data=b"", **fields):
        return self.add(name, data=data, **fields)

    def symlink(self, name, to, **fields):
        return self.add(name, tarfile.SYMTYPE, to=to, **fields)

    def link(self, name, to):
        return self.add(name, tarfile.LNKTYPE, to=to)

    def whiteout(self, name):
        folder, _, last = name.rpartition("/")
        return self.file(f"{folder}/.wh.{last}" if folder else f".wh.{last}")

    def opaque(self, folder):
        return self.file(f"{folder}/.wh..wh..opq")

    def bytes(self):
        if not self.tar.closed:
            self.tar.close()
        return self.buffer.getvalue()

    def save(self, path, packed=True):
        data = self.bytes()
        with open(path, "wb") as file:
            file.write(gzip.compress(data, 6, mtime=0) if packed else data)
        return path


def noise(size, seed=b"x"):
    """Bytes that do not compress, always the same."""
    out = io.BytesIO()
    block = seed
    while out.tell() < size:
        block = hashlib.sha512(block).digest()
        out.write(block)
    return out.getvalue()[:size]


def three_layers():
    """All kinds of files, changed and removed by two layers more."""
    bottom = Layer()
    bottom.dir("./").dir("bin").dir("etc").dir("data").dir("gone").dir("old").dir("old/sub")
    bottom.file("bin/tool", noise(3000), mode=0o4755).file("etc/passwd", b"root:x:0:0\n")
    bottom.file("etc/secret", b"s" * 1000, mode=0o600, owner=(7, 70000))
    bottom.symlink("etc/link", "passwd").symlink("abs", "/etc/passwd")
    bottom.file("data/large", noise(5_000_000, b"large")).file("data/empty")
    bottom.link("data/second", "data/large").file("gone/a", b"a").file("gone/b", b"b")
    bottom.file("old/x", b"x").file("old/sub/y", b"y").file("removed", b"r")
    bottom.file("name with blanks", b"1").file("gr\u00fcn", b"2")
    bottom.file("attr", b"3", xattrs={"user.colour": "blue"})
    bottom.dir("sticky", mode=0o1777).add("pipe", tarfile.FIFOTYPE, mode=0o640)
    bottom.add("null", tarfile.CHRTYPE, mode=0o666, device=(1, 3))
    bottom.file("d" * 200, b"long name")

    middle = Layer()
    middle.dir("etc", mode=0o750, mtime=TIME + 5).file("etc/passwd", b"root:x:0:0\nuser:x:1:1\n")
    middle.whiteout("removed").whiteout("gone")
    middle.dir("old", mtime=TIME + 6).opaque("old").file("old/new", b"n")
    middle.dir("lib", owner=(5, 6)).file("lib/so", noise(200_000, b"so"), mode=0o755)
    middle.link("lib/so.1", "lib/so").link("lib/so.1.2", "lib/so")

    top = Layer()
    top.dir("gone", mtime=TIME + 7).file("gone/c", b"c", mode=0o444)
    top.dir("lib", owner=(5, 6)).whiteout("lib/so.1").file("bin", b"a file in place of a directory")
    top.dir("etc", mode=0o755, mtime=TIME + 8).symlink("etc/secret", "../../outside")
    top.file("data/large2", noise(700_000, b"large2"))
    top.dir("data", mtime=TIME + 9)
    return [bottom, middle, top]


ODD_PIECES = {1: noise(700, b"1"), 1024: noise(4096, b"2"), 50_000: b"x", 50_001: noise(600)}


def odd_layers():
    """A member each of what is left out with a warning, and sparse files of no whole blocks; and what
    a mount shows: the content of each file by its name."""
    bottom = Layer().file("removed" + "n" * 247, b"r").sparse("sparse", 60_000, ODD_PIECES)
    bottom.file("attr", b"a", xattrs={"user.large": "v" * 65536, "user.small": "v"})
    top = Layer().file("n" * 256, b"n").file("file", b"f").file("file/below", b"b")
    top.symlink("empty", "").add("device", tarfile.CHRTYPE, device=(5000, 1))
    top.whiteout("removed" + "n" * 247).link("linked", "sparse")
    content = bytearray(60_000)
    for at, data in ODD_PIECES.items():
        content[at:at + len(data)] = data
    return [bottom, top], {"attr": b"a", "file": b"f", "linked": content, "sparse": content}


def many_layers(count, seed=7):
    """So many layers of small files, each of which adds, replaces, links and removes at random what
    those below it left, and now and then clears a directory."""
    choose = random.Random(seed)
    files, folders = set(), {"d0", "d1", "d1/e", "d2"}
    layers = []
    for number in range(count):
        layer, when, fresh, removed = Layer(), TIME + 10 * number, set(), set()
        for folder in sorted(folders) if number == 0 else choose.sample(sorted(folders), 1):
            layer.dir(folder, mode=choose.choice([0o755, 0o750, 0o1777]), mtime=when,
                      owner=(number, 0))
        if number % 9 == 8:
            layer.opaque("d2")
            removed |= {name for name in files if name.startswith("d2/")}
        # What a layer removes it removes from those below, so none of its own files is chosen.
        for name in choose.sample(sorted(files - removed), min(len(files - removed), number % 3)):
            layer.whiteout(name)
            removed.add(name)
        for i in range(3):
            name = f"{choose.choice(sorted(folders))}/{'f' if i else 'n'}{choose.randrange(40)}"
            if name in removed | fresh:
                continue
            data = noise(choose.choice([0, 1, 511, 512, 4096, 9000]), b"%d %d" % (number, i))
            xattrs = {"user.layer": str(number)} if i == 1 else {}
            layer.file(name, data, mode=choose.choice([0o644, 0o600, 0o4755]), mtime=when + i,
                       owner=(1000 + number, choose.choice([0, 100_000])), xattrs=xattrs)
            fresh.add(name)
        for name in sorted(fresh)[:number % 2]:
            layer.link(f"d0/l{number}", name)
            fresh.add(f"d0/l{number}")
        # A file in place of a directory, a directory in place of a link, and so on.
        [lambda: layer.dir("shape", mtime=when).file("shape/inside", b"%d" % number),
         lambda: layer.symlink("shape", f"d1/{number}", mtime=when),
         lambda: layer.add("shape", tarfile.FIFOTYPE, mode=0o600, mtime=when),
         lambda: layer.file("shape", b"%d" % number, mtime=when)][number % 4]()
        files = files - removed | fresh
        layers.append(layer)
    return layers


def layout_of(directory, layers, tag="v1", packed=True):
    """An image layout of these layers; its directory."""
    os.makedirs(directory, exist_ok=True)
    paths = [layer.save(os.path.join(directory, f"layer{i}"), packed)
             for i, layer in enumerate(layers)]
    layout = os.path.join(directory, "layout")
    make_layout.make_layout(paths, layout, tag=tag)
    return layout


def unpacked(layout, bundle, tag="v1"):
    """What umoci makes of an image."""
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:{tag}", bundle], check=True,
                   capture_output=True, timeout=60)
    return os.path.join(bundle, "rootfs")


def tree(root, times=True):
    """Everything that there is to say of a directory tree, by path."""
    found = {}
    names = collections.defaultdict(list)
    for folder, folders, files in os.walk(root):
        for name in [""] * (folder == root) + folders + files:
            path = os.path.join(folder, name) if name else folder
            relative = os.path.relpath(path, root)
            status = os.lstat(path)
            item = {"mode": oct(status.st_mode), "owner": (status.st_uid, status.st_gid)}
            if times:
                item["mtime"] = status.st_mtime_ns
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    item["sha256"] = hashlib.sha256(file.read()).hexdigest()
                item["size"] = status.st_size
            if stat.S_ISLNK(status.st_mode):
                item["target"] = os.readlink(path)
            if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                item["device"] = status.st_rdev
            item["xattrs"] = {key: os.getxattr(path, key, follow_symlinks=False)
                              for key in os.listxattr(path, follow_symlinks=False)}
            found[relative] = item
            if not stat.S_ISDIR(status.st_mode):
                names[status.st_ino].append(relative)
    for same in names.values():
        for name in same:
            found[name]["names"] = sorted(same)
    return found


def differences(a, b):
    """What differs between two trees, in lines."""
    lines = [f"only one has {name}" for name in sorted(a.keys() ^ b.keys())]
    for name in sorted(a.keys() & b.keys()):
        for key in a[name].keys() | b[name].keys():
            if a[name].get(key) != b[name].get(key):
                lines.append(f"{name}: {key}: {a[name].get(key)} != {b[name].get(key)}")
    return lines
