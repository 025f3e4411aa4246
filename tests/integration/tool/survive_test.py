# SPDX-License-Identifier: Apache-2.0
"""Mounts by FUSE outlive the processes that serve them; and the records of mounts."""
import ctypes
import errno
import gzip
import hashlib
import io
import json
import os
import pathlib
import random
import re
import signal
import socket
import stat
import subprocess
import tarfile
import threading
import time
import unittest

import images
from support import PASSWORD, REGISTRY, TOOL, Running, ToolTest, make_layout, path, read


def files_of(tar):
    """Each regular file's content."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(read(tar)))) as archive:
        return {member.name.lstrip("./"): archive.extractfile(member).read()
                for member in archive if member.isreg()}


def contents(tar):
    """The digest of each regular file."""
    return {name: hashlib.sha256(data).digest() for name, data in files_of(tar).items()}


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def documented_metrics():
    """The names in doc/operations.md, without those that NBD alone has: these come last."""
    page = (pathlib.Path(__file__).resolve().parents[3] / "doc/operations.md").read_text()
    table = page.split("\n## Metrics\n")[1].split("| `erofs_oci_reads_total`")[0]
    return set(re.findall(r"^\| `(erofs_oci_\w+)` \|", table, re.M))


@unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/fuse"), "needs root and /dev/fuse")
class SurviveTest(ToolTest):
    def setUp(self):
        super().setUp()
        self.store = os.path.join(self.dir, "store")
        self.addCleanup(self.wait_for_end)
        self.make_target()

    def wait_for_end(self):
        """What is written down goes a moment later than the mount."""
        wait_for(lambda: not os.path.exists(self.journal) or os.listdir(self.journal) == [], 2)

    def run_tool(self, *arguments, **options):
        return subprocess.run([TOOL, *arguments], capture_output=True, text=True, timeout=60, **options)

    def mount(self, image, *options, words="", way="fuse-tree", **more):
        done = self.run_tool("mount", "--attach", way, "--journal", self.journal, *options, "-o",
                             f"oci.store={self.store},oci.cache_dir=none,oci.layer=1{words}", image, self.target, **more)
        self.assertEqual(done.returncode, 0, done.stderr)

    def mount_with_index(self):
        """Mounts with a tarindex of its own; yields its path."""
        index = os.path.join(self.dir, "index.erofs")
        with open(index, "wb") as stream:
            stream.write(read(path("gz-ckpt.erofs")))
        self.mount(f"oci:{self.layout}:v1",
                   words=f",oci.tarindex={index},oci.zinfo={path('gz-ckpt.zinfo')}")
        return index

    def kill_worker(self):
        """Kills the present worker; waits for another one."""
        old = self.status()[0]["worker"]
        os.kill(old, signal.SIGKILL)
        self.assertTrue(wait_for(lambda: self.status()[0]["worker"] != old))

    def check_files(self):
        # A new directory entry each time would do; reading past the page cache does, too.
        for name, wanted in contents(path("ckpt.tar.gz")).items():
            file = os.path.join(self.target, name)
            with open(file, "rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                self.assertEqual(hashlib.sha256(stream.read()).digest(), wanted, name)

    def test_kills_are_not_noticed(self):
        for way in ("fuse-tree", "fuse-file"):
            with self.subTest(way):
                self.mount(f"oci:{self.layout}:v1", way=way)
                supervisor = self.status()[0]["supervisor"]
                chooser = random.Random(1)
                names = sorted(contents(path("ckpt.tar.gz")))
                killed = set()
                end = time.monotonic() + 4
                while time.monotonic() < end:
                    children = read(f"/proc/{supervisor}/task/{supervisor}/children").split()
                    if children:
                        try:
                            os.kill(int(children[0]), signal.SIGKILL)
                            killed.add(children[0])
                        except ProcessLookupError:
                            pass
                    name = chooser.choice(names)
                    with open(os.path.join(self.target, name), "rb") as stream:
                        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                        stream.read()
                    time.sleep(chooser.uniform(0, 0.4))
                self.check_files()
                self.assertGreater(len(killed), 5)
                self.assertGreaterEqual(self.status()[0]["restarts"], len(killed) - 1)
                done = self.run_tool("umount", self.target)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertTrue(wait_for(lambda: os.listdir(self.journal) == []),
                                os.listdir(self.journal))
                self.assertTrue(wait_for(lambda: not os.path.exists(f"/proc/{supervisor}")))

    def test_an_image_without_layers_is_an_empty_directory(self):
        layout = pathlib.Path(self.dir) / "empty"
        make_layout.make_layout([], layout, tag="v1")
        for way in ("fuse-tree", "fuse-file"):
            for store in ("none", self.store):
                with self.subTest(way=way, store=store):
                    done = self.run_tool("mount", "--attach", way, "--journal", self.journal, "-o",
                                         f"oci.store={store}", f"oci:{layout}:v1", self.target)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual(os.listdir(self.target), [])
                    self.kill_worker()
                    self.assertEqual(os.listdir(self.target), [])
                    with self.assertRaises(OSError):
                        os.mkdir(os.path.join(self.target, "new"))
                    done = self.run_tool("umount", self.target)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.wait_for_end()

    def test_a_stopped_worker_goes_on(self):
        self.mount(f"oci:{self.layout}:v1")
        old = self.status()[0]["worker"]
        for _ in range(5):
            os.kill(old, signal.SIGSTOP)
            self.check_files()
        self.assertEqual(self.status()[0]["worker"], old)
        subprocess.run(["umount", self.target], check=True)

    def test_a_worker_that_is_told_to_end_is_replaced(self):
        for way in ("fuse-tree", "fuse-file"):
            with self.subTest(way):
                self.mount(f"oci:{self.layout}:v1", way=way)
                before = self.status()[0]
                os.kill(before["worker"], signal.SIGTERM)
                self.assertTrue(wait_for(lambda: self.status()[0]["worker"] != before["worker"]))
                self.check_files()
                self.assertEqual(self.status()[0]["supervisor"], before["supervisor"])
                subprocess.run(["umount", self.target], check=True)
                self.wait_for_end()

    def test_a_pause_of_everything_replaces_no_worker(self):
        """As of a container that is frozen for a while."""
        self.mount(f"oci:{self.layout}:v1")
        before = self.status()[0]
        processes = (before["supervisor"], before["worker"])
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        time.sleep(6)  # longer than a silent worker has
        for process in processes:
            os.kill(process, signal.SIGCONT)
        self.check_files()
        time.sleep(0.5)
        self.assertEqual(self.status()[0]["worker"], before["worker"])
        subprocess.run(["umount", self.target], check=True)

    def test_a_hung_worker_is_replaced(self):
        self.mount(f"oci:{self.layout}:v1")
        old = self.status()[0]["worker"]
        libc = ctypes.CDLL(None, use_errno=True)
        seize, interrupt = 0x4206, 0x4207
        for request in (seize, interrupt):  # the main thread halts, as in a debugger
            self.assertEqual(libc.ptrace(request, old, None, None), 0, os.strerror(ctypes.get_errno()))
        self.check_files()

        def is_replaced():
            try:
                os.waitpid(old, os.WNOHANG)  # the tracer hears of the end before the parent does
            except ChildProcessError:
                pass
            return self.status()[0]["worker"] != old

        self.assertTrue(wait_for(is_replaced))
        self.assertIn("no sign of life", self.status()[0]["last_error"])
        self.check_files()
        subprocess.run(["umount", self.target], check=True)

    def test_another_process_takes_over(self):
        """As when the program is replaced by a newer one: readers notice nothing."""
        for way in ("fuse-tree", "fuse-file"):
            with self.subTest(way):
                metrics = os.path.join(self.dir, "metrics")
                self.mount(f"oci:{self.layout}:v1", "--metrics", metrics, way=way)
                stop = threading.Event()
                failures, reads = [], []

                def keep_reading():
                    while not stop.is_set():
                        try:
                            self.check_files()
                            reads.append(time.monotonic())
                        except (OSError, AssertionError) as error:
                            failures.append(error)

                readers = [threading.Thread(target=keep_reading) for _ in range(3)]
                for reader in readers:
                    reader.start()
                supervisors = [self.status()[0]["supervisor"]]
                for _ in range(4):
                    done = self.run_tool("reattach", "--replace", "--journal", self.journal,
                                         "--metrics", metrics, self.target)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    supervisors.append(self.status()[0]["supervisor"])
                    self.assertEqual(self.status()[0]["way"], way)
                    count = len(reads)
                    self.assertTrue(wait_for(lambda: len(reads) > count + 3))
                stop.set()
                for reader in readers:
                    reader.join()
                self.assertEqual(failures, [])
                self.assertEqual(len(set(supervisors)), 5)
                for old in supervisors[:-1]:
                    self.assertTrue(wait_for(lambda: not os.path.exists(f"/proc/{old}")))
                self.assertEqual(stat.S_IMODE(os.stat(metrics).st_mode), 0o600)
                self.kill_worker()
                self.check_files()
                subprocess.run(["umount", self.target], check=True)
                self.assertTrue(wait_for(lambda: os.listdir(self.journal) == []))

    def test_a_take_over_that_fails_leaves_all_as_it_was(self):
        index = self.mount_with_index()
        old = self.status()[0]
        os.rename(index, index + ".away")
        code, said = self.refused("reattach", "--replace", "--journal", self.journal, self.target)
        self.assertIn("index.erofs", said)
        self.check_files()
        os.rename(index + ".away", index)
        self.assertEqual(self.status()[0]["supervisor"], old["supervisor"])
        # One that asks for the mount, gets it and dies.
        control = next(os.path.join(self.journal, name) for name in os.listdir(self.journal)
                       if stat.S_ISSOCK(os.stat(os.path.join(self.journal, name)).st_mode))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asker:
            asker.connect(control)
            asker.send(b"hand over")
            _, fds, _, _ = socket.recv_fds(asker, 4096, 4)
            self.assertEqual(len(fds), 3)
            for fd in fds:
                os.close(fd)
        self.check_files()
        self.assertTrue(wait_for(lambda: self.status()[0]["worker"] != old["worker"]))
        self.assertEqual(self.status()[0]["supervisor"], old["supervisor"])
        subprocess.run(["umount", self.target], check=True)

    def test_a_registry_that_is_away_costs_a_read_one_timeout(self):
        sizes = {name: len(data) for name, data in files_of(path("ckpt.tar.gz")).items()}
        largest = max(sizes, key=sizes.get)
        for way in ("fuse-tree", "fuse-file"):
            with self.subTest(way):
                host = self.registry()
                self.mount(f"{host}/app:v1", way=way,
                           words=",oci.insecure=1,oci.platform=linux/amd64,oci.timeout=3,oci.start_list=off")
                self.server.end()
                begin = time.monotonic()
                with open(os.path.join(self.target, largest), "rb") as stream:
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    with self.assertRaises(OSError) as failure:
                        stream.read()
                self.assertEqual(failure.exception.errno, errno.EIO)
                # The kernel asks for each page anew. Each would cost a timeout of its own.
                self.assertLess(time.monotonic() - begin, 3 + 10)
                self.assertGreater(sizes[largest] // 4096, 10)
                self.registry("--listen", host)
                self.assertTrue(wait_for(lambda: self.can_be_read(largest)))
                self.check_files()
                subprocess.run(["umount", self.target], check=True)
                self.wait_for_end()

    def test_wrong_bytes_cost_no_worker(self):
        """Bytes that no worker can read as they should be: the mount stays, and so do other files."""
        good = images.noise(200_000, b"good")
        layer = images.Layer().file("bad", images.noise(6_000_000)).file("good", good)
        layout = pathlib.Path(images.layout_of(os.path.join(self.dir, "image"), [layer]))
        image, out = f"oci:{layout}:v1", os.path.join(self.dir, "out")
        done = self.run_tool("index", "-o", f"oci.store={self.store}", "--output", out, image)
        self.assertEqual(done.returncode, 0, done.stderr)
        [name] = [name for name in os.listdir(out) if name.endswith(".erofs")]
        blob = layout / "blobs/sha256" / name.removesuffix(".erofs")
        own = f",oci.tarindex={out}/{name},oci.zinfo={out}/{name.replace('.erofs', '.zinfo')}"
        right = blob.read_bytes()
        wrong = bytearray(right)
        wrong[100] ^= 1  # in the first span, with the first header of the tar
        for way in ("fuse-tree", "fuse-file"):
            for words in ("", own):
                with self.subTest(way=way, words=words):
                    blob.write_bytes(right)
                    done = self.run_tool("mount", "--attach", way, "--journal", self.journal, "-o",
                                         f"oci.store={self.store}{words}", image, self.target)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    before = self.status()[0]
                    blob.write_bytes(wrong)
                    for _ in range(2):
                        self.kill_worker()
                        with open(os.path.join(self.target, "bad"), "rb", 0) as file:
                            with self.assertRaises(OSError) as failure:
                                file.read(4096)
                        self.assertEqual(failure.exception.errno, errno.EIO)
                        file = pathlib.Path(self.target, "good")
                        self.assertEqual(file.read_bytes(), good)
                    self.assertTrue(wait_for(lambda: "digest mismatch" in self.status()[0]["last_error"]))
                    after = self.status()[0]
                    self.assertEqual(after["supervisor"], before["supervisor"])
                    self.assertEqual(after["restarts"], before["restarts"] + 2)
                    subprocess.run(["umount", self.target], check=True)
                    self.wait_for_end()

    def can_be_read(self, name):
        try:
            return bool(pathlib.Path(self.target, name).read_bytes())
        except OSError:
            return False

    def test_a_moved_tag_and_a_changed_password_change_nothing(self):
        secret = self.secret()
        host = self.registry("--username", "me", "--password-file", secret)
        relative = os.path.basename(secret)
        self.mount(f"{host}/app:v1", cwd=self.dir,
                   words=f",oci.insecure,oci.username=me,oci.password_file={relative}")
        for process in (self.status()[0]["supervisor"], self.status()[0]["worker"]):
            self.assertEqual(os.readlink(f"/proc/{process}/cwd"), "/")
        self.server.end()
        self.secret("another one")
        empty = os.path.join(self.dir, "moved")
        subprocess.run(["cp", "-r", self.layout, empty], check=True)
        index = os.path.join(empty, "index.json")
        os.unlink(index)
        with open(index, "w") as stream:
            stream.write('{"schemaVersion": 2, "manifests": []}')
        Running(self, empty, "--listen", host, "--username", "me", "--password-file", secret,
                program=REGISTRY)
        self.kill_worker()
        self.check_files()
        subprocess.run(["umount", self.target], check=True)

    def test_a_replaced_tarindex_is_not_served(self):
        index = self.mount_with_index()
        self.check_files()
        with open(index, "r+b") as stream:
            stream.seek(1072)
            stream.write(bytes([read(path("gz-ckpt.erofs"))[1072] ^ 1]))
        supervisor = self.status()[0]["supervisor"]
        os.kill(self.status()[0]["worker"], signal.SIGKILL)
        self.assertTrue(wait_for(lambda: not os.path.exists(f"/proc/{supervisor}")),
                        "it was served again")

    def test_secrets_stay_where_they_are(self):
        secret = self.secret()
        host = self.registry("--username", "me", "--password-file", secret)
        log = os.path.join(self.dir, "log")
        text = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
        self.mount(f"{host}/app:v1", "-d", "7", "--log", "json", "--log-file", log,
                   words=f',oci.insecure,oci.username=me,oci.password="{text}"')
        self.kill_worker()
        self.check_files()
        status = self.status()[0]
        for directory, _, files in os.walk(self.journal):
            self.assertEqual(stat.S_IMODE(os.stat(self.journal).st_mode), 0o700)
            for file in files:
                if stat.S_ISREG(os.stat(os.path.join(directory, file)).st_mode):
                    self.assertNotIn(PASSWORD.encode(), read(os.path.join(directory, file)))
        for process in (status["supervisor"], status["worker"]):
            for file in ("cmdline", "environ"):
                self.assertNotIn(PASSWORD.encode(), read(f"/proc/{process}/{file}"))
            # The files in /proc of a process that dumps no core belong to root.
            self.assertIn("VmLck", read(f"/proc/{process}/status").decode())
        lines = read(log).decode().splitlines()
        self.assertTrue(lines)
        for line in lines:
            self.assertNotIn("battery", line)
            self.assertLessEqual({"time", "level", "pid", "message"}, json.loads(line).keys())
        subprocess.run(["umount", self.target], check=True)

    def test_a_worker_has_few_privileges(self):
        self.mount(f"oci:{self.layout}:v1")
        status = read(f"/proc/{self.status()[0]['worker']}/status").decode()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        self.assertEqual(fields["NoNewPrivs"].strip(), "1")
        self.assertEqual(fields["Seccomp"].strip(), "2")
        if os.geteuid() == 0:
            self.assertNotIn("0", fields["Uid"].split())
            self.assertNotIn("0", fields["Gid"].split())
            self.assertEqual(fields["Groups"].strip(), "")
            with open("/proc/self/status") as own:
                may_raise = int(re.search(r"CapEff:\t(\w+)", own.read())[1], 16) >> 24 & 1
            if may_raise:  # the limit of locked memory
                self.assertGreater(int(fields["VmLck"].split()[0]), 0)
        self.assertEqual(int(fields["CapPrm"], 16), 0)
        self.assertEqual(int(fields["CapEff"], 16), 0)
        subprocess.run(["umount", self.target], check=True)

    def test_the_kernel_ends_a_worker_before_other_programs(self):
        self.mount(f"oci:{self.layout}:v1")
        status = self.status()[0]
        worker, supervisor = (int(read(f"/proc/{status[who]}/oom_score_adj"))
                              for who in ("worker", "supervisor"))
        self.assertGreaterEqual(worker, 500)
        self.assertLessEqual(supervisor, int(read("/proc/self/oom_score_adj")))
        subprocess.run(["umount", self.target], check=True)

    def test_status_says_how_much_is_cached(self):
        self.mount(f"oci:{self.layout}:v1")
        self.check_files()
        self.assertTrue(wait_for(lambda: self.status()[0]["cached"] > 0))
        self.assertIsInstance(self.status()[0]["complete"], bool)
        before = self.status()[0]
        self.assertGreater(before["requests"], 0)
        self.assertGreater(before["bytes"], 0)
        self.assertEqual(before["errors"], 0)
        self.kill_worker()
        self.check_files()
        self.assertTrue(wait_for(lambda: self.status()[0]["bytes"] > before["bytes"]))
        done = self.run_tool("status", "--journal", self.journal)
        self.assertIn(f" on {self.target}\n  image:    oci:{self.layout}\n", done.stdout)
        self.assertRegex(done.stdout, r"  cached:   [1-9][0-9]* of [0-9]+ bytes")
        subprocess.run(["umount", self.target], check=True)

    def test_a_service_manager_is_told(self):
        notify = os.path.join(self.dir, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(notify)
            manager.settimeout(20)
            process = subprocess.Popen(
                [TOOL, "mount", "--foreground", "--attach", "fuse-tree", "--journal", self.journal,
                 "-o", f"oci.store={self.store},oci.layer=1", f"oci:{self.layout}:v1", self.target],
                env=os.environ | {"NOTIFY_SOCKET": notify})
            self.addCleanup(process.kill)
            self.assertIn(b"READY=1", manager.recv(4096))
        self.check_files()
        self.kill_worker()
        self.check_files()
        process.terminate()
        self.assertEqual(process.wait(20), 0)
        self.assertFalse(os.path.ismount(self.target))

    def test_metrics(self):
        address = os.path.join(self.dir, "metrics")
        self.mount(f"oci:{self.layout}:v1", "--metrics", address)
        self.kill_worker()
        done = subprocess.run(["curl", "-sS", "--unix-socket", address, "http://x/metrics"],
                              capture_output=True, text=True, timeout=20)
        self.assertIn("# TYPE erofs_oci_worker_restarts_total counter\n", done.stdout, done.stderr)
        self.assertRegex(done.stdout, r'erofs_oci_worker_restarts_total\{mount_point="[^"]*/mount",'
                                      r'device="",way="fuse-tree"\} 1\n')
        self.assertEqual(set(re.findall(r"^(erofs_oci_\w+)\{", done.stdout, re.M)), documented_metrics())
        self.assertEqual(stat.S_IMODE(os.stat(address).st_mode), 0o600)
        subprocess.run(["umount", self.target], check=True)
        self.assertTrue(wait_for(lambda: not os.path.exists(address)))
        code, said = self.refused("mount", "--attach", "fuse-tree", "--metrics", "0.0.0.0:9",
                                  f"oci:{self.layout}:v1", self.target)
        self.assertIn("not a loopback address", said)

    def test_a_signal_unmounts_and_umount_all_does(self):
        self.mount(f"oci:{self.layout}:v1")
        os.kill(self.status()[0]["supervisor"], signal.SIGTERM)
        self.assertTrue(wait_for(lambda: not os.path.ismount(self.target)))
        self.assertTrue(wait_for(lambda: self.status() == []))
        self.mount(f"oci:{self.layout}:v1")
        done = self.run_tool("umount", "--all", "--journal", self.journal)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(os.path.ismount(self.target))
        self.assertTrue(wait_for(lambda: os.listdir(self.journal) == []))

    def test_an_unmount_while_no_worker_can_start_ends_it(self):
        layout = os.path.join(self.dir, "layout")
        subprocess.run(["cp", "-r", self.layout, layout], check=True)
        self.mount(f"oci:{layout}:v1")
        status = self.status()[0]
        os.rename(layout, layout + ".away")
        os.kill(status["worker"], signal.SIGKILL)
        self.assertTrue(wait_for(lambda: self.status()[0]["restarts"] > 2))
        done = self.run_tool("umount", self.target)  # umount(8) would ask who cannot answer
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(wait_for(lambda: not os.path.exists(f"/proc/{status['supervisor']}")))
        self.assertEqual(os.listdir(self.journal), [])

    def test_what_is_gone_is_forgotten(self):
        self.mount(f"oci:{self.layout}:v1")
        status = self.status()[0]
        os.kill(status["supervisor"], signal.SIGKILL)
        os.kill(status["worker"], signal.SIGKILL)
        self.assertTrue(wait_for(lambda: not self.status()[0]["served"]))
        done = self.run_tool("status", "--journal", self.journal)
        self.assertIn(f"served:   no; `mount-oci umount {self.target}` removes it\n", done.stdout)
        self.assertEqual(self.run_tool("gc", "--journal", self.journal).stdout, "")
        done = self.run_tool("umount", self.target)
        self.assertEqual(done.returncode, 0, done.stderr)
        code, said = self.refused("reattach", "--journal", self.journal, self.target)
        self.assertIn("ends with its daemon", said)
        done = self.run_tool("gc", "--journal", self.journal)
        self.assertEqual((done.returncode, done.stdout), (0, status["name"] + "\n"), done.stderr)
        self.assertEqual(os.listdir(self.journal), [])

    def test_nothing_to_say(self):
        self.assertEqual(self.run_tool("status", "--journal", self.journal).stdout, "no mounts\n")
        self.assertEqual(self.run_tool("gc", "--journal", self.journal).returncode, 0)
        code, said = self.refused("reattach", "--journal", self.journal, self.target)
        self.assertEqual(code, 32)
        self.assertIn(f"{self.target}: no record of such a mount", said)


if __name__ == "__main__":
    unittest.main()
