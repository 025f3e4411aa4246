# SPDX-License-Identifier: Apache-2.0
"""Real mounts on this machine, without NBD: by the kernel's EROFS on a file that FUSE serves, and by
files through FUSE, as root and as nobody; compared with what an independent unpacker makes of the
same image; and what remains after each way to end them. All in a mount namespace of its own."""
import contextlib
import json
import os
import pickle
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import unittest
from concurrent.futures import ThreadPoolExecutor

import images
from support import FIXTURES, TOOL, own_mounts

NOBODY = 65534
WAYS = ["fuse-file", "fuse-tree"]
HERE = os.path.dirname(os.path.abspath(__file__))


def why_skip():
    """Why nothing can be tested here, or nothing."""
    if os.geteuid() != 0:
        return "not root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse"
    if why := own_mounts():
        return why
    # Where private directories are made for a moment: other tests' are none of ours.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    # A machine without udev leaves /dev/fuse to root.
    if os.stat("/dev/fuse").st_mode & 0o6 != 0o6:
        node = f"/var/tmp/erofs_oci-fuse-{os.getpid()}"
        os.mknod(node, stat.S_IFCHR | 0o666, os.stat("/dev/fuse").st_rdev)
        os.chmod(node, 0o666)
        subprocess.run(["mount", "--bind", node, "/dev/fuse"], check=True)
        os.unlink(node)
    return None


def entries(path):
    """The lines of the mount table for a mount point."""
    with open("/proc/self/mounts") as file:
        return [line.split() for line in file if line.split()[1] == path]


def daemons(words):
    """The processes whose command line has all these words."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                line = file.read().decode(errors="replace").split("\0")
            if line[0] == TOOL and all(word in line for word in words):
                found.append(int(name))
        except OSError:
            pass
    return found


def as_user(user, function):
    """What a function gives that is called in a process of another user."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            with open(theirs, "wb") as file:
                file.write(pickle.dumps(function()))
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.close(theirs)
    with open(ours, "rb") as file:
        data = file.read()
    if os.waitpid(child, 0)[1] != 0:
        raise AssertionError("failed as another user")
    return pickle.loads(data)


def private_directories():
    return [name for name in os.listdir("/run") if name.startswith(("erofs_oci-", "mount-oci-"))]


def wait_for(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class MountTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.base = tempfile.mkdtemp(dir="/var/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.base, ignore_errors=True)
        os.chmod(cls.base, 0o755)
        cls.layout = images.layout_of(os.path.join(cls.base, "image"), images.three_layers())
        cls.image = f"oci:{cls.layout}:v1"
        for folder, folders, files in os.walk(cls.layout):
            for name in folders + files:
                os.chmod(os.path.join(folder, name), 0o755)
        cls.plain = None
        if shutil.which("umoci"):
            cls.plain = images.unpacked(cls.layout, os.path.join(cls.base, "plain"))

    def setUp(self):
        self.dir = tempfile.mkdtemp(dir="/var/tmp")
        os.chmod(self.dir, 0o755)
        self.mnt = os.path.join(self.dir, "mnt")
        os.mkdir(self.mnt)
        self.addCleanup(self.clean_up)

    def clean_up(self):
        while entries(self.mnt):
            subprocess.run(["umount", "-l", self.mnt], check=True)
        for pid in daemons([self.mnt]):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.dir)

    def run_tool(self, *words, user=None, path=os.environ["PATH"]):
        environment = dict(os.environ, HOME=self.dir, XDG_RUNTIME_DIR=self.dir, PATH=path)
        return subprocess.run([TOOL, *words], capture_output=True, text=True, timeout=60, user=user,
                              group=user, extra_groups=[] if user else None, env=environment)

    def mount(self, *words, user=None, image=None):
        """Mounts; what was said."""
        store = "none" if user else os.path.join(self.base, "store")
        done = self.run_tool("mount", "--journal", os.path.join(self.dir, "journal"), "-o",
                             f"oci.store={store}", *words, image or self.image, self.mnt, user=user)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(entries(self.mnt)), 1)
        self.assertEqual(private_directories(), [], "a killed daemon would leave it")
        return done.stderr

    def assert_gone(self):
        self.assertEqual(entries(self.mnt), [])
        self.assertTrue(wait_for(lambda: not daemons([self.mnt])), "a daemon is left")
        self.assertEqual(private_directories(), [])
        self.assertEqual(os.listdir(self.mnt), [])

    def umount(self, user=None):
        done = self.run_tool("umount", self.mnt, user=user)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(daemons([self.mnt]), [], "umount did not wait for the daemon")
        self.assert_gone()

    def need_plain(self):
        if self.plain is None:
            self.skipTest("umoci is not installed")

    def compare(self, expected, found):
        self.assertEqual(images.differences(images.tree(expected), images.tree(found)), [])


