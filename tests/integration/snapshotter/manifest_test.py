# SPDX-License-Identifier: Apache-2.0
"""The manifest for Kubernetes and the settings in doc/kubernetes.md: they are what they say, and agree with
the program's own defaults and its doctor. Needs no root."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[3]
SNAPSHOTTER = os.environ["OCI_SNAPSHOTTER"]
PAGE = TOP / "doc/kubernetes.md"


class ManifestTest(unittest.TestCase):
    def setUp(self):
        text = (TOP / "example/snapshotter/kubernetes/daemonset.yaml").read_text()
        self.objects = {one["kind"]: one for one in yaml.safe_load_all(text)}

    def test_its_objects_belong_together(self):
        self.assertEqual(set(self.objects), {"Namespace", "ConfigMap", "DaemonSet"})
        name = self.objects["Namespace"]["metadata"]["name"]
        for kind in ("ConfigMap", "DaemonSet"):
            self.assertEqual(self.objects[kind]["metadata"]["namespace"], name)
        spec = self.objects["DaemonSet"]["spec"]
        self.assertEqual(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"])
        pod = spec["template"]["spec"]
        self.assertTrue(pod["hostPID"])
        volumes = {one["name"] for one in pod["volumes"]}
        for container in pod["initContainers"] + pod["containers"]:
            self.assertEqual(container["image"], "IMAGE")
            self.assertTrue(container["securityContext"]["privileged"])
            self.assertLessEqual({one["name"] for one in container.get("volumeMounts", [])}, volumes)
            for script in container["args"]:
                subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        config, = [one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one]
        self.assertEqual(config, self.objects["ConfigMap"]["metadata"]["name"])

    def test_its_configuration_is_sound(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "oci-snapshotter.toml"
            path.write_text(self.objects["ConfigMap"]["data"]["oci-snapshotter.toml"])
            done = subprocess.run([SNAPSHOTTER, "--config", path, "config", "check"],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            # The check would say so, also of the file of kubelet's that it names.
            kubelet = pathlib.Path(directory) / "kubelet.yaml"
            kubelet.write_text("kind: Pod")
            path.write_text(f'[credentials]\nkubelet_config = "{kubelet}"\nkubelet_plugins = "/p"\n')
            done = subprocess.run([SNAPSHOTTER, "--config", path, "config", "check"],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn("kubelet.yaml: no CredentialProviderConfig", done.stderr)


class ConfigurationTest(unittest.TestCase):
    def test_the_documented_configuration_is_sound(self):
        text, = re.findall(r"^## Configuration.*?^```toml\n(.*?)^```",
                           (TOP / "doc/snapshotter.md").read_text(), re.M | re.S)
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "oci-snapshotter.toml"
            path.write_text(text)
            done = subprocess.run([SNAPSHOTTER, "--config", path, "config", "check"],
                                  capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)


class PageTest(unittest.TestCase):
    """The doctor, with the default configuration and a stand-in for containerd of each version."""

    def findings(self, version, settings):
        with tempfile.TemporaryDirectory() as directory:
            program = pathlib.Path(directory) / "containerd"
            program.write_text(f'#!/bin/sh\ntest "$1" = --version || exit 1\necho containerd x v{version} y\n')
            program.chmod(0o755)
            (pathlib.Path(directory) / "config.toml").write_text(settings)
            (pathlib.Path(directory) / "empty.toml").write_text("")
            done = subprocess.run(
                [SNAPSHOTTER, "--config", f"{directory}/empty.toml", "doctor", "--json",
                 "--containerd", program, "--containerd-config", f"{directory}/config.toml"],
                capture_output=True, text=True, timeout=120)
            return {one["check"]: one for one in json.loads(done.stdout)["checks"]}

    def test_the_settings_of_each_version_are_those_of_the_doctor(self):
        sections = dict(re.findall(r"^### containerd ([0-9.]+).*?^```toml\n(.*?)^```", PAGE.read_text(), re.M | re.S))
        self.assertEqual(set(sections), {"1.6", "1.7", "2.0", "2.1"})
        sections["1.7"] = sections["1.6"] + sections["1.7"]
        for version, settings in sections.items():
            for patch in ("20", "99"):
                found = self.findings(f"{version}.{patch}", settings)
                with self.subTest(version=version, found=found):
                    self.assertEqual({found[one]["state"] for one in ("plugin", "images", "labels")}, {"ok"})
                    # Of 1.7 the table may stand behind another one.
                    advice = self.findings(f"{version}.{patch}", "")["plugin"]["advice"]
                    lines = {line.strip() for line in advice.splitlines()[1:]}
                    self.assertEqual(lines, {line.strip() for line in settings.splitlines()})
        # Settings of one version are not right for another one.
        self.assertEqual(self.findings("2.1.0", sections["1.6"].replace(
            "disable_snapshot_annotations = false", ""))["labels"]["state"], "failed")


if __name__ == "__main__":
    try:
        import yaml
    except ImportError as error:
        print("skipped:", error)
        sys.exit(77)
    unittest.main(verbosity=2)
