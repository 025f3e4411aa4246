# SPDX-License-Identifier: Apache-2.0
"""The snapshots service as containerd expects it of every snapshotter, with real mounts, and over the
death of the process."""
import errno
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time

import cluster
from cluster import Cluster, SNAPSHOTTER

REFERENCE = "containerd.io/snapshot.ref"
VIEW, ACTIVE, COMMITTED = 1, 2, 3


def write(path, text):
    return lambda top: (top / path).write_text(text)


def make(path, mode=0o755):
    return lambda top: ((top / path).mkdir(), (top / path).chmod(mode))


def node(path, kind):
    return lambda top: os.mknod(top / path, kind | 0o640, os.makedev(1, 3))


def remove(path):
    def change(top):
        if (top / path).is_dir() and not (top / path).is_symlink():
            shutil.rmtree(top / path)
        else:
            (top / path).unlink()
    return change


def own(path, user, group):
    return lambda top: os.chown(top / path, user, group, follow_symlinks=False)


def mode(path, bits):
    return lambda top: (top / path).chmod(bits)


def move(path, to):
    return lambda top: os.rename(top / path, top / to)


def link(path, to):
    return lambda top: os.link(top / path, top / to)


def point(path, target):
    return lambda top: (top / path).symlink_to(target)


# What containerd's own suite does to layers, and some more: a name, and what each layer changes.
CHANGES = {
    "files that are written twice in each layer": [
        [write("passwd", f"{i}"), write("a b", f"{i}"), write("passwd", f"{i} again")]
        for i in range(5)],
    "a directory that takes the place of one of the same name": [
        [make("dir"), make("dir/sub"), write("dir/old", "1"), write("dir/sub/deep", "1")],
        [remove("dir"), make("dir"), write("dir/new", "2")],
        [write("dir/newer", "3"), make("dir/sub"), write("dir/sub/other", "3")]],
    "owners of directories and of a file": [
        [make("opt"), make("opt/a"), write("opt/a/file", "1"), write("opt/b", "1")],
        [own("opt", 1, 1), own("opt/a", 1, 2), own("opt/b", 3, 4)],
        [own("opt/a/file", 5, 6)]],
    "owners and modes of directories that are removed and made again": [
        [make("d", 0o700), own("d", 1, 1), make("d/e", 0o1777), own("d/e", 2, 2), make("f")],
        [own("d", 3, 3), write("d/e/file", "2"), own("f", 4, 4), mode("f", 0o2750)],
        [remove("d"), make("d", 0o711), own("d", 5, 5), make("d/e")]],
    "files that are deleted in a child": [
        [make("x"), *(write(f"x/{i}", "1") for i in range(8)), write("top", "1")],
        [remove("x/1"), remove("top")],
        [remove("x/2"), write("x/1", "3")],
        [remove("x"), write("x", "a file now")]],
    "a file of a lower layer that is moved and linked": [
        [make("root"), write("root/file", "1"), write("root/old", "1")],
        [link("root/file", "root/linked"), remove("root/file"), move("root/old", "root/moved")],
        [remove("root/moved"), write("root/linked", "2"), link("root/linked", "twice")]],
    "names that change": [
        [make("a"), write("a/file", "1"), make("own"), write("own/x", "1"), write("b", "1")],
        [move("a/file", "a/renamed"), make("new"), write("new/y", "2"), move("new", "newer")],
        [move("b", "a/renamed"), move("newer/y", "own/x")]],
    "a kind of file that takes the place of another": [
        [write("one", "1"), make("two"), point("three", "one"), node("four", stat.S_IFSOCK)],
        [remove("one"), make("one"), remove("two"), point("two", "four"), remove("three"),
         node("three", stat.S_IFIFO), remove("four"), node("four", stat.S_IFCHR)],
        [remove("one"), point("one", "nowhere"), remove("four"), node("four", stat.S_IFSOCK)]],
    "no change at all": [[write("a", "1")], [], []],
}


