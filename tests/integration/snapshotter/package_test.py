# SPDX-License-Identifier: Apache-2.0
"""The package that CPack makes of oci-snapshotter: its files, what it depends on, its scripts. Needs no root."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(os.environ["PROJECT_BUILD"])


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        subprocess.run(["cpack", "-G", "DEB", "-D", "CPACK_COMPONENTS_ALL=oci-snapshotter", "-B", cls.dir],
                       cwd=BUILD, check=True, capture_output=True)
        cls.package, = cls.dir.glob("*.deb")
        subprocess.run(["dpkg-deb", "-R", cls.package, cls.dir / "all"], check=True)
        cls.all = cls.dir / "all"

    def field(self, name):
        return subprocess.run(["dpkg-deb", "-f", self.package, name], check=True, capture_output=True,
                              text=True).stdout.strip()

    def test_its_fields(self):
        self.assertEqual(self.field("Package"), "oci-snapshotter")
        self.assertEqual(self.field("Architecture"), subprocess.run(
            ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip())
        depends = {one.split()[0] for one in self.field("Depends").split(",")}
        self.assertLessEqual({"mount-oci", "libc6"}, depends)
        for library in ("libgrpc++", "libprotobuf", "libsqlite3", "libyaml-cpp"):
            self.assertTrue(any(one.startswith(library) for one in depends), (library, depends))
        self.assertTrue(self.field("Description"))

    def test_its_files(self):
        files = {str(path.relative_to(self.all)) for path in self.all.rglob("*")
                 if not path.is_dir() and "DEBIAN" not in path.parts}
        doc = "usr/share/doc/oci-snapshotter"
        self.assertEqual(files, {
            "usr/bin/oci-snapshotter", "usr/bin/docker-credential-oci-snapshotter",
            "usr/lib/systemd/system/oci-snapshotter.service", "usr/lib/systemd/system/oci-snapshotter.socket",
            f"{doc}/copyright", f"{doc}/changelog.gz", f"{doc}/snapshotter.md", f"{doc}/kubernetes.md",
            f"{doc}/daemonset.yaml"})
        helper = self.all / "usr/bin/docker-credential-oci-snapshotter"
        self.assertEqual(os.readlink(helper), "oci-snapshotter")
        done = subprocess.run([helper, "store"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr),
                         (1, "docker-credential-oci-snapshotter: only `get`\n"))

    def test_its_scripts(self):
        for name in ("postinst", "prerm", "postrm"):
            script = self.all / "DEBIAN" / name
            self.assertTrue(os.access(script, os.X_OK))
            subprocess.run(["sh", "-n", script], check=True)
            self.assertNotIn("DEBHELPER", script.read_text())


if __name__ == "__main__":
    if shutil.which("dpkg-shlibdeps") is None or not (BUILD / "CPackConfig.cmake").exists():
        print("skipped: no dpkg-dev, or a build that makes no packages")
        sys.exit(77)
    unittest.main(verbosity=2)
