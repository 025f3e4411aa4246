#!/usr/bin/env python3
"""Says what is in a tree, one JSON line a path, so that two trees can be compared to the last bit.

usage: tools/tree_manifest.py tar FILE              a tar, gzipped or not: what extracting it as root gives
       tools/tree_manifest.py dir PATH              what is there, without crossing file systems
       tools/tree_manifest.py compare WANTED GOT    prints what differs; fails if anything does
       tools/tree_manifest.py --selftest            compares what GNU tar extracts with its tar

A line has path, type, mode, uid, gid, mtime in ns, and where they apply size, sha256, links (names of
the file), target, device and xattrs in base64. The tree's own root is left out where the tar is silent.
"""
import base64
import gzip
import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile

PIECE = 1 << 20
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFCHR: "char",
         stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
TAR_KINDS = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "char",
             tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}


def sha256_of(stream):
    hash = hashlib.sha256()
    while piece := stream.read(PIECE):
        hash.update(piece)
    return hash.hexdigest()


def base64_of(value):
    return base64.b64encode(value).decode()


def nanoseconds(text):
    """A pax time, exactly; tarfile has only the float."""
    seconds, _, fraction = text.partition(".")
    part = int((fraction + "0" * 9)[:9])
    return int(seconds) * 10**9 + (-part if seconds.startswith("-") else part)


def of_tar(path):
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    entries, inode_of = {}, {}  # path -> inode; inode -> what it is, so that hard links share
    with (gzip.open if packed else open)(path, "rb") as stream, \
            tarfile.open(fileobj=stream, mode="r|", encoding="utf-8",
                         errors="surrogateescape") as archive:
        for member in archive:
            name = "/" + "/".join(p for p in member.name.split("/") if p not in ("", "."))
            if member.islnk():
                target = "/" + "/".join(p for p in member.linkname.split("/") if p not in ("", "."))
                inode_of[name] = inode_of[target]
                continue
            inode_of[name] = len(entries)
            entries[len(entries)] = tar_entry(archive, member)
    links = {}
    for inode in inode_of.values():
        links[inode] = links.get(inode, 0) + 1
    for name, inode in inode_of.items():
        entry = {"path": name} | entries[inode]
        if entry["type"] != "dir":
            entry["links"] = links[inode]
        yield entry


def tar_entry(archive, member):
    kind = TAR_KINDS.get(member.type, "file")
    pax = member.pax_headers
    entry = {
        "type": kind,
        "mode": 0o777 if kind == "link" else member.mode & 0o7777,
        "uid": member.uid,
        "gid": member.gid,
        "mtime": nanoseconds(pax["mtime"]) if "mtime" in pax else int(member.mtime) * 10**9,
    }
    if kind == "file":
        entry |= {"size": member.size, "sha256": sha256_of(archive.extractfile(member))}
    elif kind == "link":
        entry["target"] = member.linkname
    elif kind in ("char", "block"):
        entry["device"] = [member.devmajor, member.devminor]
    prefix = "SCHILY.xattr."
    xattrs = {key[len(prefix):]: base64_of(value.encode("utf-8", "surrogateescape"))
              for key, value in pax.items() if key.startswith(prefix)}
    if xattrs:
        entry["xattrs"] = dict(sorted(xattrs.items()))
    return entry


def of_dir(root):
    device = os.lstat(root).st_dev
    todo = ["/"]
    while todo:
        name = todo.pop()
        path = root.rstrip("/") + name
        status = os.lstat(path)
        yield {"path": name} | dir_entry(path, status)
        if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
            todo += [name.rstrip("/") + "/" + child for child in os.listdir(path)]