class FuseMountTest(MountTest):
    def test_both_ways_give_what_umoci_unpacks(self):
        self.need_plain()
        for way in WAYS:
            for life in [], ["--no-supervise", "--allow-unconfined"]:
                with self.subTest(way=way, life=life):
                    self.mount("--attach", way, *life)
                    self.assertEqual(entries(self.mnt)[0][2],
                                     "erofs" if way == "fuse-file" else "fuse.erofs_oci")
                    self.compare(self.plain, self.mnt)
                    self.umount()

    def test_du_of_the_image_is_du_of_the_mount(self):
        done = self.run_tool("du", "-o", f"oci.store={self.base}/store", "--json", self.image)
        self.assertEqual(done.returncode, 0, done.stderr)
        ours = {entry["path"]: entry["blocks"] for entry in map(json.loads, done.stdout.splitlines())}
        for way in WAYS:
            with self.subTest(way):
                self.mount("--attach", way)
                lines = subprocess.run(["du", "--block-size=1", self.mnt], check=True, text=True,
                                       capture_output=True).stdout.splitlines()
                theirs = {path.removeprefix(self.mnt) or "/": int(size)
                          for size, path in (line.split("\t") for line in lines)}
                self.assertEqual(ours, theirs)
                self.umount()

    def test_odd_members(self):
        layers, expected = images.odd_layers()
        layout = images.layout_of(os.path.join(self.dir, "odd"), layers)
        for way in WAYS:
            with self.subTest(way):
                self.mount("--attach", way, image=f"oci:{layout}:v1")
                found = {}
                for name in os.listdir(self.mnt):
                    with open(os.path.join(self.mnt, name), "rb") as file:
                        found[name] = file.read()
                self.assertTrue(found == expected)
                self.umount()

    def test_one_process_of_roots_has_to_be_allowed(self):
        done = self.run_tool("mount", "--no-supervise", f"oci:{self.layout}", self.mnt)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--allow-unconfined", done.stderr)
        self.assertEqual(entries(self.mnt), [])

    def test_files_for_a_user(self):
        self.need_plain()
        os.chown(self.mnt, NOBODY, NOBODY)
        said = self.mount("--no-supervise", user=NOBODY)
        self.assertIn("fuse-tree", said)
        found = as_user(NOBODY, lambda: images.tree(self.mnt))
        self.assertEqual(images.differences(images.tree(self.plain), found), [])
        self.umount(user=NOBODY)

    def test_the_choice_is_said_and_why(self):
        if os.path.exists("/sys/module/nbd"):
            self.skipTest("this machine has nbd")
        said = self.mount()
        self.assertRegex(said, r"^mount-oci: mounted by fuse-file: [^\n]+\n$")
        self.umount()
        said = self.mount("-v")
        self.assertIn("not netlink: no nbd in this kernel", said)
        self.assertIn("not ioctl: no nbd in this kernel", said)
        self.umount()

    def test_what_was_asked_for_is_not_replaced(self):
        if os.path.exists("/sys/module/nbd"):
            self.skipTest("this machine has nbd")
        for words in ["--attach", "netlink"], ["--attach", "ioctl"], ["-t", "erofs.nbd"]:
            done = self.run_tool("mount", *words, self.image, self.mnt)
            self.assertEqual(done.returncode, 32)
            self.assertIn("no nbd in this kernel", done.stderr)
            self.assert_gone()

    def test_a_target_that_is_no_directory(self):
        file = os.path.join(self.dir, "file")
        open(file, "w").close()
        for target, why in (file, "Not a directory"), (file + "x", "No such file"):
            done = self.run_tool("mount", "--attach", "fuse-tree", self.image, target)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(target + ": " + why, done.stderr)

    def test_another_namespace_needs_a_device(self):
        done = self.run_tool("mount", "-t", "erofs.fuse", "-N", "1", self.image, self.mnt)
        self.assertEqual(done.returncode, 1)
        self.assertIn("FUSE cannot be mounted in another namespace", done.stderr)

    def test_words_for_the_kernel(self):
        done = self.run_tool("mount", "--attach", "fuse-tree", "-o", "noacl", self.image, self.mnt)
        self.assertEqual(done.returncode, 1)
        self.assertIn("noacl", done.stderr)
        self.mount("--attach", "fuse-file", "-o", "noacl,nosuid,noexec")
        options = entries(self.mnt)[0][3].split(",")
        self.assertNotIn("acl", options)
        self.assertLessEqual({"ro", "nosuid", "noexec"}, set(options))
        self.umount()
        self.mount("--attach", "fuse-tree", "-o", "noexec")
        options = entries(self.mnt)[0][3].split(",")
        self.assertLessEqual({"ro", "noexec"}, set(options))
        self.umount()

    def test_an_image_has_no_power_unless_asked(self):
        for way in WAYS:
            for writable in [], ["--writable"]:
                for words, wanted in ([], {"nosuid", "nodev"}), (["-o", "suid"], {"nodev"}), \
                                     (["-o", "dev"], {"nosuid"}), (["-o", "suid,dev"], set()):
                    with self.subTest(way=way, writable=writable, words=words):
                        self.mount("--attach", way, *writable, *words)
                        options = set(entries(self.mnt)[-1][3].split(","))
                        self.assertEqual(options & {"nosuid", "nodev"}, wanted)
                        self.umount()

    def test_what_lies_over_the_image_stays(self):
        for way in WAYS:
            with self.subTest(way=way):
                self.mount("--attach", way)
                subprocess.run(["mount", "-t", "tmpfs", "over it", self.mnt], check=True)
                done = self.run_tool("umount", self.mnt)
                self.assertEqual(done.returncode, 32, done.stderr)
                self.assertIn("tmpfs from over it is mounted over the image", done.stderr)
                self.assertEqual(len(entries(self.mnt)), 2)
                subprocess.run(["umount", self.mnt], check=True)
                self.umount()
        subprocess.run(["mount", "-t", "tmpfs", "none of ours", self.mnt], check=True)
        done = self.run_tool("umount", self.mnt)
        self.assertEqual(done.returncode, 32)
        self.assertIn("tmpfs from none of ours, no mount of an image", done.stderr)
        subprocess.run(["umount", self.mnt], check=True)

    def test_a_signal_takes_nothing_off_that_lies_over_the_image(self):
        for way in WAYS:
            for life in [], ["--no-supervise", "--allow-unconfined"]:
                with self.subTest(way=way, life=life):
                    self.mount("--attach", way, *life)
                    pids = daemons([self.mnt])
                    supervisor = min(pids)
                    subprocess.run(["mount", "-t", "tmpfs", "over it", self.mnt], check=True)
                    os.kill(supervisor, signal.SIGTERM)
                    time.sleep(0.5)
                    self.assertEqual([line[2] for line in entries(self.mnt)][1:], ["tmpfs"])
                    if not life:
                        self.assertIn(supervisor, daemons([self.mnt]))
                    subprocess.run(["umount", self.mnt], check=True)
                    if not life:
                        self.assertIn("etc", os.listdir(self.mnt), "it is served on")
                        self.umount()
                    else:
                        subprocess.run(["umount", "-l", self.mnt], check=True)
                        self.assertTrue(wait_for(lambda: not daemons([self.mnt])))

    def test_root_follows_no_link_of_a_user_to_a_mount_point(self):
        home = os.path.join(self.dir, "home")
        os.mkdir(home)
        os.chown(home, NOBODY, NOBODY)
        link = os.path.join(home, "mnt")
        os.symlink(self.mnt, link)
        os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
        for way in WAYS:
            done = self.run_tool("mount", "--attach", way, self.image, link)
            self.assertEqual(done.returncode, 32, done.stderr)
            self.assertIn("symbolic link of user 65534", done.stderr)
            self.assertEqual(entries(self.mnt), [])
        os.chown(link, 0, 0, follow_symlinks=False)
        done = self.run_tool("mount", "-o", f"oci.store={self.base}/store", "--journal",
                             os.path.join(self.dir, "journal"), "--attach", "fuse-file", self.image, link)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.umount()

    def test_a_directory_in_use_is_not_mounted_over_unless_asked(self):
        again = lambda *words, program=TOOL, image=self.image: subprocess.run(
            [program, *words, "--journal", os.path.join(self.dir, "journal"), image, self.mnt],
            capture_output=True, text=True, timeout=60,
            env=dict(os.environ, HOME=self.dir, XDG_RUNTIME_DIR=self.dir))
        helper = os.path.join(self.dir, "mount.erofs.fuse")
        os.symlink(TOOL, helper)
        store = "oci.store=" + os.path.join(self.base, "store")
        for way in WAYS:
            with self.subTest(way=way):
                self.mount("--attach", way)
                done = again("mount", "-o", store)
                self.assertEqual(done.returncode, 32)
                self.assertIn("this image is mounted there already", done.stderr)
                self.assertEqual(again("-o", store, program=helper).returncode, 0)  # mount -a, twice
                for program in TOOL, helper:
                    done = again("-o", store, program=program, image="/etc/passwd")
                    self.assertEqual(done.returncode, 32)
                    self.assertIn(self.image[:-3], done.stderr)
                    self.assertIn("-o stack", done.stderr)
                self.assertEqual(len(entries(self.mnt)), 1)
                self.assertEqual(again("mount", "--attach", way, "-o", store + ",stack").returncode, 0)
                self.assertEqual(len(entries(self.mnt)), 2)
                self.assertEqual(self.run_tool("umount", self.mnt).returncode, 0)
                self.assertEqual(len(entries(self.mnt)), 1)
                self.umount()
        subprocess.run(["mount", "-t", "tmpfs", "someone's", self.mnt], check=True)
        done = again("mount", "-o", store)
        self.assertEqual(done.returncode, 32)
        self.assertIn("tmpfs from someone's is mounted there", done.stderr)
        subprocess.run(["umount", self.mnt], check=True)

    def test_umount_of_others(self):
        for way in WAYS:
            for life in [], ["--no-supervise", "--allow-unconfined"]:
                with self.subTest(way=way, life=life):
                    self.mount("--attach", way, *life)
                    subprocess.run(["umount", self.mnt], check=True)
                    self.assert_gone()
        self.mount("--attach", "fuse-tree")
        subprocess.run(["fusermount3", "-u", self.mnt], check=True)
        self.assert_gone()

    def test_umount_by_its_user(self):
        os.chown(self.mnt, NOBODY, NOBODY)
        self.mount("--no-supervise", "--allow-unconfined", "--attach", "fuse-tree", user=NOBODY)
        subprocess.run(["fusermount3", "-u", self.mnt], check=True, user=NOBODY, group=NOBODY)
        self.assert_gone()

    def test_in_use(self):
        for way in WAYS:
            with self.subTest(way=way):
                self.mount("--attach", way)
                with open(os.path.join(self.mnt, "etc/passwd")) as file:
                    done = self.run_tool("umount", self.mnt)
                    self.assertEqual(done.returncode, 32, done.stderr)
                    self.assertIn("busy", done.stderr)
                    self.assertEqual(file.read(), "root:x:0:0\nuser:x:1:1\n")
                self.umount()

    def test_a_signal_unmounts(self):
        for way in WAYS:
            with self.subTest(way=way):
                self.mount("--attach", way, "--no-supervise", "--allow-unconfined")
                [pid] = daemons([self.mnt])
                with open(os.path.join(self.mnt, "data/large"), "rb") as file:
                    os.kill(pid, signal.SIGTERM)
                    self.assertTrue(wait_for(lambda: not entries(self.mnt)))
                    # It serves its last user; what has unmounted may take a moment to end.
                    self.assertTrue(wait_for(lambda: daemons([self.mnt]) == [pid]))
                    self.assertEqual(len(file.read()), 5_000_000)
                self.assert_gone()

    def test_a_killed_daemon(self):
        for way in WAYS:
            for last in [TOOL, "umount"], ["umount"]:
                with self.subTest(way=way, last=last):
                    self.mount("--attach", way, "--no-supervise", "--allow-unconfined")
                    [pid] = daemons([self.mnt])
                    os.kill(pid, signal.SIGKILL)
                    self.assertTrue(wait_for(lambda: not daemons([self.mnt])))
                    with self.assertRaises(OSError):
                        with open(os.path.join(self.mnt, "data/large"), "rb") as file:
                            file.read()
                    subprocess.run([*last, self.mnt], check=True)
                    self.assert_gone()

    def status(self):
        done = self.run_tool("status", "--json", "--journal", os.path.join(self.dir, "journal"))
        [status] = json.loads(done.stdout)
        return status

    def test_without_dm_verity(self):
        # By fuse-tree no kernel has it.
        done = self.run_tool("mount", "--attach", "fuse-tree", "-o",
                             f"oci.verity=require,oci.store={self.base}/store", self.image, self.mnt)
        self.assertEqual(done.returncode, 32, done.stderr)
        self.assertIn("oci.verity=require, but the kernel cannot check the image by dm-verity: ", done.stderr)
        self.assert_gone()
        done = self.run_tool("index", "--verity", "-o", f"oci.store={self.base}/store", self.image)
        self.assertEqual(done.returncode, 0, done.stderr)
        for words in [], ["-o", "oci.verity=try"]:
            said = self.mount("-v", "--attach", "fuse-tree", *words)
            self.assertIn("not by dm-verity: ", said)
            self.assertEqual(self.status()["verity"], "")
            self.umount()
        self.assertNotIn("dm-verity", self.mount("-v", "--attach", "fuse-tree", "-o", "oci.verity=off"))
        self.umount()

    def test_wrong_bytes_that_were_found_are_not_forgotten(self):
        layout = images.layout_of(os.path.join(self.dir, "image"), [
            images.Layer().file("a", images.noise(3_000_000)).file("b", b"b" * 200_000)], packed=False)
        image, out = f"oci:{layout}:v1", os.path.join(self.dir, "out")
        done = self.run_tool("index", "-o", "oci.store=none", "--output", out, image)
        self.assertEqual(done.returncode, 0, done.stderr)
        [name] = [name for name in os.listdir(out) if name.endswith(".erofs")]
        blob = os.path.join(layout, "blobs", "sha256", name.removesuffix(".erofs"))
        with open(blob, "r+b") as file:
            file.seek(2_000_000)
            byte = file.read(1)[0]
            file.seek(2_000_000)
            file.write(bytes([byte ^ 1]))
        said = self.mount("--attach", "fuse-tree", "-o",
                          f"oci.store=none,oci.tarindex={out}/{name}", image=image)
        self.assertIn("no index is there that was made by reading it", said)
        for file in "a", "b":  # together they bring every byte; the last read may fail already
            with contextlib.suppress(OSError), open(os.path.join(self.mnt, file), "rb") as stream:
                stream.read()
        self.assertTrue(wait_for(lambda: self.status()["mismatch"]))
        worker = self.status()["worker"]
        for _ in range(2):
            for file in "a", "b":
                with self.assertRaises(OSError):
                    with open(os.path.join(self.mnt, file), "rb", 0) as stream:
                        # What the kernel has in memory cannot be taken back.
                        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                        stream.read(100_000)
            self.assertIn("sha256:" + name.removesuffix(".erofs"), self.status()["mismatch"])
            self.assertEqual(os.listdir(self.mnt), ["a", "b"])  # the tarindex is ours
            os.kill(worker, signal.SIGKILL)
            self.assertTrue(wait_for(lambda: self.status().get("worker", 0) not in (worker, 0)
                                     and self.status()["worker_alive"]))
            worker = self.status()["worker"]
        self.assertIn("MISMATCH", self.run_tool(
            "status", "--journal", os.path.join(self.dir, "journal")).stdout)
        self.umount()

    def test_a_killed_daemon_of_a_user(self):
        os.chown(self.mnt, NOBODY, NOBODY)
        self.mount("--no-supervise", "--allow-unconfined", "--attach", "fuse-tree", user=NOBODY)
        [pid] = daemons([self.mnt])
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_for(lambda: not daemons([self.mnt])))
        self.umount(user=NOBODY)

    def test_in_the_foreground(self):
        for way in WAYS:
            with self.subTest(way=way):
                process = subprocess.Popen([TOOL, "mount", "--no-supervise", "--allow-unconfined", "--foreground",
                                            "--attach", way, self.image, self.mnt])
                self.addCleanup(process.kill)
                self.assertTrue(wait_for(lambda: entries(self.mnt)))
                self.assertTrue(wait_for(lambda: os.path.exists(self.mnt + "/etc/passwd")))
                subprocess.run([TOOL, "umount", self.mnt], check=True)
                self.assertEqual(process.wait(timeout=10), 0)
                self.assert_gone()


