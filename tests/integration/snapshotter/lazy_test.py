# SPDX-License-Identifier: Apache-2.0
"""Layers that are served, by the calls that containerd makes: claims, labels that lie, a slow registry,
servers that die. Without containerd, so that each step can be looked at."""
import hashlib
import os
import signal
import socket
import subprocess
import threading
import time

import cluster
import images
from cluster import Cluster, Layout, SNAPSHOTTER, Service, mounts_below, noise, wait_for
from support import stop

REFERENCE = "containerd.io/snapshot.ref"
CRI = "containerd.io/snapshot/cri."


def chain_ids(layers):
    chain, out = "", []
    for _, diff_id in layers:
        chain = diff_id if not chain else "sha256:" + hashlib.sha256(
            f"{chain} {diff_id}".encode()).hexdigest()
        out.append(chain)
    return out


class LazyTest(Cluster):
    OPTIONS = []

    def setUp(self):
        super().setUp()
        layout = self.layout = Layout(self.dir / "layout")
        self.layers = [layout.layer(images.Layer().dir("d").file(f"file{i}", f"{i}".encode() * 1000),
                                    f"layer{i}") for i in range(3)]
        self.big = layout.layer(images.Layer().file("big", noise(8_000_000, "big")), "big")
        self.manifest = layout.image("app", self.layers)
        self.big_manifest = layout.image("big", [self.layers[0], self.big])
        self.start_registry(layout.path)
        self.start_snapshotter()

    def start_registry(self, layout):
        self.run_registry(*self.OPTIONS, layout)

    def labels(self, layers, depth, name="app", manifest=None, **changed):
        labels = {REFERENCE: chain_ids(layers)[depth - 1],
                  CRI + "image-ref": f"{self.host}/t/{name}:{name}",
                  CRI + "manifest-digest": manifest or self.manifest,
                  CRI + "layer-digest": layers[depth - 1][0]["digest"],
                  CRI + "image-layers": ",".join(one["digest"] for one, _ in layers[depth - 1:])}
        return labels | {CRI + key.replace("_", "-"): value for key, value in changed.items()}

    def find(self, chain, parent):
        """What containerd looks for when it is told that a layer is there."""
        return [info.name for info in
                self.service.list(f'labels."{REFERENCE}"=={chain},parent=="{parent}"')]

    def claim(self, layers, name="app", manifest=None, prefix="k8s.io/1/extract"):
        """Claims all layers as containerd does; the name of the top one."""
        parent = ""
        for depth, chain in enumerate(chain_ids(layers), 1):
            labels = self.labels(layers, depth, name, manifest)
            self.refused("ALREADY_EXISTS", self.service.prepare, f"{prefix} {chain}", parent, labels)
            found = self.find(chain, parent)
            self.assertEqual(len(found), 1, found)
            info = self.service.stat(found[0])
            self.assertEqual((info.kind, info.parent, info.labels[REFERENCE]), (3, parent, chain))
            parent = info.name
        return parent

    def lower(self, mounts):
        mount, = mounts
        if mount.type == "bind":
            return mount.source
        lower, = [option for option in mount.options if option.startswith("lowerdir=")]
        return lower.removeprefix("lowerdir=")

    def stacks(self):
        return mounts_below(self.root / "mounts")


