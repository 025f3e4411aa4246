# SPDX-License-Identifier: Apache-2.0
"""Several mounts of one image by the same user: one server serves them all, each is ended by itself, and
the server ends with the last one."""
import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest
import urllib.request

import images
from fuse_mount_test import NOBODY, WAYS, MountTest, as_user, daemons, entries, wait_for, why_skip
from support import REGISTRY, SANITIZED, TOOL, Running, make_layout

MOUNTS = 8 if SANITIZED else 30


def read(place, name="data/second"):
    with open(os.path.join(place, name), "rb") as file:
        return file.read()


class ShareTest(MountTest):
    def setUp(self):
        super().setUp()
        # Below self.mnt, so that the command lines of all servers name it.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.mnt], check=True)
        self.journal = os.path.join(self.dir, "journal")
        self.places = []

    def clean_up(self):
        for place in self.places:
            subprocess.run(["umount", "-l", place], capture_output=True)
        for pid in self.servers():
            with contextlib.suppress(ProcessLookupError):  # most are ending
                os.kill(pid, signal.SIGKILL)
        super().clean_up()

    def place(self):
        """A new directory to mount at."""
        self.places.append(os.path.join(self.mnt, f"m{len(self.places)}"))
        os.mkdir(self.places[-1])
        return self.places[-1]

    def servers(self):
        return daemons([self.journal])

    def command(self, place, *words, image=None, way="fuse-file"):
        return ["mount", "--attach", way, "--journal", self.journal, "-o",
                f"oci.store={self.base}/store", *words, image or self.image, place]

    def mount(self, *words, image=None, way="fuse-file"):
        """Mounts at a new place; the place."""
        place = self.place()
        done = self.run_tool(*self.command(place, *words, image=image, way=way))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(entries(place)), 1)
        return place

    def status(self, *words):
        done = self.run_tool("status", "--json", "--journal", self.journal, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def umount(self, place):
        done = self.run_tool("umount", "--journal", self.journal, place)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(entries(place), [])

    def assert_all_over(self):
        self.assertTrue(wait_for(lambda: not self.servers()), "a server is left")
        self.assertEqual(self.status(), [])
        self.assertEqual([name for name in os.listdir(self.journal) if not name.startswith(".")], [])

    def count(self, wanted):
        """The servers, of which there must be so many."""
        found = self.status()
        self.assertEqual(len(found), wanted, [one["mount_points"] for one in found])
        return found

    def test_many_mounts_have_one_server(self):
        for way in WAYS:
            with self.subTest(way):
                first = self.mount(way=way)
                processes = sorted(self.servers())
                places = [first] + [self.mount(way=way) for _ in range(MOUNTS - 1)]
                self.assertEqual(sorted(self.servers()), processes)
                server, = self.count(1)
                self.assertEqual(server["mount_points"], places)
                self.assertEqual(server["mount_point"], first)
                self.assertEqual({os.stat(place).st_dev for place in places}, {os.stat(first).st_dev})
                data = read(first)
                for place in places[:-1]:  # the one that was first is the first to go
                    self.umount(place)
                    self.assertEqual(sorted(self.servers()), processes)
                    self.assertEqual(read(places[-1]), data)
                self.assertEqual(self.status(places[-1])[0]["mount_point"], places[-1])
                self.umount(places[-1])
                self.assertEqual(self.servers(), [], "umount did not wait for the server")
                self.assert_all_over()

    def test_mounts_at_the_same_time_have_one_server(self):
        places = [self.place() for _ in range(MOUNTS)]
        with concurrent.futures.ThreadPoolExecutor(MOUNTS) as threads:
            for done in threads.map(lambda place: self.run_tool(*self.command(place)), places):
                self.assertEqual(done.returncode, 0, done.stderr)
        server, = self.count(1)
        self.assertEqual(sorted(server["mount_points"]), sorted(places))
        with concurrent.futures.ThreadPoolExecutor(MOUNTS) as threads:
            list(threads.map(self.umount, places))
        self.assert_all_over()

    def umount_by_system(self, place):
        """umount(8), which is refused for the instant in which a process that clones the mount holds it."""
        def done():
            said = subprocess.run(["umount", place], capture_output=True, text=True)
            self.assertTrue(said.returncode == 0 or "target is busy" in said.stderr, said.stderr)
            return said.returncode == 0
        self.assertTrue(wait_for(done), f"{place} stays busy")

    def test_mounts_and_umounts_at_the_same_time(self):
        """Whoever comes while the last mount of a server ends has a server all the same."""
        def again(place):
            for _ in range(4):
                done = self.run_tool(*self.command(place, way="fuse-tree"))
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(len(read(place)), size)
                self.umount_by_system(place)

        place = self.mount(way="fuse-tree")
        size = len(read(place))
        self.umount(place)
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            list(threads.map(again, [self.place() for _ in range(4)]))
        self.assert_all_over()

    def test_the_registry_is_asked_for_the_same_bytes(self):
        url = Running(self, self.layout, program=REGISTRY).line.split()[-1].rstrip("/")
        remote = f"{url.split('://', 1)[1]}/image:v1"

        def stats():
            with urllib.request.urlopen(f"{url}/_stats") as answer:
                return json.load(answer)["bytes"]

        def mount(count):
            words = ["-o", "oci.insecure,oci.cache_dir=none,oci.hedge=no,oci.start_list=off"]
            return [self.mount(*words, image=remote) for _ in range(count)]

        mount(1)  # makes the indexes
        self.umount(self.places[-1])
        begin = stats()
        read(*mount(1))
        alone = stats() - begin
        self.umount(self.places[-1])
        begin = stats()
        for place in mount(MOUNTS):
            read(place)
        together = stats() - begin
        # What a tag means each mount asks.
        self.assertLess(together, alone + MOUNTS * 8000)
        self.count(1)
        done = self.run_tool("umount", "--all", "--journal", self.journal)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_all_over()

    def test_a_tag_that_has_moved_has_another_server(self):
        layers = [images.Layer().file("data/second", b"one")]
        image = f"oci:{images.layout_of(os.path.join(self.dir, 'image'), layers)}:v1"
        first = self.mount(image=image)
        layers[0] = images.Layer().file("data/second", b"another one")
        images.layout_of(os.path.join(self.dir, "image"), layers)
        other = self.mount(image=image)
        self.assertEqual((read(first), read(other)), (b"one", b"another one"))
        self.assertEqual(read(self.mount(image=image)), b"another one")
        self.count(2)

    def test_a_tag_of_the_same_image_shares_and_mount_a_may_run_again(self):
        layout = os.path.join(self.dir, "tags")
        shutil.copytree(self.layout, layout)
        with open(os.path.join(layout, "index.json"), "r+") as file:
            index = json.load(file)
            entry, = index["manifests"]
            index["manifests"].append({**entry, "annotations": {make_layout.REF_NAME: "v2"}})
            file.seek(0)
            json.dump(index, file)
        url = Running(self, layout, program=REGISTRY).line.split()[-1].rstrip("/")
        name = f"{url.split('://', 1)[1]}/image"
        words = f"oci.insecure,oci.store={self.base}/store,oci.cache_dir=none"
        helper = os.path.join(self.dir, "mount.erofs.fuse")
        os.symlink(TOOL, helper)
        places = [self.place() for _ in range(3)]
        for _ in range(2):
            for tag, place in zip((":v1", ":v2", "@" + entry["digest"]), places):
                done = subprocess.run([helper, name + tag, place, "--journal", self.journal, "-o", words],
                                      capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.count(1)[0]["mount_points"], places)
        done = self.run_tool("umount", "--all", "--journal", self.journal)
        self.assertEqual((done.returncode, self.status()), (0, []), done.stderr)

    def test_no_share(self):
        self.mount("--no-share")
        self.mount()  # for one alone is nobody's to share
        self.mount("-o", "oci.share=no")
        self.assertEqual(len({server["supervisor"] for server in self.count(3)}), 3)
        self.mount("-o", "oci.share=yes")
        self.assertEqual(sorted(len(server["mount_points"]) for server in self.count(3)), [1, 1, 2])

    def test_other_words_have_other_servers(self):
        self.mount()
        words = ["oci.index=none", "oci.verify=off", "oci.timeout=29", "oci.layer=0", "noacl"]
        for count, word in enumerate(words, 2):
            with self.subTest(word):
                self.mount("-o", word)
                self.count(count)
        self.mount(way="fuse-tree")
        self.count(len(words) + 2)
        for word in words:
            self.mount("-o", word)
        self.count(len(words) + 2)

    def test_each_mount_has_its_own_flags(self):
        for way in WAYS:
            with self.subTest(way):
                for words, there, away in ([], {"ro", "nosuid", "nodev", "relatime"}, {"noexec"}), \
                                          (["-o", "noexec,noatime"], {"ro", "nosuid", "nodev", "noexec",
                                                                     "noatime"}, {"relatime"}), \
                                          (["-o", "suid,dev"], {"ro"}, {"nosuid", "nodev", "noexec"}), \
                                          ([], {"ro", "nosuid", "nodev", "relatime"}, {"noexec"}):
                    place = self.mount(*words, way=way)
                    options = set(entries(place)[0][3].split(","))
                    self.assertLessEqual(there, options)
                    self.assertEqual(options & away, set())
                self.count(1)
                self.run_tool("umount", "--all", "--journal", self.journal)
                self.assert_all_over()

    def test_mounts_in_clones_do_not_spread(self):
        subprocess.run(["mount", "--make-shared", self.mnt], check=True)
        first, second = self.mount(), self.mount()
        subprocess.run(["mount", "-t", "tmpfs", "over", os.path.join(first, "data")], check=True)
        self.assertEqual(os.listdir(os.path.join(first, "data")), [])
        self.assertNotEqual(os.listdir(os.path.join(second, "data")), [])
        subprocess.run(["umount", os.path.join(first, "data")], check=True)

    def test_killed_workers_are_not_noticed(self):
        for way in WAYS:
            with self.subTest(way):
                places = [self.mount(way=way) for _ in range(3)]
                data = read(places[0])
                for place in places:
                    subprocess.run(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"], capture_output=True)
                    os.kill(self.status()[0]["worker"], signal.SIGKILL)
                    self.assertEqual(read(place), data)
                    self.assertEqual(read(place, "data/large"), read(places[0], "data/large"))
                self.assertTrue(wait_for(lambda: self.status()[0]["restarts"] >= 1))
                self.count(1)
                for place in places:
                    subprocess.run(["umount", place], check=True)
                self.assert_all_over()

    def test_a_mount_that_was_moved(self):
        first, second = self.mount(), self.mount()
        subprocess.run(["mount", "--make-rprivate", self.mnt], check=True)
        moved = self.place()
        subprocess.run(["mount", "--move", first, moved], check=True)
        self.assertEqual(sorted(self.count(1)[0]["mount_points"]), sorted([second, moved]))
        self.assertEqual(len(self.status(moved)), 1)
        third = self.mount()
        self.count(1)
        for place in moved, third, second:
            self.umount(place)
        self.assert_all_over()

    def test_a_signal_ends_all_mounts(self):
        for way in WAYS:
            with self.subTest(way):
                places = [self.mount(way=way) for _ in range(3)]
                self.umount(places[0])  # which the record names
                with open(os.path.join(places[2], "data/second"), "rb") as file:
                    os.kill(self.count(1)[0]["supervisor"], signal.SIGTERM)
                    self.assertTrue(wait_for(lambda: not entries(places[1]) and not entries(places[2])))
                    self.assertEqual(len(file.read()), 5000000, "it is served to its last user")
                self.assert_all_over()

    def test_a_server_without_supervisor_is_not_shared(self):
        first, second = self.mount(way="fuse-tree"), self.mount(way="fuse-tree")
        server, = self.count(1)
        os.kill(server["supervisor"], signal.SIGKILL)
        self.assertTrue(wait_for(lambda: server["supervisor"] not in self.servers()))
        third = self.mount(way="fuse-tree")
        self.assertEqual(len(read(third)), 5000000)
        self.count(2)
        for place in first, second, third:
            subprocess.run(["umount", place], check=True)
        done = self.run_tool("gc", "--journal", self.journal)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_all_over()

    def test_a_place_is_found_by_what_is_mounted_there(self):
        """The first server's record names the place where another image is mounted by now."""
        first, second = self.mount(), self.mount()
        self.umount(first)
        done = self.run_tool(*self.command(first, "--no-share"))
        self.assertEqual(done.returncode, 0, done.stderr)
        at_first, at_second = self.status(first)[0], self.status(second)[0]
        self.assertNotEqual(at_first["supervisor"], at_second["supervisor"])
        self.assertEqual((at_first["mount_points"], at_second["mount_points"]), ([first], [second]))
        again = self.run_tool(*self.command(second))
        self.assertEqual(again.returncode, 32)
        self.assertIn("this image is mounted there already", again.stderr)

    def test_another_process_takes_all_of_them_over(self):
        places = [self.mount(way="fuse-tree") for _ in range(3)]
        self.umount(places[0])
        before = self.count(1)[0]["supervisor"]
        done = self.run_tool("reattach", "--replace", "--journal", self.journal, places[1])
        self.assertEqual(done.returncode, 0, done.stderr)
        server, = self.count(1)
        self.assertNotEqual(server["supervisor"], before)
        self.assertEqual(server["mount_points"], places[1:])
        for place in places[1:]:
            self.assertEqual(len(read(place)), 5000000)
        os.kill(server["supervisor"], signal.SIGTERM)
        self.assertTrue(wait_for(lambda: not entries(places[1]) and not entries(places[2])))
        self.assert_all_over()

    def test_the_text_of_status(self):
        places = [self.mount() for _ in range(2)]
        done = self.run_tool("status", "--journal", self.journal)
        self.assertRegex(done.stdout, rf" on {places[0]}\n +and {places[1]}\n +image: ")

    def test_a_user_who_may_not_mount_has_servers_of_his_own(self):
        os.chmod(self.mnt, 0o777)
        places = [self.place() for _ in range(2)]
        for place in places:
            os.chown(place, NOBODY, NOBODY)
            done = self.run_tool("mount", "--journal", os.path.join(self.dir, "theirs"), "-o",
                                 "oci.store=none", self.image, place, user=NOBODY)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(as_user(NOBODY, lambda: len({os.stat(place).st_dev for place in places})), 2)
        for place in places:
            done = self.run_tool("umount", place, user=NOBODY)
            self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    if reason := why_skip():
        print("skipped:", reason)
        sys.exit(77)
    unittest.main()
