# SPDX-License-Identifier: Apache-2.0
"""User namespaces: what is answered to the labels by which containerd tells of them, and the mounts of
mapped owners that it makes of the answer, made here as it makes them."""
import ctypes
import os
import pathlib
import subprocess
import tempfile

import cluster
import images
from cluster import wait_for
from lazy_test import LazyTest

LABEL = "containerd.io/snapshot/"
FIRST = 200_000  # what the namespace's root is to the host
RANGE = f"0:{FIRST}:65536"
MAPPED = {LABEL + "uidmapping": RANGE, LABEL + "gidmapping": RANGE}
OPTIONS = [f"uidmap={RANGE}", f"gidmap={RANGE}"]

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE, O_CLOEXEC = -100, 0x1000, 0x8000, 0o2000000
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 4, 0x100000


def call(number, *arguments):
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    done = libc.syscall(ctypes.c_long(number), *words)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def mount_mapped(source, target, namespace, below):
    """Clones a directory with the owners of a user namespace; and, as some versions of containerd, all
    that is mounted below."""
    recursive = AT_RECURSIVE if below else 0
    tree = call(OPEN_TREE, AT_FDCWD, str(source).encode(), OPEN_TREE_CLONE | recursive | O_CLOEXEC)
    try:
        wanted = (ctypes.c_uint64 * 4)(MOUNT_ATTR_IDMAP, 0, 0, namespace)
        call(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH | recursive, wanted, ctypes.sizeof(wanted))
        call(MOVE_MOUNT, tree, b"", AT_FDCWD, str(target).encode(), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


class OwnersTest(LazyTest):
    def setUp(self):
        super().setUp()
        process = subprocess.Popen(["unshare", "--user", "sleep", "1000"])
        self.addCleanup(lambda: (process.kill(), process.wait()))
        own = os.readlink("/proc/self/ns/user")
        wait_for(lambda: os.readlink(f"/proc/{process.pid}/ns/user") != own, "a user namespace")
        for kind in ("uid", "gid"):
            with open(f"/proc/{process.pid}/{kind}_map", "w") as file:
                file.write(RANGE.replace(":", " "))
        self.namespace = os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY)
        self.addCleanup(os.close, self.namespace)

    def mount_as_containerd(self, mount, below=False):
        """The mounted directory, as containerd 2 makes it of what it is told."""
        self.assertEqual(mount.type, "overlay")
        self.assertEqual([one for one in mount.options if one[:4] in ("uidm", "gidm")], OPTIONS)
        rest = [one for one in mount.options if one not in OPTIONS]
        lower, = [one for one in rest if one.startswith("lowerdir=")]
        places = lower.removeprefix("lowerdir=").split(":")
        # Go's path.Dir() of what all begin with.
        common = os.path.normpath(os.path.dirname(os.path.commonprefix(places)))
        clone, target = [pathlib.Path(tempfile.mkdtemp(dir=self.dir)) for _ in range(2)]
        mount_mapped(common, clone, self.namespace, below)
        rest[rest.index(lower)] = "lowerdir=" + ":".join(
            os.path.normpath(f"{clone}/{one.removeprefix(common)}") for one in places)
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", ",".join(rest), target], check=True)
        return target

    def owner(self, path):
        about = os.lstat(path)
        return about.st_uid, about.st_gid

    def make_ordinary(self, key, parent="", user=0, group=0):
        """A committed snapshot that is unpacked, with a file of an owner."""
        mount = self.service.prepare(f"{key} a", parent)[0]
        upper = mount.source if mount.type == "bind" else next(
            one for one in mount.options if one.startswith("upperdir=")).removeprefix("upperdir=")
        with open(f"{upper}/{key}", "w") as file:
            file.write(key)
        os.chown(f"{upper}/{key}", user, group)
        self.service.commit(key, f"{key} a")
        return upper

    def test_a_served_image_is_mounted_with_mapped_owners(self):
        top = self.claim(self.layers)
        for key, below in (("c", False), ("b", True)):
            target = self.mount_as_containerd(self.service.prepare(key, top, MAPPED)[0], below)
            self.assertEqual(self.owner(target), (FIRST, FIRST))
            for name in ("d", "file0", "file2"):
                self.assertEqual(self.owner(target / name), (FIRST, FIRST))
            self.assertEqual((target / "file2").read_text(), "2" * 1000)
        # The same answer later, and none of it for a container without a namespace.
        self.assertEqual(list(self.service.mounts("c")[0].options[:2]), OPTIONS)
        self.assertNotIn(OPTIONS[0], self.service.prepare("usual", top)[0].options)
        self.assertEqual(len(self.stacks()), 1)

    def test_an_unpacked_image_is_mounted_with_mapped_owners(self):
        self.make_ordinary("one", user=5, group=7)
        self.make_ordinary("two", "one")
        target = self.mount_as_containerd(self.service.prepare("c", "two", MAPPED)[0])
        self.assertEqual(self.owner(target), (FIRST, FIRST))
        self.assertEqual(self.owner(target / "one"), (FIRST + 5, FIRST + 7))
        self.assertEqual(self.owner(target / "two"), (FIRST, FIRST))

    def test_an_unpacked_layer_on_a_served_one_is_refused(self):
        """Of the two, some versions of containerd would map an empty directory."""
        self.make_ordinary("above", self.claim(self.layers), user=3)
        text = self.refused("FAILED_PRECONDITION", self.service.prepare, "c", "above", MAPPED)
        self.assertIn("has unpacked layers above it", text)
        self.assertIn("take `remap-ids` out", text)
        # A copy of it is not.
        os.chown(self.make_ordinary("copy", "above"), FIRST, FIRST)
        self.assertNotIn(OPTIONS[0], self.service.prepare("c", "copy", MAPPED)[0].options)

    def test_what_containerd_has_copied_is_not_mapped_twice(self):
        os.chown(self.make_ordinary("copy", user=FIRST + 5), FIRST, FIRST)
        mount, = self.service.prepare("c", "copy", MAPPED)
        self.assertFalse(set(OPTIONS) & set(mount.options), mount)
        upper, = [one for one in mount.options if one.startswith("upperdir=")]
        self.assertEqual(self.owner(upper.removeprefix("upperdir=")), (FIRST, FIRST))

    def test_labels_that_map_nothing_are_refused(self):
        top = self.claim(self.layers)
        for changed in ({"uidmapping": "0:1"}, {"gidmapping": "a:b:c"}, {"uidmapping": "0:1:0"},
                        {"uidmapping": "1:4294967295:2"}, {"gidmapping": ""},
                        {"uidmapping": f"{RANGE};"}):
            labels = MAPPED | {LABEL + name: value for name, value in changed.items()}
            self.refused("INVALID_ARGUMENT", self.service.prepare, "c", top, labels)
        self.refused("NOT_FOUND", self.service.stat, "c")

    def test_owners_of_other_users_are_mapped(self):
        """Those of the image's root directory, too."""
        layers = [self.layout.layer(images.Layer().dir("./", owner=(9, 8)).file("f", b"x"), "owned")]
        manifest = self.layout.image("owned", layers)
        self.start_registry(self.layout.path)
        top = self.claim(layers, "owned", manifest)
        target = self.mount_as_containerd(self.service.prepare("c", top, MAPPED)[0])
        self.assertEqual(self.owner(target), (FIRST + 9, FIRST + 8))


class FuseTest(LazyTest):
    ATTACH = "fuse-tree"

    def test_fuse_is_refused_with_what_to_do(self):
        top = self.claim(self.layers)
        text = self.refused("FAILED_PRECONDITION", self.service.prepare, "c", top, MAPPED)
        self.assertIn("mounted by FUSE", text)
        self.assertIn("take `remap-ids` out", text)
        self.refused("NOT_FOUND", self.service.stat, "c")
        # It is served all the same.
        self.assertEqual(len(os.listdir(self.lower(self.service.prepare("c", top)))), 4)


if __name__ == "__main__":
    cluster.main()