class ClaimTest(LazyTest):
    def test_the_lowest_layers_are_mounted_at_any_depth(self):
        top = self.claim(self.layers)
        self.assertEqual(self.stacks(), [])
        middle = self.service.stat(top).parent
        bottom = self.service.stat(middle).parent
        for name, files in ((top, {"file0", "file1", "file2"}), (middle, {"file0", "file1"}),
                            (bottom, {"file0"})):
            place = self.lower(self.service.prepare(f"c {name}", name))
            self.assertEqual(set(os.listdir(place)) - {"d"}, files)
            self.assertEqual(self.lower(self.service.view(f"v {name}", name)), place)
        self.assertEqual(len(self.stacks()), 3)
        for info in self.service.list("kind!=committed"):
            self.service.remove(info.name)
        wait_for(lambda: self.stacks() == [], "unmounted")
        # What is mounted again is the same.
        place = self.lower(self.service.prepare("again", top))
        self.assertEqual(len(os.listdir(place)), 4)

    def test_two_namespaces_share_one_snapshot(self):
        top = self.claim(self.layers)
        self.assertEqual(self.claim(self.layers, prefix="other/7/extract"), top)
        self.assertEqual(len(self.service.list()), 3)

    def test_labels_that_lie_claim_nothing(self):
        layers = self.layers
        digest = "sha256:" + "7" * 64
        for changed in ({"layer_digest": layers[1][0]["digest"]}, {"layer_digest": "sha256:7"},
                        {"manifest_digest": digest}, {"manifest_digest": "x"},
                        {"image_ref": f"{self.host}/../etc"}, {"image_ref": ""}):
            labels = self.labels(layers, 1, **changed)
            mount, = self.service.prepare("extract", "", labels)
            self.assertEqual(mount.type, "bind", changed)
            self.service.remove("extract")
        # A chain ID that is another stack's.
        labels = self.labels(layers, 1) | {REFERENCE: chain_ids(layers)[1]}
        self.assertEqual(self.service.prepare("extract", "", labels)[0].type, "bind")
        # A layer in another place.
        self.claim(layers[:1])
        parent, = self.find(chain_ids(layers)[0], "")
        labels = self.labels(layers, 3)
        self.assertEqual(self.service.prepare("third", parent, labels)[0].type, "overlay")
        self.refused("NOT_FOUND", self.service.prepare, "x", "none", self.labels(layers, 2))

    def test_61_layers(self):
        """A label has room for the digests of 56."""
        layout = Layout(self.dir / "many")
        layers = [layout.layer(images.Layer().file(f"many{i}", b"x"), f"many{i}") for i in range(61)]
        manifest = layout.image("many", layers)
        self.start_registry(layout.path)
        labels = self.labels

        def cut(*arguments):
            made = labels(*arguments)
            made[CRI + "image-layers"] = ",".join(made[CRI + "image-layers"].split(",")[:56])
            self.assertLess(len(made[CRI + "image-layers"]), 4096)
            return made

        self.labels = cut
        top = self.claim(layers, "many", manifest)
        self.assertEqual(self.stacks(), [])
        place = self.lower(self.service.prepare("c", top))
        self.assertEqual(set(os.listdir(place)), {f"many{i}" for i in range(61)})
        self.assertEqual(len(self.stacks()), 1)

    def test_a_kill_between_claims_loses_none(self):
        parent = ""
        for depth, chain in enumerate(chain_ids(self.layers), 1):
            self.refused("ALREADY_EXISTS", self.service.prepare, f"x {depth}", parent,
                         self.labels(self.layers, depth))
            self.kill_snapshotter()
            self.start_snapshotter()
            parent, = self.find(chain, parent)
        place = self.lower(self.service.prepare("c", parent))
        self.assertEqual(len(os.listdir(place)), 4)
        self.kill_snapshotter()
        self.start_snapshotter()
        self.assertEqual(self.lower(self.service.mounts("c")), place)
        self.assertEqual(len(self.stacks()), 1)

    def test_what_is_indexed_needs_no_registry_to_be_listed_and_removed(self):
        top = self.claim(self.layers)
        self.service.prepare("c", top)
        self.registry.kill()
        self.kill_snapshotter()
        self.start_snapshotter()
        self.assertEqual(len(self.service.list()), 4)
        self.assertEqual(len(os.listdir(self.lower(self.service.mounts("c")))), 4)
        self.service.remove("c")

    def test_a_mount_whose_servers_died_is_made_anew(self):
        top = self.claim(self.layers)
        place = self.lower(self.service.prepare("c", top))
        cluster.kill_all(self.processes_of(f"{self.root}/mounts/"))
        time.sleep(6)  # for so long a mount that was looked at is handed out
        self.assertEqual(self.lower(self.service.prepare("d", top)), place)
        with open(place + "/file2") as file:
            self.assertEqual(file.read(), "2" * 1000)

    def test_a_mount_that_was_unmounted_is_never_an_empty_directory(self):
        top = self.claim(self.layers)
        place = self.lower(self.service.prepare("c", top))
        subprocess.run(["umount", "-l", place], check=True)
        self.assertEqual(self.lower(self.service.mounts("c")), place)
        self.assertEqual(len(os.listdir(place)), 4)

    def test_where_mounts_are_not_seen_nothing_is_served(self):
        self.assertNotIn("warning", self.said("snapshotter.log"))
        top = self.claim(self.layers)
        self.kill_snapshotter()
        self.WRAPPER = ["unshare", "--mount"]
        self.start_snapshotter()
        self.assertIn("process 1 does not see", self.said("snapshotter.log"))
        for call in (self.service.prepare, self.service.view):
            self.assertIn("process 1 does not see", self.refused("UNAVAILABLE", call, "c", top))
        # Neither an image that is known nor a new one is served; both can be unpacked.
        for layers, name, manifest in ((self.layers, "app", self.manifest),
                                       ([self.big], "big", self.big_manifest)):
            labels = self.labels(layers, 1, name, manifest)
            mount, = self.service.prepare("extract", "", labels)
            self.assertEqual((mount.type, mount.options[0]), ("bind", "rw"))
            self.service.remove("extract")
        self.assertEqual(len(self.service.list()), 3)
        self.kill_snapshotter()
        self.WRAPPER = []
        self.start_snapshotter()
        self.assertEqual(len(os.listdir(self.lower(self.service.prepare("c", top)))), 4)
        self.assertFalse((self.root / "seen").exists())

    def test_notified_and_given_a_socket(self):
        self.kill_snapshotter()
        notify, listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), socket.socket(
            socket.AF_UNIX)
        self.addCleanup(notify.close)
        self.addCleanup(listener.close)
        notify.bind(str(self.dir / "notify"))
        notify.settimeout(cluster.PATIENCE)
        listener.bind(str(self.dir / "given"))
        listener.listen()
        place = Service(self.dir / "given")
        call = place.channel.unary_unary(
            cluster.SERVICE + "Stat", response_deserializer=place.api.StatSnapshotResponse.FromString,
            request_serializer=place.api.StatSnapshotRequest.SerializeToString)
        waiting = call.future(place.api.StatSnapshotRequest(key="none"),
                              timeout=cluster.PATIENCE)
        # The call waits while nobody is there to answer it.
        code = (f"import os, sys; os.dup2({listener.fileno()}, 3); "
                "os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])")
        process = subprocess.Popen(
            ["/usr/bin/python3", "-c", code, SNAPSHOTTER, "--config", self.dir / "config.toml"],
            pass_fds=[listener.fileno()],
            env=os.environ | {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(self.dir / "notify")})
        self.addCleanup(lambda: (process.kill(), process.wait()))
        self.assertEqual(notify.recv(100), b"READY=1")
        self.assertEqual(waiting.exception().code().name, "NOT_FOUND")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(notify.recv(100), b"STOPPING=1")
        self.assertEqual(process.wait(cluster.PATIENCE), 0)