class ToolsTest(MountTest):
    """What people do in a mounted tree, eight at once, against an extracted copy."""

    def output(self, words, folder):
        done = subprocess.run(words, cwd=folder, capture_output=True, timeout=120,
                              env=dict(os.environ, LC_ALL="C", GIT_OPTIONAL_LOCKS="0"))
        return done.returncode, done.stdout, done.stderr

    def work_tree(self):
        """An image that holds a git work tree; it, and a copy."""
        tree = os.path.join(self.dir, "tree")
        os.mkdir(tree)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", tree]
        subprocess.run([*git, "init", "-q"], check=True)
        for i in range(300):
            path = os.path.join(tree, f"d{i % 17}", f"file{i}")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(b"needle %d\n" % i if i % 5 == 0 else images.noise(1000 + 37 * i))
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "all"], check=True)
        with open(os.path.join(tree, "d0/file0"), "a") as file:
            file.write("changed\n")
        with open(os.path.join(tree, "new"), "w") as file:
            file.write("new\n")
        tar = os.path.join(self.dir, "layer.tar.gz")
        subprocess.run(["tar", "-C", tree, "--sort=name", "--format=pax", "-czf", tar, "."],
                       check=True)
        layout = os.path.join(self.dir, "git")
        images.make_layout.make_layout([tar], layout, tag="v1")
        return f"oci:{layout}:v1", tree

    @unittest.skipUnless(shutil.which("git"), "git is not installed")
    def test_eight_readers(self):
        image, copy = self.work_tree()
        jobs = [["find", ".", "-printf", r"%p %y %m %U %G %s %T@ %l\n"],
                ["tar", "--sort=name", "-c", "."],
                ["grep", "-r", "needle", "."],
                ["git", "-c", "safe.directory=*", "status", "--porcelain"]]

        def normal(result):
            status, out, errors = result
            # Times of the archive have no fraction, and find and grep go by the directory's order.
            out = re.sub(rb"(\d{10})\.\d+", rb"\1", out)
            return status, sorted(out.splitlines()), errors

        expected = [normal(self.output(job, copy)) for job in jobs]
        self.assertIn(b" M d0/file0", expected[3][1])
        for way in WAYS:
            with self.subTest(way=way):
                self.mount("--attach", way, image=image)
                with ThreadPoolExecutor(8) as readers:
                    found = [readers.submit(self.output, job, self.mnt) for job in jobs * 2]
                    for i, one in enumerate(found):
                        got, want = normal(one.result()), expected[i % len(jobs)]
                        if i % len(jobs) in (0, 1):  # sizes of directories are the file system's
                            got = self.without_directory_sizes(got)
                            want = self.without_directory_sizes(want)
                        self.assertEqual(got, want, jobs[i % len(jobs)])
                self.umount()

    @staticmethod
    def without_directory_sizes(result):
        status, lines, errors = result
        lines = [re.sub(rb"^(\S+ d \S+ \S+ \S+) \d+", rb"\1", line) for line in lines]
        return status, sorted(lines), errors


