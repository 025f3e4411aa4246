# SPDX-License-Identifier: Apache-2.0
"""Logins that come with pulls, through the proxy of CRI's image service, and from kubelet's plugins; at a
registry that wants one for everything and gives tokens that end within seconds."""
import base64
import hashlib
import json
import os
import pathlib
import subprocess

import cluster
import images
from cluster import Cluster, Layout, SNAPSHOTTER, base_layer, mounts_below, noise, wait_for

PASSWORD = "secret of the registry"


class CredentialsTest(Cluster):
    def setUp(self):
        super().setUp()
        layout = Layout(self.dir / "layout")
        base = layout.layer(base_layer(), "base")
        self.big = noise(3_000_000, "big")
        top = layout.layer(images.Layer().file("big", self.big), "top")
        layout.image("app", [base, top])
        layout.image("pause", [layout.layer(base_layer().file("pause", b"pause"), "pause")])
        (self.dir / "password").write_text(PASSWORD + "\n")
        self.run_registry("--username", "user", "--password-file", self.dir / "password",
                          "--token-ttl", "2", layout.path)
        # As the package has it, beside the program that mount-oci asks.
        programs = self.dir / "bin"
        programs.mkdir()
        (programs / "docker-credential-oci-snapshotter").symlink_to(SNAPSHOTTER)
        self.WRAPPER = ["env", f"PATH={programs}:{os.environ['PATH']}", f"HOME={self.dir}/home"]

    def begin(self, credentials):
        self.CONFIG = f"{Cluster.CONFIG}\n[credentials]\n{credentials}"
        self.start_snapshotter()
        self.start_containerd(sandbox=f"{self.host}/t/pause:pause")
        # kubelet's view: images through the snapshotter, containers by containerd.
        self.images = self.service.grpc.insecure_channel(f"unix:{self.address}")

    def image_call(self, method, version="v1", **fields):
        api = self.cri_api
        call = self.images.unary_unary(
            f"/runtime.{version}.ImageService/{method}",
            request_serializer=getattr(api, f"{method}Request").SerializeToString,
            response_deserializer=getattr(api, f"{method}Response").FromString)
        return call(getattr(api, f"{method}Request")(**fields), timeout=cluster.PATIENCE)

    def pull(self, name, password=PASSWORD, version="v1", **auth):
        if password:
            auth = {"username": "user", "password": password}
        image = self.cri_api.ImageSpec(image=f"{self.host}/t/{name}:{name}")
        return self.image_call("PullImage", version, image=image,
                               auth=self.cri_api.AuthConfig(**auth) if auth else None).image_ref

    def refused_pull(self, name, **fields):
        with self.assertRaises(self.service.grpc.RpcError) as caught:
            self.pull(name, **fields)
        return caught.exception

    def read_big(self, name="c"):
        pod = self.start_pod(f"p{name}")
        container = self.start_container(pod, "app", name=name)
        self.assertEqual(self.execute(container, "/bin/sha256sum", "/big").split()[0],
                         hashlib.sha256(self.big).hexdigest())
        return pod

    def secrets_on_disk(self):
        """Files with the password, in any form that helpers and files have it in."""
        forms = (PASSWORD.encode(), base64.b64encode(f"user:{PASSWORD}".encode()))
        return [str(path) for path in pathlib.Path(self.dir).rglob("*")
                if path.is_file() and not path.is_symlink() and path.name != "password"
                and not str(path).startswith((f"{self.dir}/state", f"{self.root}/mounts"))
                and any(form in path.read_bytes() for form in forms)]

    def secrets_of_processes(self):
        found = []
        for process in self.processes_of(str(self.dir)):
            for name in ("cmdline", "environ"):
                try:
                    with open(f"/proc/{process}/{name}", "rb") as file:
                        text = file.read()
                except OSError:
                    continue
                if PASSWORD.encode() in text:
                    found.append((process, name))
        return found