class SlowTest(LazyTest):
    """A registry that sends so slowly that the index of the image takes 80 seconds and more."""

    OPTIONS = ["--bandwidth", "100000"]
    MOUNT_TIMEOUT = 2

    def prepare_within(self, seconds, parent):
        """The error of a Prepare that is given so long, or, by None, any time."""
        request = self.service.api.PrepareSnapshotRequest(key="c", parent=parent)
        call = self.service.channel.unary_unary(
            cluster.SERVICE + "Prepare", response_deserializer=bytes,
            request_serializer=self.service.api.PrepareSnapshotRequest.SerializeToString)
        with self.assertRaises(self.service.grpc.RpcError) as caught:
            call(request, timeout=seconds)
        return caught.exception

    def test_who_waits_stops_nobody_else(self):
        top = self.claim([self.layers[0], self.big], "big", self.big_manifest)
        errors = []
        waiting = threading.Thread(
            target=lambda: errors.append(self.prepare_within(cluster.PATIENCE, top)))
        waiting.start()
        self.addCleanup(waiting.join)
        for i in range(20):
            self.service.prepare(f"other {i}")
            info = self.service.stat(f"other {i}")
            self.service.update(info, "labels")
            self.service.list()
            self.service.remove(f"other {i}")
        self.assertEqual(errors, [])  # all of this was done while it waited
        # Without a deadline, a call waits for as long as the configuration says.
        error = self.prepare_within(None, top)
        self.assertEqual(error.code().name, "UNAVAILABLE")
        self.assertIn("still being indexed", error.details())
        # With one, the answer comes before it. On a busy machine it may come late, but not always.
        for seconds in (4, 8, 12):
            error = self.prepare_within(seconds, top)
            if error.code().name == "UNAVAILABLE":
                break
        self.assertIn("still being indexed", error.details())
        self.refused("NOT_FOUND", self.service.stat, "c")
        # A stop does not wait for it, and nothing of it stays.
        self.assertEqual(self.kill_snapshotter(signal.SIGTERM), 0)
        waiting.join()
        self.assertIn(errors[0].code().name, ("UNAVAILABLE", "CANCELLED"))
        self.assertEqual(self.stacks(), [])


class DeadRegistryTest(LazyTest):
    CONFIG = "[lazy]\ntimeout = 1"

    def test_a_registry_that_dies_between_claim_and_container(self):
        stop(self.registry)
        self.addCleanup(self.registry.send_signal, signal.SIGCONT)
        mount, = self.service.prepare("x", "", self.labels(self.layers, 1))
        self.assertEqual(mount.type, "bind")  # a second has passed
        self.registry.send_signal(signal.SIGCONT)
        self.service.remove("x")
        # The other image was not asked for yet.
        self.kill_snapshotter()
        self.CONFIG = Cluster.CONFIG
        self.start_snapshotter()
        top = self.claim([self.layers[0], self.big], "big", self.big_manifest)
        self.registry.kill()
        self.registry.wait()
        code = self.service.grpc.StatusCode
        try:
            place = self.lower(self.service.prepare("c", top))
            self.assertEqual(os.listdir(place), ["big"])  # its index was made in time
        except self.service.grpc.RpcError as error:
            self.assertEqual(error.code(), code.UNAVAILABLE)
            self.assertIn(self.host, error.details())


if __name__ == "__main__":
    cluster.main()