class WritableTest(MountTest):
    def change(self):
        with open(os.path.join(self.mnt, "etc/passwd"), "a") as file:
            file.write("more\n")
        os.remove(os.path.join(self.mnt, "data/large2"))
        shutil.move(os.path.join(self.mnt, "lib"), os.path.join(self.mnt, "renamed"))
        os.chmod(os.path.join(self.mnt, "attr"), 0o600)
        with open(os.path.join(self.mnt, "fresh"), "w") as file:
            file.write("fresh")

    def forget(self):
        """Has the kernel drop names and inodes that nobody uses, as it does when memory is short."""
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("2")

    def check_changes(self):
        with open(os.path.join(self.mnt, "etc/passwd")) as file:
            self.assertEqual(file.read(), "root:x:0:0\nuser:x:1:1\nmore\n")
        self.assertFalse(os.path.exists(os.path.join(self.mnt, "data/large2")))
        self.assertFalse(os.path.exists(os.path.join(self.mnt, "lib")))
        self.assertEqual(os.path.getsize(os.path.join(self.mnt, "renamed/so")), 200_000)
        self.assertEqual(os.stat(os.path.join(self.mnt, "attr")).st_mode & 0o7777, 0o600)
        self.assertEqual(os.getxattr(os.path.join(self.mnt, "attr"), "user.colour"), b"blue")
        self.assertEqual(os.path.getsize(os.path.join(self.mnt, "fresh")), 5)

    def test_changes_are_kept_and_the_image_is_not_changed(self):
        for way in WAYS:
            for life in [], ["--no-supervise", "--allow-unconfined"]:
                with self.subTest(way=way, life=life):
                    changes = tempfile.mkdtemp(dir=self.dir)
                    self.mount("--attach", way, *life)
                    before = images.tree(self.mnt)
                    self.umount()
                    self.mount("--attach", way, *life, f"--writable={changes}")
                    self.assertEqual(entries(self.mnt)[0][2], "overlay")
                    self.change()
                    self.check_changes()
                    self.umount()
                    self.mount("--attach", way, *life, f"--writable={changes}")
                    for _ in range(10):  # whatever the kernel has forgotten meanwhile
                        self.check_changes()
                        self.forget()
                    self.umount()
                    self.mount("--attach", way, *life)
                    self.assertEqual(images.differences(before, images.tree(self.mnt)), [])
                    self.umount()

    def test_changes_that_go_with_the_mount(self):
        self.mount("--writable")
        self.change()
        self.check_changes()
        subprocess.run(["umount", self.mnt], check=True)
        self.assert_gone()
        self.mount("--writable")
        self.assertFalse(os.path.exists(os.path.join(self.mnt, "fresh")))
        self.umount()

    def test_a_signal(self):
        self.mount("--writable", "--no-supervise", "--allow-unconfined")
        [pid] = daemons([self.mnt])
        os.kill(pid, signal.SIGTERM)
        self.assert_gone_soon()

    def assert_gone_soon(self):
        self.assertTrue(wait_for(lambda: not entries(self.mnt)))
        self.assert_gone()

    def test_one_directory_for_two_mounts(self):
        changes = os.path.join(self.dir, "my changes")
        self.mount(f"--writable={changes}")
        second = os.path.join(self.dir, "second")
        os.mkdir(second)
        done = self.run_tool("mount", f"--writable={changes}", self.image, second)
        self.assertEqual(done.returncode, 32)
        self.assertIn("keeps the changes of another mount", done.stderr)
        self.assertEqual(entries(second), [])
        self.umount()

    def test_a_directory_on_an_unsuitable_file_system(self):
        self.mount("--writable")
        inner = os.path.join(self.dir, "inner")
        os.mkdir(inner)
        done = self.run_tool("mount", f"--writable={self.mnt}/changes", self.image, inner)
        self.assertEqual(done.returncode, 32)
        self.assertIn("which is on overlay: ext4", done.stderr)
        self.assertEqual(entries(inner), [])
        self.umount()

    @unittest.skipUnless(shutil.which("fuse-overlayfs"), "skipped: fuse-overlayfs is not installed")
    def test_without_root(self):
        changes = os.path.join(self.dir, "changes")
        os.mkdir(changes)
        for path in self.mnt, changes:
            os.chown(path, NOBODY, NOBODY)
        self.mount(f"--writable={changes}", user=NOBODY)
        self.assertEqual(entries(self.mnt)[0][2], "fuse.fuse-overlayfs")
        as_user(NOBODY, self.change)
        as_user(NOBODY, self.check_changes)
        self.umount(user=NOBODY)
        self.mount(f"--writable={changes}", "--no-supervise", "--allow-unconfined", user=NOBODY)
        as_user(NOBODY, self.check_changes)
        subprocess.run(["fusermount3", "-u", self.mnt], check=True, user=NOBODY, group=NOBODY)
        self.assert_gone()

    def test_without_root_and_what_it_needs(self):
        os.chown(self.mnt, NOBODY, NOBODY)
        done = self.run_tool("mount", "--writable=/tmp/never", self.image, self.mnt, user=NOBODY,
                             path=self.dir)
        self.assertEqual(done.returncode, 32)
        self.assertIn("Debian has it in package fuse-overlayfs", done.stderr)
        if shutil.which("fuse-overlayfs"):
            done = self.run_tool("mount", "--writable", self.image, self.mnt, user=NOBODY)
            self.assertEqual(done.returncode, 32)
            self.assertIn("--writable=DIR", done.stderr)


@unittest.skipUnless(os.path.exists(os.path.join(FIXTURES, "debian-essential")),
                     "skipped: no fixture debian-essential")
class RealLayerTest(MountTest):
    def test_every_file(self):
        """By a walk, and by the tar itself: tools/tree_manifest.py knows neither EROFS nor us."""
        layer = os.path.join(FIXTURES, "debian-essential", "layer.tar.gz")
        layout = os.path.join(self.dir, "real")
        images.make_layout.make_layout([layer], layout, tag="v1")
        script = os.path.join(HERE, "../../../tools/tree_manifest.py")

        def manifest(*words):
            done = subprocess.run([sys.executable, script, *words], stdout=subprocess.PIPE,
                                  check=True, timeout=120)
            return sorted(done.stdout.splitlines())

        wanted = manifest("tar", layer)
        self.assertGreater(len(wanted), 1000)
        for way in WAYS:
            with self.subTest(way=way):
                self.mount("--attach", way, image=f"oci:{layout}:v1")
                self.assertEqual(set(wanted) ^ set(manifest("dir", self.mnt)), set())
                self.umount()


if __name__ == "__main__":
    reason = why_skip()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(77)
    unittest.main(verbosity=2)
