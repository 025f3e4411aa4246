# SPDX-License-Identifier: Apache-2.0
"""The snapshots service as containerd expects it of every snapshotter, with real mounts, and over the
death of the process."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import cluster
from cluster import Cluster, SNAPSHOTTER

REFERENCE = "containerd.io/snapshot.ref"


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
