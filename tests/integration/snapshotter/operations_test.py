# SPDX-License-Identifier: Apache-2.0
"""What an administrator sees of oci-snapshotter: its doctor, its metrics, its log."""
import json
import os
import shutil
import signal
import subprocess
import unittest

import cluster
import images
from cluster import Cluster, Layout, SNAPSHOTTER, base_layer, mounts_below, wait_for


class OperationsTest(Cluster):
    def setUp(self):
        super().setUp()
        layout = Layout(self.dir / "layout")
        base = layout.layer(base_layer(), "base")
        top = layout.layer(images.Layer().file("top", b"top"), "top")
        layout.image("app", [base, top])
        layout.image("pause", [layout.layer(base_layer().file("pause", b"pause"), "pause")])
        self.layout = layout
        self.start_registry(layout.path)
        self.metrics = self.dir / "metrics"
        self.CONFIG = f'{Cluster.CONFIG}\n[metrics]\naddress = "{self.metrics}"'
        self.start_snapshotter()
        self.start_containerd(sandbox=f"{self.host}/t/pause:pause")

    def doctor(self, status, *words, config=None, containerd=None):
        """The findings by their checks."""
        done = subprocess.run(
            [SNAPSHOTTER, "--config", config or self.dir / "config.toml", "doctor", "--json",
             "--containerd-config", containerd or self.dir / "containerd.toml", *words],
            capture_output=True, text=True, timeout=cluster.PATIENCE)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        checks = json.loads(done.stdout)["checks"]
        for one in checks:
            self.assertIn(one["state"], ("ok", "skipped", "warning", "failed"))
            if one["state"] in ("warning", "failed"):
                self.assertTrue(one["advice"], one)
        return {one["check"]: one for one in checks}

    def samples(self):
        """All samples by name, as Prometheus' own client reads them."""
        from prometheus_client.parser import text_string_to_metric_families
        done = subprocess.run(["curl", "-sS", "--fail", "--unix-socket", self.metrics, "http://x/metrics"],
                              capture_output=True, text=True, timeout=cluster.PATIENCE, check=True)
        out = {}
        for family in text_string_to_metric_families(done.stdout):
            self.assertIn(family.type, ("counter", "gauge"))
            self.assertTrue(family.documentation)
            for sample in family.samples:
                out.setdefault(sample.name.removeprefix("oci_snapshotter_"), []).append(sample)
        return out

    def test_the_doctor_finds_what_is_wrong(self):
        found = self.doctor(0)
        states = {name: one["state"] for name, one in found.items()}
        self.assertEqual(states, {
            "containerd": "ok", "plugin": "ok", "images": "ok", "labels": "ok", "snapshotter": "ok",
            "exports.root": "ok" if self.containerd_version() >= (1, 7, 16) else "warning",
            "remap-ids": "ok", "unit": "skipped", "mounts": "ok", "servers": "ok", "leaks": "ok"})
        # Its advice helps.
        os.makedirs(self.dir / "containerd/io.containerd.snapshotter.v1.oci", exist_ok=True)
        self.assertEqual(self.doctor(0)["exports.root"]["state"], "ok")
        # A containerd of another snapshotter.
        other = self.dir / "other.toml"
        other.write_text((self.dir / "config.toml").read_text().replace(
            f'address = "{self.address}"', f'address = "{self.dir}/nobody"'))
        found = self.doctor(1, config=other)
        self.assertEqual(found["plugin"]["state"], "failed")
        self.assertIn(f'address = "{self.dir}/nobody"', found["plugin"]["advice"])
        self.assertEqual(found["snapshotter"]["state"], "failed")
        # Without containerd's program its file is read as it is.
        found = self.doctor(0, "--containerd", self.dir / "none")
        self.assertEqual((found["containerd"]["state"], found["labels"]["state"]), ("warning", "ok"))
        none = self.dir / "none"
        self.assertEqual(self.doctor(1, "--containerd", none,
                                     containerd=none)["configuration"]["state"], "failed")

    def test_the_doctor_takes_the_snippet_that_it_gives(self):
        (self.dir / "containerd.toml").write_text('version = 2\n')
        found = self.doctor(1)
        _, _, snippet = found["plugin"]["advice"].partition("\n")
        (self.dir / "containerd.toml").write_text(snippet)
        found = self.doctor(0)
        self.assertEqual({found[name]["state"] for name in ("plugin", "images", "labels")}, {"ok"})

    def test_the_doctor_finds_mounts_that_are_dead_or_leaked(self):
        self.pull("app")
        pod = self.start_pod("p")
        self.start_container(pod, "app")
        stacks = mounts_below(self.root / "mounts")
        self.assertEqual(len(stacks), 2)
        self.assertEqual(self.doctor(0)["leaks"]["state"], "ok")
        self.assertFalse((self.root / "doctor").exists())
        self.kill_snapshotter()
        self.assertEqual(self.doctor(1)["leaks"]["state"], "ok")  # it does not answer
        cluster.kill_all(self.processes_of(f"{self.root}/mounts/"))
        wait_for(lambda: self.doctor(1)["servers"]["state"] == "failed", "the servers' death")
        for mount in stacks:
            self.assertIn(mount, self.doctor(1)["servers"]["text"])
        os.rename(self.root / "metadata.db", self.root / "away")
        found = self.doctor(1)
        self.assertEqual(found["leaks"]["state"], "failed")
        for mount in stacks:
            self.assertIn(mount, found["leaks"]["text"])

    def test_the_doctor_finds_a_mount_namespace_of_its_own(self):
        done = subprocess.run(["unshare", "--mount", SNAPSHOTTER, "--config", self.dir / "config.toml",
                               "doctor", "--containerd-config", self.dir / "containerd.toml"],
                              capture_output=True, text=True, timeout=cluster.PATIENCE)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(done.stdout, "failed   mounts: process [0-9]+ does not see")
        self.assertIn("-> run the snapshotter in containerd's mount namespace", done.stdout)

    def test_metrics_of_images_and_mounts(self):
        self.assertEqual(os.stat(self.metrics).st_mode & 0o777, 0o600)
        empty = self.samples()
        self.assertEqual(sum(one.value for one in empty["snapshots"]), 0)
        self.pull("app")
        pod = self.start_pod("p")
        for i in range(3):
            self.start_container(pod, "app", name=f"c{i}")
        # Workers tell their numbers once a second.
        wait_for(lambda: any(one.value for one in self.samples()["mount_read_bytes_total"]
                             if one.labels["layers"] == "2"), "reads")
        found = self.samples()
        app, = [one.labels["image"] for one in found["image_layers"] if one.value == 2]
        self.assertIn("/t/app@sha256:", app)
        pause, = [one.labels["image"] for one in found["image_layers"] if one.value == 1]

        def value(name, image, **labels):
            one, = [sample.value for sample in found[name] if sample.labels["image"] == image
                    and labels.items() <= sample.labels.items()]
            return one

        self.assertEqual([value("image_users", one) for one in (app, pause)], [3, 1])
        self.assertEqual(value("image_lazy", app), 1)
        self.assertEqual(value("image_mount_failures_total", app), 0)
        self.assertGreaterEqual(value("image_mounts_total", app), 1)
        self.assertEqual(value("mount_served", app, layers="2"), 1)
        self.assertGreater(value("mount_read_bytes_total", app, layers="2"), 0)
        self.assertEqual(found["mount_status_up"][0].value, 1)

    def test_metrics_of_many_images_come_whole(self):
        """More than a socket's buffer takes at once."""
        base = self.layout.layer(base_layer(), "b")
        for i in range(150):
            self.layout.image(f"many{i}", [base], command=[f"{i}"])
        self.registry.kill()
        self.start_registry(self.layout.path)
        from lazy_test import CRI, REFERENCE, chain_ids
        for i, entry in enumerate(self.layout.entries[-150:]):
            labels = {REFERENCE: chain_ids([base])[0], CRI + "manifest-digest": entry["digest"],
                      CRI + "image-ref": f"{self.host}/{'n' * 200}/many{i}:many{i}",
                      CRI + "layer-digest": base[0]["digest"]}
            self.refused("ALREADY_EXISTS", self.service.prepare, f"extract {i}", "", labels)
        self.assertEqual(len(self.samples()["image_lazy"]), 150)

    def test_each_image_has_a_line_in_the_log(self):
        self.pull("app")
        self.assertRegex(self.said("snapshotter.log"), r"/t/app@sha256:\w+: served lazily, 2 layers of")
        archive = self.dir / "image.tar"
        subprocess.run(["tar", "-C", self.layout.path, "-cf", archive, "."], check=True)
        self.kill_snapshotter(signal.SIGTERM)
        self.CONFIG += "\n[lazy]\nenabled = false"
        self.CONFIG = self.CONFIG.replace("[lazy]\ntimeout = 60", "", 1)
        self.start_snapshotter()
        # containerd needs a moment to find it again.
        wait_for(lambda: self.ctr("image", "import", "--snapshotter", "oci", archive,
                                  check=False).returncode == 0, "an import")
        self.assertRegex(self.said("snapshotter.log"),
                         "extract-.* sha256:[0-9a-f]+: left to containerd to download: its client")
        self.remove_image("app")
        self.pull("app")
        self.assertRegex(self.said("snapshotter.log"),
                         "/t/app@sha256:[0-9a-f]+: left to containerd to download: `lazy.enabled` is false")

    def test_what_serves_a_mount_has_a_scope_where_systemd_runs(self):
        """By a stand-in for systemd-run, which notes what it is to start, and starts it."""
        os.makedirs("/run/systemd", exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/systemd"], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", "/run/systemd"], check=True)
        os.mkdir("/run/systemd/system")
        programs = self.dir / "bin"
        programs.mkdir()
        (programs / "systemd-run").write_text(
            f'#!/bin/sh\necho "$@" >>{self.dir}/scopes\n'
            f'test -e {self.dir}/broken && {{ echo Failed to connect to bus >&2; exit 1; }}\n'
            'while test "$1" != --; do shift; done; shift; exec "$@"\n')
        (programs / "systemd-run").chmod(0o755)
        self.kill_snapshotter(signal.SIGTERM)
        self.WRAPPER = ["env", f"PATH={programs}:{os.environ['PATH']}"]
        self.start_snapshotter()
        wait_for(lambda: self.has_pulled("app"), "a pull")
        self.start_pod("p")
        scope, = (self.dir / "scopes").read_text().splitlines()
        stack, = mounts_below(self.root / "mounts")
        name = os.path.basename(os.path.dirname(stack))[:16]
        self.assertRegex(scope, f"^--scope --quiet --collect --unit=oci-mount-{name}-[0-9]+ ")
        self.assertIn(f" -- {cluster.TOOL} mount ", scope)
        # If systemd makes none, there is none.
        (self.dir / "broken").touch()
        self.start_container(self.start_pod("other"), "app")
        self.assertEqual(len(mounts_below(self.root / "mounts")), 2)
        self.assertEqual(len((self.dir / "scopes").read_text().splitlines()), 2)

    def has_pulled(self, name):
        try:
            return self.pull(name)
        except self.service.grpc.RpcError:  # containerd has not found the snapshotter yet
            return False

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_systemd_takes_the_units(self):
        source = cluster.TOP / "example/snapshotter"
        names = ["oci-snapshotter.service", "oci-snapshotter.socket"]
        for name in names:
            text = (source / name).read_text()
            (self.dir / name).write_text(text.replace("/usr/bin/oci-snapshotter", SNAPSHOTTER))
        verify = ["systemd-analyze", "--man=no", "verify", *(self.dir / name for name in names)]
        done = subprocess.run(verify, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        # It would say so.
        (self.dir / names[0]).write_text((self.dir / names[0]).read_text().replace("KillMode", "KilMode"))
        self.assertIn("KilMode", subprocess.run(verify, capture_output=True, text=True).stderr)
        with open(source / names[0]) as file:
            self.assertIn("KillMode=process\n", file)


if __name__ == "__main__":
    cluster.main(*cluster.CONTAINERD, "curl")