class ProxyTest(CredentialsTest):
    def setUp(self):
        super().setUp()
        self.begin(f'image_service = "{self.dir}/containerd.sock"')

    def test_a_pull_s_login_serves_the_image(self):
        error = self.refused_pull("app", password="wrong")
        self.assertNotIn("wrong", error.details())
        self.refused_pull("app", password="")
        self.assertNotIn("served lazily", self.said("snapshotter.log"))
        image = self.pull("app")
        self.pull("pause", password="", auth=base64.b64encode(f"user:{PASSWORD}".encode()).decode())
        self.assertEqual(self.said("snapshotter.log").count("served lazily"), 2,
                         self.said("snapshotter.log"))
        pod = self.read_big()
        self.assertEqual(len(mounts_below(self.root / "mounts")), 2)
        self.assertEqual((self.secrets_on_disk(), self.secrets_of_processes()), ([], []))
        for log in self.dir.glob("*.log"):
            if log.name != "containerd.log":
                self.assertNotIn(PASSWORD, log.read_text())
        self.assertIn("is there", self.find_login("app"))
        self.remove_pod(pod[0])
        # By its id, as kubelet removes images.
        self.image_call("RemoveImage", image=self.cri_api.ImageSpec(image=image))
        self.assertEqual(self.find_login("app"), "credentials not found in native keychain")
        self.assertIn("is there", self.find_login("pause"))

    def find_login(self, name, host=None, repository=None):
        """What mount-oci is told, without what must not be in a test's output."""
        done = subprocess.run(
            [self.dir / "bin/docker-credential-oci-snapshotter", "get"], text=True, capture_output=True,
            input=host or self.host, timeout=cluster.PATIENCE,
            env=os.environ | {"OCI_SNAPSHOTTER_ADDRESS": str(self.address),
                              "OCI_SNAPSHOTTER_REPOSITORY": repository or f"{self.host}/t/{name}"})
        if done.returncode != 0:
            return done.stdout.strip()
        told = json.loads(done.stdout)
        self.assertEqual((told["Username"], told["Secret"]), ("user", PASSWORD))
        return "the login is there"

    def test_a_login_is_for_its_repository_and_its_host_alone(self):
        self.pull("app")
        none = "credentials not found in native keychain"
        self.assertIn("is there", self.find_login("app"))
        self.assertEqual(self.find_login("pause"), none)
        self.assertEqual(self.find_login("app", host="other.example"), none)
        self.assertEqual(self.find_login("app", repository="other.example/t/app"), none)
        self.assertEqual(self.find_login("app", repository="../x"), none)
        # After a restart there is none, and docker's file is asked as ever.
        self.kill_snapshotter()
        self.start_snapshotter()
        self.assertEqual(self.find_login("app"), none)

    def test_every_method_is_handed_on_as_it_is(self):
        self.assertEqual(list(self.image_call("ListImages").images), [])
        version = self.containerd_version()
        image = self.pull("app", version="v1alpha2" if version < (2,) else "v1")
        listed, = self.image_call("ListImages").images
        self.assertEqual(listed.id, image)
        told = self.image_call("ImageStatus", image=self.cri_api.ImageSpec(image=image)).image
        self.assertEqual(told.repo_tags, [f"{self.host}/t/app:app"])
        # Bytes that this program knows nothing of come through, and containerd's own errors.
        raw = self.images.unary_unary("/runtime.v1.ImageService/ImageFsInfo",
                                      request_serializer=bytes, response_deserializer=bytes)
        place = str(self.root) if version >= (1, 7, 16) else "io.containerd.snapshotter.v1.oci"
        self.assertIn(place.encode(), raw(b"", timeout=cluster.PATIENCE))
        for method, code in (("/runtime.v1.ImageService/NoSuchMethod", "UNIMPLEMENTED"),
                             ("/runtime.v1.RuntimeService/ContainerStatus", "NOT_FOUND"),
                             ("/other.Service/Method", "UNIMPLEMENTED")):
            with self.assertRaises(self.service.grpc.RpcError) as caught:
                self.images.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)(
                    b"\x0a\x04none", timeout=cluster.PATIENCE)
            self.assertEqual(caught.exception.code().name, code, caught.exception.details())
        # A stream of answers, as of newer methods: here containerd's events of containers.
        stream = self.images.unary_stream("/runtime.v1.RuntimeService/GetContainerEvents",
                                          request_serializer=bytes, response_deserializer=bytes)
        with self.assertRaises(self.service.grpc.RpcError) as caught:
            list(stream(b"", timeout=5))
        # 1.6 has none; later ones send what happens, until nobody wants it any more.
        self.assertEqual(caught.exception.code().name,
                         "UNIMPLEMENTED" if version < (1, 7) else "DEADLINE_EXCEEDED")
        # Requests that are no messages reach containerd, and nothing here breaks.
        with self.assertRaises(self.service.grpc.RpcError):
            self.images.unary_unary("/runtime.v1.ImageService/PullImage", request_serializer=bytes,
                                    response_deserializer=bytes)(b"\xff\xff", timeout=cluster.PATIENCE)
        self.pull("app")

    def test_containerd_away_and_back(self):
        self.pull("app")
        self.containerd.kill()
        self.containerd.wait()
        error = self.refused_pull("app")
        self.assertEqual(error.code().name, "UNAVAILABLE")
        # The login of the pull that succeeded before is still there; and calls for snapshots go on.
        self.assertIn("is there", self.find_login("app"))
        self.assertEqual(len(self.service.list()), 2)
        self.start_containerd(sandbox=f"{self.host}/t/pause:pause")
        wait_for(lambda: self.is_listed(), "containerd is reached again")
        self.pull("app")

    def is_listed(self):
        try:
            return self.image_call("ListImages") is not None
        except self.service.grpc.RpcError:
            return False