def tree(top):
    """All that two directories with the same files have in common."""
    found, names = {}, {}
    for place in sorted(top.rglob("*")):
        about, path = place.lstat(), str(place.relative_to(top))
        content = b""
        if stat.S_ISREG(about.st_mode):
            content = place.read_bytes()
            names.setdefault(about.st_ino, []).append(path)
        elif stat.S_ISLNK(about.st_mode):
            content = os.readlink(place)
        found[path] = (about.st_mode, about.st_uid, about.st_gid, about.st_rdev, content)
    return found, sorted(names.values())


def after_call(model, call, name, key=None):
    """The kinds of all snapshots, by name, after a call."""
    model = dict(model)
    if call == "prepare":
        model[name] = ACTIVE
    elif call == "commit":
        del model[key]
        model[name] = COMMITTED
    elif call == "remove":
        del model[name]
    return model


class ServiceTest(Cluster):
    def setUp(self):
        super().setUp()
        self.start_snapshotter()

    def mounted(self, mounts):
        """What a client sees of a snapshot, at a directory of its own."""
        place = pathlib.Path(tempfile.mkdtemp(dir=self.dir))
        mount, = mounts
        options = [option for option in mount.options if option != "rbind"]
        command = ["mount", "-t", mount.type, mount.source, str(place), "-o"]
        if mount.type == "bind":
            command = ["mount", "--bind", mount.source, str(place), "-o"]
        # containerd, too, shortens a long list by the directory that all have in common.
        short = ",".join(options).replace(f"{self.root}/snapshots/", "")
        subprocess.run([*command, short], check=True, cwd=self.root / "snapshots")
        self.addCleanup(subprocess.run, ["umount", "-l", place], capture_output=True)
        return place

    def layer(self, name, parent, change):
        """A committed snapshot with what `change` does to the directory."""
        place = self.mounted(self.service.prepare(f"active {name}", parent))
        change(place)
        subprocess.run(["umount", place], check=True)
        self.service.commit(name, f"active {name}")

    def names(self, *filters):
        return {info.name for info in self.service.list(*filters)}

    def test_layers_show_through_each_other(self):
        def first(place):
            (place / "a").write_text("1")
            (place / "dir").mkdir()
            (place / "dir/x").write_text("x")
            (place / "gone").write_text("g")
            os.chown(place / "dir", 1, 2)

        def second(place):
            self.assertEqual((place / "a").read_text(), "1")
            (place / "a").write_text("2")
            (place / "gone").unlink()
            shutil.rmtree(place / "dir")
            (place / "dir").mkdir()
            (place / "dir/y").write_text("y")

        self.layer("A", "", first)
        self.layer("B", "A", second)
        lower, upper = (self.mounted(self.service.view(f"view {name}", name)) for name in "AB")
        self.assertEqual(sorted(os.listdir(lower)), ["a", "dir", "gone"])
        self.assertEqual((os.stat(lower / "dir").st_uid, os.stat(lower / "dir").st_gid), (1, 2))
        self.assertEqual(sorted(os.listdir(upper)), ["a", "dir"])
        self.assertEqual(os.listdir(upper / "dir"), ["y"])
        self.assertEqual((upper / "a").read_text(), "2")
        for place in (lower, upper):
            with self.assertRaises(OSError):
                (place / "new").write_text("x")
        self.assertEqual(os.stat(self.mounted(self.service.prepare("root"))).st_mode & 0o7777, 0o755)

    def test_layers_are_what_one_directory_would_be(self):
        for number, (name, layers) in enumerate(CHANGES.items()):
            with self.subTest(name):
                flat, parent = pathlib.Path(tempfile.mkdtemp(dir=self.dir)), ""
                for height, changes in enumerate(layers):
                    self.layer(f"{number}/{height}", parent,
                               lambda place: [change(top) for change in changes
                                              for top in (place, flat)])
                    parent = f"{number}/{height}"
                    place = self.mounted(self.service.view(f"view {parent}", parent))
                    self.assertEqual(tree(place), tree(flat))
                    self.assertTrue(tree(flat)[0])
                place = self.mounted(self.service.prepare(f"active {number}", parent))
                self.assertEqual(tree(place), tree(flat))

    def test_128_layers(self):
        for i in range(128):
            self.layer(f"L{i}", f"L{i - 1}" if i else "", lambda place: (
                (place / f"file{i}").write_text(str(i)), (place / "last").write_text(str(i))))
        mounts = self.service.view("all", "L127")
        lower, = [option for option in mounts[0].options if option.startswith("lowerdir=")]
        self.assertEqual(len(lower.split(":")), 128)
        place = self.mounted(mounts)
        self.assertEqual((place / "last").read_text(), "127")
        self.assertEqual(len(os.listdir(place)), 129)

    def test_codes(self):
        service = self.service
        service.prepare("a")
        service.commit("A", "a", {"x": "1"})
        service.prepare("b", "A")
        service.view("v", "A")
        self.refused("ALREADY_EXISTS", service.prepare, "b")
        self.refused("ALREADY_EXISTS", service.view, "A")
        self.refused("NOT_FOUND", service.prepare, "c", "none")
        self.refused("INVALID_ARGUMENT", service.prepare, "c", "b")
        self.refused("FAILED_PRECONDITION", service.mounts, "A")
        self.refused("FAILED_PRECONDITION", service.commit, "V", "v")
        self.refused("NOT_FOUND", service.mounts, "none")
        self.refused("NOT_FOUND", service.usage, "none")
        self.refused("NOT_FOUND", service.stat, "none")
        self.refused("INVALID_ARGUMENT", service.list, "name=~")
        self.assertIn("remove", self.refused("FAILED_PRECONDITION", service.remove, "A"))
        info = service.stat("A")
        self.assertEqual((info.kind, info.parent, dict(info.labels)), (3, "", {"x": "1"}))
        info.labels.clear()
        self.refused("INVALID_ARGUMENT", service.update, info, "parent")
        self.assertEqual(dict(service.update(info, "labels.x").labels), {})
        self.assertEqual([mount.source for mount in service.mounts("b")], ["overlay"])
        self.assertEqual(self.names("kind==active"), {"b"})
        self.assertEqual(self.names("parent==A", "name==A"), {"b", "v", "A"})

    def known(self, name):
        info = self.service.stat(name)
        return info.kind, info.parent

    def make_six(self):
        """Two snapshots of each kind, with a label that tells them apart."""
        service = self.service
        for i, name in enumerate(("c1", "c2")):
            service.prepare(f"extract {name}", "c1" if i else "")
            service.commit(name, f"extract {name}", {"l": name, "c": ""})
        for name, parent in (("a1", ""), ("a2", "c2")):
            service.prepare(name, parent, {"l": name, "x.y/z": "a"})
        for name, parent in (("v1", "c1"), ("v2", "c2")):
            service.view(name, parent, {"l": name})

    def test_what_a_snapshot_is_known_as(self):
        self.make_six()
        for name, expected in {"c1": (COMMITTED, ""), "c2": (COMMITTED, "c1"), "a1": (ACTIVE, ""),
                               "a2": (ACTIVE, "c2"), "v1": (VIEW, "c1"),
                               "v2": (VIEW, "c2")}.items():
            self.assertEqual(self.known(name), expected)
        # List and Stat tell the same.
        for info in self.service.list():
            self.assertEqual(info, self.service.stat(info.name))
        self.refused("NOT_FOUND", self.service.stat, "extract c1")
        for used in ("c1", "a1", "v1"):
            self.refused("ALREADY_EXISTS", self.service.prepare, used)
            self.refused("ALREADY_EXISTS", self.service.view, used, "c1")
            self.refused("ALREADY_EXISTS", self.service.commit, used, "a2")
        self.assertEqual(self.known("a2"), (ACTIVE, "c2"))

    def test_update(self):
        service = self.service
        before = time.time_ns()
        self.make_six()
        after = time.time_ns()
        for name in ("c1", "c2", "a1", "a2", "v1", "v2"):
            info = service.stat(name)
            self.assertTrue(before <= info.created_at.ToNanoseconds() <= after, name)
            self.assertEqual(info.updated_at, info.created_at)
            first, created = info.updated_at.ToNanoseconds(), info.created_at.ToNanoseconds()
            parent, info.parent = info.parent, "v1"
            info.labels.clear()
            info.labels.update({"l1": "1", "l2": "2", "l3": "3"})
            for paths, labels, expected in (
                    ((), {"l1": "1", "l2": "2", "l3": "3"}, {"l1": "1", "l2": "2", "l3": "3"}),
                    (("labels.l1", "labels.l2"), {"l1": "new", "l3": "no"}, {"l1": "new", "l3": "3"}),
                    (("labels.none",), {"l1": "no"}, {"l1": "new", "l3": "3"}),
                    (("labels",), {"l4": "4"}, {"l4": "4"})):
                info.labels.clear()
                info.labels.update(labels)
                info = service.update(info, *paths)
                self.assertEqual((dict(info.labels), info.parent), (expected, parent))
                self.assertEqual(info.created_at.ToNanoseconds(), created)
                self.assertGreater(info.updated_at.ToNanoseconds(), first)
                first = info.updated_at.ToNanoseconds()
                self.assertEqual(service.stat(name), info)
            for path in ("parent", "kind", "name", "created_at", "labels."):
                self.refused("INVALID_ARGUMENT", service.update, info, "labels", path)
            self.assertEqual(service.stat(name), info)

    def test_a_removed_name_is_free(self):
        service = self.service
        self.make_six()
        self.refused("FAILED_PRECONDITION", service.remove, "c1")  # in the middle of a chain
        self.refused("FAILED_PRECONDITION", service.remove, "c2")
        for name in ("a2", "v2", "v1", "c2", "c1"):
            service.remove(name)
            self.refused("NOT_FOUND", service.stat, name)
            self.refused("NOT_FOUND", service.remove, name)
        service.prepare("c1")
        service.commit("c2", "c1")
        service.view("a2", "c2")
        service.remove("a2")
        service.prepare("a2", "c2")
        self.assertEqual(self.known("a2"), (ACTIVE, "c2"))
        self.assertEqual(self.names(), {"a1", "a2", "c2"})

    def test_filters(self):
        self.make_six()
        for filters, expected in (
                ((), "c1 c2 a1 a2 v1 v2"), (("kind==committed",), "c1 c2"),
                (("kind==active", "kind==view"), "a1 a2 v1 v2"), (("kind!=view",), "c1 c2 a1 a2"),
                (("kind==view,labels.l==v2",), "v2"), (("name==a1", "name==v2"), "a1 v2"),
                (("parent==c2",), "a2 v2"), (('parent!=""',), "c2 a2 v1 v2"),
                (("labels.c",), "c1 c2"), (('labels."x.y/z"==a',), "a1 a2"),
                (("name~=^[ac]1$",), "a1 c1"), (('name=="a1",parent==c1',), ""),
                (("labels.none",), "")):
            self.assertEqual(self.names(*filters), set(expected.split()), filters)

    def test_a_layer_without_an_image_is_ordinary(self):
        labels = {REFERENCE: "sha256:" + "0" * 64,
                  "containerd.io/snapshot/cri.image-ref": "not / a reference"}
        mount, = self.service.prepare("extract", "", labels)
        self.assertEqual(mount.type, "bind")
        self.assertIn("rw", mount.options)
        self.service.commit("layer", "extract", labels)
        # Whoever wants the same layer on the same parent has it.
        self.refused("ALREADY_EXISTS", self.service.prepare, "again", "", labels)
        self.assertEqual(self.names(), {"layer"})

    def test_a_registry_that_is_away_leaves_the_image_to_containerd(self):
        digest = "sha256:" + "1" * 64
        labels = {REFERENCE: digest, "containerd.io/snapshot/cri.image-ref": "127.0.0.1:1/a/b:c",
                  "containerd.io/snapshot/cri.manifest-digest": digest,
                  "containerd.io/snapshot/cri.layer-digest": digest}
        mount, = self.service.prepare("extract", "", labels)
        self.assertEqual(mount.type, "bind")
        self.assertIn("left to containerd to download", self.said("snapshotter.log"))

    def test_usage_and_cleanup(self):
        self.layer("A", "", lambda place: (place / "big").write_bytes(os.urandom(1 << 20)))
        usage = self.service.usage("A")
        self.assertEqual(usage.inodes, 2)
        self.assertTrue(1 << 20 <= usage.size < 2 << 20, usage.size)
        self.service.remove("A")
        self.service.cleanup()
        self.assertEqual(os.listdir(self.root / "trash"), [])
        self.assertEqual(os.listdir(self.root / "snapshots"), [])

    def test_stat_while_a_list_is_read(self):
        for i in range(250):
            self.service.prepare(f"s{i}")
        stream = self.service.call("List", self.service.api.ListSnapshotsResponse)
        sizes = [len(next(stream).info)]
        self.service.remove(f"s{0}")
        self.assertEqual(self.service.stat("s249").name, "s249")
        sizes += [len(block.info) for block in stream]
        self.assertEqual(sizes, [100, 100, 50])

    def test_two_clients_with_one_key(self):
        results = []

        def prepare():
            try:
                results.append(len(self.service.prepare("same")))
            except self.service.grpc.RpcError as error:
                results.append(error.code().name)

        threads = [threading.Thread(target=prepare) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(results, key=str), [1] + ["ALREADY_EXISTS"] * 7)
        wait = lambda: len(os.listdir(self.root / "snapshots")) == 1
        cluster.wait_for(wait, "one directory")

    def test_nothing_is_lost_by_a_kill(self):
        expected = {}
        for step in range(12):
            key = f"k8s.io/{step}/a b"
            self.service.prepare(key, "", {"step": str(step)})
            expected[key] = 2
            if step % 3 == 1:
                self.service.commit(f"C{step}", key)
                expected[f"C{step}"] = 3
                del expected[key]
            if step % 3 == 2:
                self.service.remove(f"k8s.io/{step - 2}/a b")
                del expected[f"k8s.io/{step - 2}/a b"]
            self.kill_snapshotter()
            self.start_snapshotter()
            self.assertEqual({info.name: info.kind for info in self.service.list()}, expected)

    def test_a_kill_inside_a_call(self):
        model, unsure = {}, 0
        random_choice = random.Random(1)
        for round_number in range(15):
            kill = threading.Timer(random_choice.uniform(0, 0.2), self.snapshotter.kill)
            kill.start()
            for step in range(10_000):
                key = f"{round_number}/{step // 3}"
                arguments = (("prepare", key), ("commit", f"C{key}", key),
                             ("remove", f"C{key}"))[step % 3]
                if step % 9 == 8:
                    arguments = ("stat", f"C{key}")  # every third one stays
                try:
                    getattr(self.service, arguments[0])(*arguments[1:])
                    model = after_call(model, *arguments)
                except self.service.grpc.RpcError as error:
                    self.assertIn(error.code().name, ("UNAVAILABLE", "CANCELLED", "UNKNOWN"))
                    break
            kill.join()
            self.kill_snapshotter()
            self.start_snapshotter()
            found = {info.name: info.kind for info in self.service.list()}
            # What was answered is there; what was under way has been done as a whole or not at all.
            both = [model, after_call(model, *arguments)]
            self.assertIn(found, both, arguments)
            model = found
            unsure += both[0] != both[1]
            # No directory is without its snapshot.
            cluster.wait_for(lambda: os.listdir(self.root / "trash") == [], "the trash is empty")
            self.assertEqual(len(os.listdir(self.root / "snapshots")), len(model))
        self.assertGreater(unsure, 0)  # some kill was inside a call

    def test_a_full_disk(self):
        self.kill_snapshotter()
        shutil.rmtree(self.root)
        self.root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", self.root], check=True)
        self.start_snapshotter()
        for i in range(3):
            self.service.prepare(f"{i}")
        with open(self.root / "ballast", "wb", buffering=0) as file:
            with self.assertRaises(OSError) as caught:
                while True:
                    file.write(bytes(4096))
            self.assertEqual(caught.exception.errno, errno.ENOSPC)
        # The log that SQLite appends to has no room for so many labels.
        labels = {f"containerd.io/snapshot/{i}": "x" * 4000 for i in range(64)}
        before = self.service.list()
        self.refused("RESOURCE_EXHAUSTED", self.service.commit, "C", "0", labels)
        self.refused("RESOURCE_EXHAUSTED", self.service.prepare, "3", "", labels)
        self.assertEqual(self.service.list(), before)
        self.refused("NOT_FOUND", self.service.stat, "C")
        self.kill_snapshotter()
        (self.root / "ballast").unlink()
        self.start_snapshotter()
        self.assertEqual(self.service.list(), before)
        self.assertEqual(len(os.listdir(self.root / "snapshots")), 3)
        self.service.commit("C", "0", labels)
        self.assertEqual(dict(self.service.stat("C").labels), labels)

    def test_a_parent_that_does_not_exist(self):
        labels = {REFERENCE: "sha256:" + "0" * 64}
        for call in (self.service.prepare, self.service.view):
            for parent in ("none", "a" * 500, "../snapshots/1"):
                self.refused("NOT_FOUND", call, "key", parent)
                self.refused("NOT_FOUND", call, "key", parent, labels)
        self.service.prepare("active")
        self.refused("INVALID_ARGUMENT", self.service.view, "key", "active", labels)
        self.refused("INVALID_ARGUMENT", self.service.prepare, "key", "active", labels)
        self.assertEqual(self.names(), {"active"})
        self.assertEqual(len(os.listdir(self.root / "snapshots")), 1)

    def test_a_stop_keeps_everything(self):
        self.layer("A", "", lambda place: (place / "file").write_text("text"))
        self.assertEqual(self.kill_snapshotter(signal.SIGTERM), 0)
        self.assertFalse(self.address.exists())
        self.start_snapshotter()
        place = self.mounted(self.service.view("v", "A"))
        self.assertEqual((place / "file").read_text(), "text")

    def start_refused(self):
        done = subprocess.run([SNAPSHOTTER, "--config", self.dir / "config.toml"],
                              capture_output=True, text=True, timeout=cluster.PATIENCE)
        self.assertEqual(done.returncode, 1)
        return done.stderr

    def test_a_second_one_and_a_lost_table(self):
        self.assertIn("another running snapshotter", self.start_refused())
        self.service.prepare("a")
        self.kill_snapshotter()
        os.rename(self.root / "metadata.db", self.root / "aside")
        for end in ("-wal", "-shm"):
            (self.root / f"metadata.db{end}").unlink(missing_ok=True)
        said = self.start_refused()
        self.assertIn("metadata.db is missing", said)
        self.assertIn("to heal it", said)
        (self.root / "metadata.db").write_bytes(b"x" * 10000)
        self.assertIn(f"{self.root}/metadata.db", self.start_refused())
        self.assertEqual((self.root / "metadata.db").read_bytes(), b"x" * 10000)


if __name__ == "__main__":
    cluster.main()
