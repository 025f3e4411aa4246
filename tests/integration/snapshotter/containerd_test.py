# SPDX-License-Identifier: Apache-2.0
"""Debian's containerd and runc with oci-snapshotter: images that containerd unpacks, and images that are
mounted from a registry, over CRI and by ctr."""
import contextlib
import hashlib
import os
import pathlib
import signal
import subprocess

import cluster
import images
from cluster import Cluster, FOREVER, Layout, TOOL, base_layer, mounts_below, noise, wait_for

MIDDLE = noise(300_000, "middle")


class ContainerdTest(Cluster):
    def setUp(self):
        super().setUp()
        layout = Layout(self.dir / "layout")
        base = layout.layer(base_layer(), "base")
        middle = layout.layer(images.Layer().file("middle", MIDDLE), "middle")
        top = layout.layer(images.Layer().file("top", b"top"), "top")
        layout.image("app", [base, middle, top])
        layout.image("pause", [base])
        layout.image("low", [base, middle])
        self.layout, self.base, self.middle, self.top = layout, base, middle, top
        self.make_images()
        self.start_registry(layout.path)
        self.start_snapshotter()
        self.start_containerd(sandbox=f"{self.host}/t/pause:pause")

    def make_images(self):
        pass

    def stacks(self):
        """What is mounted of images."""
        return mounts_below(self.root / "mounts")

    def forget_pages(self, path):
        """Makes the kernel ask anew for a file of an image's mount."""
        for stack in self.stacks():
            with contextlib.suppress(FileNotFoundError), open(stack + path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def start_pod_with_users(self):
        api = self.cri_api
        ids = [api.IDMapping(host_id=200000, container_id=0, length=65536)]
        return self.start_pod("users", network=api.POD, userns_options=api.UserNamespace(
            mode=api.POD, uids=ids, gids=ids))

    def test_ctr_unpacks_what_has_no_labels(self):
        archive = self.dir / "image.tar"
        subprocess.run(["tar", "-C", self.layout.path, "-cf", archive, "."], check=True)
        self.ctr("image", "import", "--snapshotter", "oci", archive)
        done = self.ctr("run", "--rm", "--snapshotter", "oci", "--net-host", "--cgroup",
                        f"/{os.path.basename(os.environ[cluster.INSIDE])}/one", "example.com/app:1",
                        "one", "/bin/sha256sum", "/middle")
        self.assertEqual(done.stdout.split()[0], hashlib.sha256(MIDDLE).hexdigest())
        self.assertEqual(self.stacks(), [])
        for image in ("app", "low", "pause"):
            self.ctr("image", "rm", "--sync", f"example.com/{image}:1")
        wait_for(lambda: self.service.list() == [], "no snapshot is left")
        wait_for(lambda: os.listdir(self.root / "snapshots") == [], "no directory is left")

    def test_containers_of_one_image_share_a_mount(self):
        self.pull("app")
        self.assertIn("/t/app@", self.said("snapshotter.log"))
        pod = self.start_pod("p")
        self.assertEqual(len(self.stacks()), 1)  # the pause image's
        containers = [self.start_container(pod, "app", name=f"c{i}") for i in range(4)]
        self.assertEqual(len(self.stacks()), 2)
        for container in containers:
            self.assertEqual(self.execute(container, "/bin/cat", "/top"), "top")
            self.execute(container, "/bin/sh", "-c", "echo own >/top; rm /middle")
        self.assertEqual(self.execute(containers[0], "/bin/cat", "/top"), "own\n")
        # No layer was unpacked.
        committed = [info for info in self.service.list("kind==committed")]
        self.assertEqual(len(committed), 3)
        for info in committed:
            self.assertEqual(self.service.usage(info.name).inodes, 0)
        self.remove_pod(pod[0])
        for image in ("app", "pause"):
            self.remove_image(image)
        wait_for(lambda: self.service.list() == [], "no snapshot is left")
        wait_for(lambda: self.stacks() == [], "no mount is left")
        wait_for(lambda: os.listdir(self.root / "mounts") == [], "no directory is left")
        wait_for(lambda: not self.processes_of(f"{self.root}/mounts/"), "no process is left")

    def test_20_containers_need_no_more_than_one(self):
        expected = hashlib.sha256(MIDDLE).hexdigest()
        self.pull("app")
        pod = self.start_pod("p")
        containers = [self.start_container(pod, "app", ["/bin/sleep", "100000"], "c0")]
        self.assertEqual(self.execute(containers[0], "/bin/sha256sum", "/middle").split()[0], expected)
        stacks, fetched = self.stacks(), self.fetched()
        self.assertEqual(len(stacks), 2)  # the other one is the pause image's
        containers += [self.start_container(pod, "app", ["/bin/sleep", "100000"], f"c{i}")
                       for i in range(1, 20)]
        for container in containers:
            self.assertEqual(self.execute(container, "/bin/sha256sum", "/middle").split()[0], expected)
        self.assertEqual((self.stacks(), self.fetched()), (stacks, fetched))
        # What has been read once needs no registry, nor does a container that reads it alone.
        self.registry.kill()
        self.registry.wait()
        containers.append(self.start_container(pod, "app", ["/bin/sleep", "100000"], "late"))
        for container in containers:
            self.forget_pages("/middle")
            self.assertEqual(self.execute(container, "/bin/sha256sum", "/middle").split()[0], expected)
        self.assertEqual(self.stacks(), stacks)
        self.remove_pod(pod[0])
        for image in ("app", "pause"):
            self.remove_image(image)
        wait_for(lambda: self.stacks() == [], "no mount is left")

    def test_images_that_share_layers_are_not_mixed_up(self):
        for first, second in (("app", "low"), ("low", "app")):
            self.pull(first)
            self.pull(second)
            pod = self.start_pod(f"p{first}")
            containers = {name: self.start_container(pod, name, name=name) for name in (first, second)}
            files = {name: set(self.execute(containers[name], "/bin/ls", "/").split())
                     for name in containers}
            self.assertEqual(files["app"] - files["low"], {"top"})
            self.assertIn("middle", files["low"])
            # And the sandbox's image is their lowest layer alone.
            usual, = [mount for mount in self.stacks()
                      if not os.path.exists(os.path.join(mount, "middle"))]
            self.assertFalse(os.path.exists(os.path.join(usual, "top")))
            self.remove_pod(pod[0])
            for image in (first, second, "pause"):
                self.remove_image(image)
            wait_for(lambda: self.service.list() == [], "no snapshot is left")
            wait_for(lambda: self.stacks() == [], "no mount is left")

    def test_a_kill_disturbs_no_container(self):
        self.pull("app")
        pod = self.start_pod("p")
        container = self.start_container(pod, "app")
        stacks = self.stacks()
        self.kill_snapshotter()
        self.assertEqual(self.execute(container, "/bin/sha256sum", "/middle").split()[0],
                         hashlib.sha256(MIDDLE).hexdigest())
        self.start_snapshotter()
        # The same mounts go on, also for new containers.
        wait_for(lambda: self.ctr("snapshots", "--snapshotter", "oci", "ls", check=False,
                                  namespace="k8s.io").returncode == 0, "containerd is back")
        other = self.start_container(pod, "app", name="other")
        self.assertEqual(self.execute(other, "/bin/cat", "/top"), "top")
        self.assertEqual(self.stacks(), stacks)
        self.assertEqual(self.execute(container, "/bin/cat", "/top"), "top")

    def test_a_mount_that_is_gone_is_made_anew(self):
        self.pull("app")
        self.start_pod("p")
        self.kill_snapshotter()
        # As after a reboot: the table is there, and nothing is mounted.
        for mount in self.stacks():
            subprocess.run(["umount", "-l", mount], check=True)
        self.start_snapshotter()
        active, = self.service.list("kind==active")
        mount, = self.service.mounts(active.name)
        lower, = [option for option in mount.options if option.startswith("lowerdir=")]
        self.assertTrue(os.path.exists(lower.removeprefix("lowerdir=") + "/bin/busybox"))

    def test_a_commit_stands_on_a_lazy_image(self):
        self.pull("app")
        self.start_pod("p")
        chain = [info for info in self.service.list("kind==committed")]
        parents = {info.parent for info in chain}
        top, = [info for info in chain if info.name not in parents]
        self.service.prepare("change", top.name)
        self.service.commit("changed", "change")
        mount, = self.service.prepare("above", "changed")
        lower, = [option for option in mount.options if option.startswith("lowerdir=")]
        own, image = lower.removeprefix("lowerdir=").split(":")
        self.assertEqual(os.listdir(own), [])
        self.assertTrue(os.path.exists(image + "/top"))


class FirstContactTest(ContainerdTest):
    """An image whose signed index is in the registry: a container runs before its layers are there."""

    BIG = 64_000_000

    def make_images(self):
        self.public = self.dir / "key.pub"
        for command in (["genpkey", "-algorithm", "ed25519", "-out", self.dir / "key"],
                        ["pkey", "-in", self.dir / "key", "-pubout", "-out", self.public]):
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        self.WORDS = [f"oci.index_key={self.public}"]
        content = noise(self.BIG, "big")
        self.sum = hashlib.sha256(content).hexdigest()
        big = self.layout.layer(images.Layer().file("big", content).file("small", b"small"), "big")
        self.size = big[0]["size"]
        self.layout.image("big", [self.base, big])

    def push_index(self, name):
        subprocess.run([TOOL, "index", "--quiet", "--push", "--sign-key", self.dir / "key", "-o",
                        f"oci.insecure,oci.store={self.dir}/elsewhere",
                        f"{self.host}/t/{name}:{name}"], check=True, timeout=cluster.PATIENCE)

    def test_a_container_runs_before_its_layers_are_there(self):
        self.push_index("big")
        self.push_index("pause")
        before = self.fetched()
        self.pull("big")
        pod = self.start_pod("p")
        container = self.start_container(pod, "big")
        self.assertEqual(self.execute(container, "/bin/cat", "/small"), "small")
        self.assertGreater(self.size, 60_000_000)
        self.assertLess(self.fetched() - before, self.size / 4)
        self.assertEqual(self.execute(container, "/bin/sha256sum", "/big").split()[0],
                         self.sum)
        self.assertGreater(self.fetched() - before, self.size * 0.9)
        twice = self.fetched()
        other = self.start_container(pod, "big", name="other")
        self.execute(other, "/bin/sha256sum", "/big")
        self.assertLess(self.fetched() - twice, self.size / 10)

    def run_by_ctr(self, name, *words):
        return self.ctr("run", "--rm", "--snapshotter", "oci", "--cgroup",
                        f"/{os.path.basename(os.environ[cluster.INSIDE])}/{name}", *words).stdout

    def pull_by_ctr(self, name):
        image = f"{self.host}/t/{name}:{name}"
        self.ctr("image", "pull", "--plain-http", "--snapshotter", "oci", image)
        return image

    def test_ctr_pull(self):
        """By the transfer service it says of which image the layers are; before, it does not."""
        self.push_index("big")
        before = self.fetched()
        image = self.pull_by_ctr("big")
        said = self.run_by_ctr("one", "--net-host", image, "one", "/bin/cat", "/small")
        self.assertEqual(said, "small")
        if self.containerd_version() >= (2, 1):
            self.assertLess(self.fetched() - before, self.size / 4)
            self.assertIn("/t/big@", self.said("snapshotter.log"))
        else:
            self.assertGreater(self.fetched() - before, self.size)
            self.assertIn("left to containerd to download: its client", self.said("snapshotter.log"))

    def skip_without_mapped_mounts(self):
        if self.containerd_version() < (2,):
            self.skipTest("containerd before 2.0 mounts nothing with mapped owners")

    def test_a_user_namespace_by_ctr_stays_lazy(self):
        self.skip_without_mapped_mounts()
        self.push_index("big")
        before = self.fetched()
        image = self.pull_by_ctr("big")
        said = self.run_by_ctr("one", "--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536",
                               "--remap-labels", image, "one", "/bin/sh", "-c",
                               "cat /proc/self/uid_map; ls -ln /small; echo x >/new; ls -ln /new")
        self.assertEqual(said.split()[:3], ["0", "200000", "65536"])
        self.assertEqual([line.split()[2:4] for line in said.splitlines()[1:]], [["0", "0"]] * 2)
        self.assertLess(self.fetched() - before, self.size / 4)

    def test_a_pod_with_a_user_namespace_stays_lazy(self):
        self.skip_without_mapped_mounts()
        self.push_index("big")
        self.push_index("pause")
        before = self.fetched()
        self.pull("big")
        pod = self.start_pod_with_users()
        container = self.start_container(pod, "big")
        self.assertEqual(self.execute(container, "/bin/cat", "/proc/self/uid_map").split(),
                         ["0", "200000", "65536"])
        self.execute(container, "/bin/sh", "-c", "echo own >/small")
        self.assertEqual(self.execute(container, "/bin/ls", "-ln", "/small").split()[2:4], ["0", "0"])
        self.assertLess(self.fetched() - before, self.size / 4)
        # A pod without one has the same mounts.
        stacks = self.stacks()
        other = self.start_container(self.start_pod("usual"), "big")
        self.assertEqual(self.execute(other, "/bin/cat", "/small"), "small")
        self.assertEqual(self.stacks(), stacks)


class CopyTest(ContainerdTest):
    """A plugin that does not declare remap-ids."""

    def settings(self):
        return super().settings().replace('capabilities = ["remap-ids"]', "")

    def test_a_copy_for_a_user_namespace(self):
        if self.containerd_version() < (1, 7):
            self.skipTest("containerd before 1.7 has no pods with user namespaces")
        self.pull("app")
        container = self.start_container(self.start_pod_with_users(), "app")
        self.assertEqual(self.execute(container, "/bin/cat", "/proc/self/uid_map").split(),
                         ["0", "200000", "65536"])
        self.execute(container, "/bin/sh", "-c", "echo own >/top")
        for name in ("/top", "/middle"):
            self.assertEqual(self.execute(container, "/bin/ls", "-ln", name).split()[2:4], ["0", "0"])
        self.assertEqual(self.execute(container, "/bin/sha256sum", "/middle").split()[0],
                         hashlib.sha256(MIDDLE).hexdigest())


class LieTest(ContainerdTest):
    """An image whose configuration claims the diffIDs of another one."""

    def make_images(self):
        evil = self.layout.layer(images.Layer().file("middle", b"evil"), "evil")
        self.layout.image("evil", [self.base, evil, self.top],
                          diff_ids=[self.base[1], self.middle[1], self.top[1]])

    def test_a_lie_shows_nothing(self):
        self.pull("evil")
        pod = self.start_pod("p")
        with self.assertRaises(self.service.grpc.RpcError) as caught:
            self.start_container(pod, "evil")
        self.assertEqual(caught.exception.code().name, "FAILED_PRECONDITION")
        self.assertIn("chain ID", caught.exception.details())
        self.assertIn("its claims are forgotten", self.said("snapshotter.log"))
        for stack in self.stacks():
            self.assertFalse(os.path.exists(stack + "/middle"))
        # The honest image, once containerd has forgotten the false one.
        self.remove_image("evil")
        self.pull("app")
        container = self.start_container(pod, "app", name="honest")
        self.assertEqual(self.execute(container, "/bin/sha256sum", "/middle").split()[0],
                         hashlib.sha256(MIDDLE).hexdigest())


class SmallImagesTest(ContainerdTest):
    """Images below `min_size` are unpacked."""

    CONFIG = Cluster.CONFIG + "\nmin_size = 1000000000"

    def test_a_small_image_is_unpacked(self):
        self.pull("app")
        self.assertIn("less than", self.said("snapshotter.log"))
        pod = self.start_pod("p")
        container = self.start_container(pod, "app")
        self.assertEqual(self.execute(container, "/bin/cat", "/top"), "top")
        self.assertEqual(self.stacks(), [])


# Each class has its own tests alone: what it inherits is how to begin.
for one in (FirstContactTest, CopyTest, LieTest, SmallImagesTest):
    for name in [name for name in dir(ContainerdTest) if name.startswith("test_")]:
        if name not in vars(one):
            setattr(one, name, None)


if __name__ == "__main__":
    cluster.main(*cluster.CONTAINERD)
