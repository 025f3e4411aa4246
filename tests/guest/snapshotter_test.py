# SPDX-License-Identifier: Apache-2.0
"""oci-snapshotter by netlink NBD: run in the guest by snapshotter_inside.sh."""
import glob
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration/snapshotter"))
import cluster  # noqa: E402
import containerd_test  # noqa: E402
from cluster import TOOL, kill_all, wait_for  # noqa: E402

CONTAINERS = 5
# What containers find out they write into their own layers: Debian's runc execs nothing in a container on this
# kernel ("error closing exec fds: open /proc/self/fd").
READ_FOREVER = ["/bin/sh", "-c", "while :; do sha256sum /big /small >>/sums 2>&1; sleep 2; done"]


def connected():
    """The nbd devices that somebody serves."""
    return {path.split("/")[3] for path in glob.glob("/sys/block/nbd*/pid")}


def drop_caches():
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


class NetlinkTest(containerd_test.FirstContactTest):
    ATTACH = "netlink"
    BIG = 8_000_000

    def status(self):
        done = subprocess.run([TOOL, "status", "--json", "--journal", self.dir / "journal"],
                              check=True, capture_output=True, timeout=cluster.PATIENCE)
        return json.loads(done.stdout)

    def devices(self):
        """What the kernel has mounted of images: file system and device by directory."""
        with open("/proc/self/mountinfo") as lines:
            fields = [line.split() for line in lines]
        return {line[4]: tuple(line[line.index("-") + 1:][:2]) for line in fields
                if line[4] in self.stacks()}

    def start_container(self, *words):
        """As kubelet does: a call that is refused for now is made again. An emulated processor is slow, so that
        `mount-oci status` may be given up; no other reason is good."""
        end = time.monotonic() + cluster.PATIENCE
        while True:
            try:
                return super().start_container(*words)
            except self.service.grpc.RpcError as error:
                if "status: " not in error.details() or time.monotonic() > end:
                    raise

    def rounds(self):
        """How often each container has read its files, all of them rightly."""
        right = [f"{self.sum}  /big", f"{hashlib.sha256(b'small').hexdigest()}  /small"]
        found = {}
        for file in self.root.glob("snapshots/*/fs/sums"):
            lines = file.read_text().splitlines()
            self.assertEqual(lines, right * (len(lines) // 2))
            found[file] = len(lines) // 2
        return found

    def all_read(self, containers):
        """From the device, and once more after now."""
        before = self.rounds()
        drop_caches()
        wait_for(lambda: len(self.rounds()) == containers and
                 all(count > before.get(file, 0) + 1 for file, count in self.rounds().items()),
                 "all containers read")

    def kill_workers(self):
        for _ in range(3):
            drop_caches()
            time.sleep(1)  # and somebody reads from the device again
            kill_all(one["worker"] for one in self.status() if one.get("worker_alive"))

    def test_containers_share_a_device_and_outlive_kills(self):
        self.push_index("pause")
        self.push_index("big")
        before = self.fetched()
        self.pull("big")
        pod = self.start_pod("p")
        self.assertLess(self.fetched() - before, self.size / 2)
        for i in range(CONTAINERS):
            self.start_container(pod, "big", READ_FOREVER, f"c{i}")
        # One for all of them, and the pause image's.
        devices = self.devices()
        self.assertEqual({kind for kind, _ in devices.values()}, {"erofs"})
        self.assertEqual({f"/dev/{name}" for name in connected()},
                         {device for _, device in devices.values()})
        self.assertEqual(len(devices), 2)

        self.all_read(CONTAINERS)
        self.assertLess(self.fetched() - before, self.size * 1.5)
        self.kill_workers()
        self.all_read(CONTAINERS)
        self.kill_snapshotter()
        self.kill_workers()
        self.all_read(CONTAINERS)
        self.assertGreater(min(one["restarts"] for one in self.status()), 0)

        self.start_snapshotter()
        wait_for(lambda: self.ctr("snapshots", "--snapshotter", "oci", "ls", check=False,
                                  namespace="k8s.io").returncode == 0, "containerd is back")
        self.start_container(pod, "big", READ_FOREVER, "late")
        self.all_read(CONTAINERS + 1)
        self.assertEqual(self.devices(), devices)

        self.remove_pod(pod[0])
        for image in ("big", "pause"):
            self.remove_image(image)
        wait_for(lambda: self.service.list() == [], "no snapshot is left")
        wait_for(lambda: self.stacks() == [], "no mount is left")
        wait_for(lambda: connected() == set(), "no device is connected")
        wait_for(lambda: os.listdir(self.root / "mounts") == [], "no directory is left")
        wait_for(lambda: not self.processes_of(f"{self.root}/mounts/"), "no process is left")


NetlinkTest.test_a_container_runs_before_its_layers_are_there = None

if __name__ == "__main__":
    cluster.main(*cluster.CONTAINERD)