def dir_entry(path, status):
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    entry = {"type": kind, "mode": status.st_mode & 0o7777, "uid": status.st_uid,
             "gid": status.st_gid, "mtime": status.st_mtime_ns}
    if kind == "file":
        with open(path, "rb") as file:
            entry |= {"size": status.st_size, "sha256": sha256_of(file)}
    elif kind == "link":
        entry["target"] = os.readlink(path)
    elif kind in ("char", "block"):
        entry["device"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
    names = sorted(os.listxattr(path, follow_symlinks=False))
    if names:
        entry["xattrs"] = {n: base64_of(os.getxattr(path, n, follow_symlinks=False)) for n in names}
    if kind != "dir":
        entry["links"] = status.st_nlink
    return entry


def lines_of(entries):
    return [json.dumps(entry, sort_keys=True) for entry in sorted(entries, key=lambda e: e["path"])]


def differences(wanted, got):
    wanted, got = ({e["path"]: e for e in map(json.loads, lines)} for lines in (wanted, got))
    if "/" not in wanted:
        got.pop("/", None)
    for path in sorted(wanted.keys() | got.keys()):
        a, b = wanted.get(path), got.get(path)
        if a is None:
            yield f"{path!r}: is there and should not be"
        elif b is None:
            yield f"{path!r}: is missing"
        else:
            for key in sorted(a.keys() | b.keys()):
                if a.get(key) != b.get(key):
                    yield f"{path!r}: {key}: wanted {a.get(key)}, got {b.get(key)}"


def compare(wanted, got):
    with open(wanted) as a, open(got) as b:
        lines = a.readlines()
        found = list(differences(lines, b))
    print("\n".join(found[:40]) if found else f"{len(lines)} paths, all equal")
    if found or not lines:
        sys.exit(f"{len(found)} differences in {len(lines)} paths")


def selftest():
    with tempfile.TemporaryDirectory() as folder:
        tree, again = os.path.join(folder, "tree"), os.path.join(folder, "again")
        os.makedirs(tree + "/dir/deep")
        for name, data in {"/dir/a": b"a" * 3_000_000, "/dir/deep/empty": b"", "/sp ace\xe9": b"x"}.items():
            with open(tree + name, "wb") as file:
                file.write(data)
        os.chmod(tree + "/dir/a", 0o4751)
        os.link(tree + "/dir/a", tree + "/dir/deep/b")
        os.symlink("../dir/nowhere", tree + "/dir/link")
        os.mkfifo(tree + "/dir/fifo", 0o640)
        os.utime(tree + "/dir/a", ns=(0, 1_600_000_000_123_456_789))
        os.utime(tree + "/dir", ns=(0, 1_500_000_000_000_000_001))
        try:
            os.setxattr(tree + "/dir/a", "user.binary", b"\x00\xff\x01=\n")
        except OSError:
            print("skipped: no user xattrs in", folder)
        tar = os.path.join(folder, "tree.tar.gz")
        subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "--format=pax", "-C", tree, "-czf",
                        tar, "."], check=True)
        os.mkdir(again)
        subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "--same-permissions", "-C", again,
                        "-xzf", tar], check=True)
        wanted, got = lines_of(of_tar(tar)), lines_of(of_dir(again))
        found = list(differences(wanted, got))
        if found or len(wanted) != 9:
            sys.exit(f"{len(wanted)} paths, differences: {found}")

        os.chmod(again + "/dir/a", 0o755)
        with open(again + "/dir/deep/b", "r+b") as file:
            file.write(b"A")
        os.unlink(again + "/dir/fifo")
        os.mkdir(again + "/new")
        keys = {(line.split(": ")[0], line.split(": ")[1]) for line in
                differences(wanted, lines_of(of_dir(again)))}
        needed = {("'/dir/a'", "mode"), ("'/dir/a'", "sha256"), ("'/dir/deep/b'", "sha256"),
                  ("'/dir/fifo'", "is missing"), ("'/new'", "is there and should not be"),
                  ("'/dir'", "mtime")}
        if not needed <= keys:
            sys.exit(f"not seen: {needed - keys}")
        print(f"{len(wanted)} paths")


def main():
    match sys.argv[1:]:
        case ["tar", path]:
            print("\n".join(lines_of(of_tar(path))))
        case ["dir", path]:
            print("\n".join(lines_of(of_dir(path))))
        case ["compare", wanted, got]:
            compare(wanted, got)
        case ["--selftest"]:
            selftest()
        case _:
            sys.exit(__doc__)


main()