class KubeletTest(CredentialsTest):
    def test_kubelet_s_plugins_give_the_login(self):
        plugins = self.dir / "plugins"
        plugins.mkdir()
        (plugins / "give").write_text(
            f'#!/bin/sh\necho asked >>{self.dir}/asked\nread -r password <{self.dir}/password\n'
            'echo \'{"kind":"CredentialProviderResponse","cacheKeyType":"Registry","cacheDuration":"1h",\''
            '"\\"apiVersion\\":\\"credentialprovider.kubelet.k8s.io/v1\\",\\"auth\\":{\\"$WHERE\\":'
            '{\\"username\\":\\"user\\",\\"password\\":\\"$password\\"}}}"\n')
        (plugins / "give").chmod(0o755)
        (self.dir / "kubelet.yaml").write_text(
            "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n"
            f"- name: give\n  matchImages: ['{self.host}']\n  defaultCacheDuration: 1h\n"
            "  apiVersion: credentialprovider.kubelet.k8s.io/v1\n"
            f"  env: [{{name: WHERE, value: '{self.host}'}}]\n")
        self.begin(f'image_service = "{self.dir}/containerd.sock"\n'
                   f'kubelet_config = "{self.dir}/kubelet.yaml"\nkubelet_plugins = "{plugins}"')
        self.pull("app")
        self.pull("pause")
        self.assertFalse((self.dir / "asked").exists())  # the pulls' own logins are nearer
        self.kill_snapshotter()
        for mount in mounts_below(self.root / "mounts"):
            subprocess.run(["umount", "-l", mount], check=True)
        self.start_snapshotter()
        wait_for(lambda: self.image_is_usable(), "containerd is back")
        self.read_big()
        self.assertTrue((self.dir / "asked").exists())
        self.assertEqual((self.secrets_on_disk(), self.secrets_of_processes()), ([], []))

    def image_is_usable(self):
        return self.ctr("snapshots", "--snapshotter", "oci", "ls", check=False,
                        namespace="k8s.io").returncode == 0


if __name__ == "__main__":
    cluster.main(*cluster.CONTAINERD)
