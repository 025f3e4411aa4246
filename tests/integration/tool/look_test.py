# SPDX-License-Identifier: Apache-2.0
"""mount-oci tree and du, and paths that are patterns: what tree(1), du(1) and a shell make of the same
files, and images that are made to be hard to look at."""
import os
import pty
import subprocess
import unittest

import images
from files_test import ImageTest
from support import TOOL, with_little_stack


class LookTest(ImageTest):
    def unpacked(self):
        there = os.path.join(self.dir, "unpacked")
        if os.geteuid() == 0:
            self.run_tool("extract", "-C", there)
            return there
        self.skipTest("needs root, to own what is extracted")

    def image_of(self, name, layer):
        return f"oci:{images.layout_of(os.path.join(self.dir, name), [layer])}:v1"

    def on_a_terminal(self, *words):
        """What a command writes to a terminal."""
        ours, theirs = pty.openpty()
        words = [words[0], "-o", f"oci.platform=linux/amd64,oci.store={self.store}", *words[1:]]
        tool = subprocess.Popen([TOOL, *words], stdin=subprocess.DEVNULL, stdout=theirs,
                                stderr=subprocess.PIPE)
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 4096):
                said += piece
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        self.assertEqual((tool.communicate(timeout=60)[1], tool.returncode), (b"", 0))
        return said.replace(b"\r\n", b"\n")


class TreeTest(LookTest):
    def test_draws_what_tree_draws(self):
        self.need("tree")
        there = self.unpacked()
        drawn = 0
        for locale in ("C", "C.UTF-8"):
            environment = dict(os.environ, LC_ALL=locale)
            for options in ([], ["-d"], ["-L", "1"], ["-L", "2"], ["-d", "-L", "1"]):
                for place in ("/", "/etc", "/data", "/gone"):
                    with self.subTest(locale=locale, options=options, place=place):
                        ours = self.run_tool("tree", *options, place, env=environment)
                        theirs = subprocess.run(["tree", "-a", "-N", *options, "."],
                                                cwd=there + place, check=True, env=environment,
                                                capture_output=True).stdout
                        ours = ours.split(b"\n")
                        self.assertEqual(ours[0].decode(), place)
                        self.assertEqual(ours[1:-2], theirs.split(b"\n")[1:-2])
                        # tree counts a directory that it starts from, but not if that is empty.
                        if len(ours) > 4:
                            self.assertEqual(ours[-2], theirs.split(b"\n")[-2])
                            drawn += 1
        self.assertGreater(drawn, 20)

    def test_sizes(self):
        lines = self.run_tool("tree", "-s", "/data", env={"LC_ALL": "C"}).decode().splitlines()
        self.assertRegex(lines[0], r"^\[ +\d+\]  /data$")
        self.assertEqual(lines[1:], ["|-- [          0]  empty", "|-- [    5000000]  large",
                                     "|-- [     700000]  large2", "`-- [    5000000]  second", "",
                                     "1 directory, 4 files"])
        lines = self.run_tool("tree", "-h", "/data", env={"LC_ALL": "C"}).decode().splitlines()
        self.assertEqual(lines[1:5], ["|-- [   0]  empty", "|-- [4.8M]  large", "|-- [684K]  large2",
                                      "`-- [4.8M]  second"])

    def test_several_paths_are_counted_together(self):
        self.assertEqual(self.run_tool("tree", "/lib", "/etc/link", env={"LC_ALL": "C"}).decode(),
                         "/lib\n|-- so\n`-- so.1.2\n/etc/link -> passwd\n\n1 directory, 3 files\n")
        self.assertEqual(self.run_tool("tree", "/sticky", "/no", status=1).decode(),
                         "/sticky\n\n1 directory, 0 files\n")
        self.assertIn("/no: No such file", self.said)

    def test_json_has_the_paths_of_find(self):
        shown = [entry["path"] for entry in self.json_lines("tree", "--json")]
        self.assertEqual(shown, [entry["path"] for entry in self.json_lines("find", "--json")])

    def test_a_deep_tree_takes_little_stack(self):
        layer = images.Layer().dir("x/" * 2000).file("x/" * 2000 + "deep").file("y")
        image = self.image_of("deep", layer)
        self.run_tool("index", image=image)
        out = self.run_tool("tree", image=image, env={"LC_ALL": "C"},
                            preexec_fn=with_little_stack).decode()
        lines = out.splitlines()
        self.assertEqual(lines[2000], "|   " + "    " * 1998 + "`-- x")
        self.assertEqual(lines[2001], "|   " + "    " * 1999 + "`-- deep")
        self.assertEqual(lines[2002:], ["`-- y", "", "2001 directories, 2 files"])
        out = self.run_tool("du", "-b", image=image, preexec_fn=with_little_stack).decode().splitlines()
        self.assertEqual((len(out), out[0], out[-1]), (2001, "0\t" + "/x" * 2000, "0\t/"))

    def test_names_do_not_steer_a_terminal(self):
        image = self.image_of("odd", images.Layer().dir("d\x1b[2J").file("d\x1b[2J/a\nb"))
        drawn = self.on_a_terminal("tree", image)
        self.assertIn(rb"d\033[2J", drawn)
        self.assertIn(rb"a\012b", drawn)
        self.assertIn(b"\t/d\\033[2J/a\\012b\n", self.on_a_terminal("du", "-a", image))
        self.assertEqual(drawn.count(b"\n"), 5)

    def test_a_large_directory(self):
        layer = images.Layer()
        for i in range(20_000):
            layer.file(f"d/{i:05}")
        image = self.image_of("large", layer)
        lines = self.run_tool("tree", image=image).decode().splitlines()
        self.assertEqual((len(lines), lines[-1]), (20_004, "2 directories, 20000 files"))

    def test_a_command_line_that_asks_for_nothing(self):
        self.run_tool("tree", "-L", "0", status=1)
        self.assertIn("tree: -L 0: a level of at least 1 is needed", self.said)
        self.run_tool("tree", "-L", "x", status=1)


class DuTest(LookTest):
    def adds_directories(self):
        """Whether du(1) adds sizes of directories to those of contents, as it did up to coreutils 9.1."""
        empty = os.path.join(self.dir, "empty")
        os.makedirs(empty, exist_ok=True)
        return not subprocess.run(["du", "-sb", empty], capture_output=True).stdout.startswith(b"0\t")

    def du(self, there, *words):
        """What du(1) says of contents, without sizes of directories."""
        words = [there + word if word.startswith("/") else word for word in words]
        done = subprocess.run(["du", "-b", *words], env={"LC_ALL": "C"}, capture_output=True, check=True)
        adds = self.adds_directories()
        lines, all_folders = [], set()
        for line in done.stdout.decode().splitlines():
            size, path = line.split("\t")
            folders = {folder for folder, _, _ in os.walk(path)}
            all_folders |= folders
            folders = all_folders if path == "total" else folders
            extra = sum(os.lstat(folder).st_size for folder in folders) if adds else 0
            path = path.removeprefix(there) if path != there + "/" else "/"
            lines.append(f"{int(size) - extra}\t{path or '/'}")
        return lines

    def test_apparent_sizes_are_those_of_du(self):
        there = self.unpacked()
        for words in (["/"], ["-a", "/"], ["-s", "/"], ["-d", "1", "/"], ["-d", "0", "/"],
                      ["-a", "-d", "1", "/data", "/etc"], ["-c", "/data", "/etc"],
                      ["-sc", "/data", "/etc", "/lib"], ["-c", "/data/second", "/data"],
                      ["-ac", "/data", "/data/large", "/etc/passwd"],
                      ["-c", "/etc", "/etc"], ["/etc/link"]):
            with self.subTest(words):
                ours = self.run_tool("du", "-b", *words).decode().splitlines()
                theirs = self.du(there, *words)
                if "-a" in words or "-ac" in words or "/" in words:
                    # Which of a file's names comes first is the file system's choice.
                    last = ours[-1:]
                    self.assertEqual(last, theirs[-1:])
                    keep = lambda lines: sorted(line for line in lines
                                                if not line.endswith(("large", "second", "so", "so.1.2")))
                    ours, theirs = keep(ours), keep(theirs)
                self.assertEqual(ours, theirs)

    def test_what_is_in_two_paths_counts_in_the_first(self):
        whole = int(self.run_tool("du", "-bs", "/").split()[0])
        self.assertEqual(self.run_tool("du", "-bsc", "/data", "/", "/etc").decode(),
                         f"5700000\t/data\n{whole - 5_700_000}\t/\n{whole}\ttotal\n")

    def test_a_hard_link_counts_once_and_a_hole_does(self):
        self.assertEqual(self.run_tool("du", "-ab", "/data").decode().splitlines(),
                         ["0\t/data/empty", "5000000\t/data/large", "700000\t/data/large2",
                          "5700000\t/data"])
        layer = images.Layer().sparse("s", 1 << 20, {4096: b"x" * 512})
        self.assertEqual(self.run_tool("du", "-ab", image=self.image_of("sparse", layer)).decode(),
                         f"{1 << 20}\t/s\n{1 << 20}\t/\n")

    def test_blocks_are_those_of_the_mount(self):
        # As stat(2) of a mount has them: whole blocks of 512 bytes of all files, directories included.
        expected, seen = {}, set()
        for entry in self.json_lines("find", "--json"):
            if entry["inode"] in seen:
                continue
            seen.add(entry["inode"])
            folder = entry["path"] if entry["type"] == "d" else os.path.dirname(entry["path"])
            while True:
                expected[folder] = expected.get(folder, 0) + (entry["size"] + 511) // 512 * 512
                if folder == "/":
                    break
                folder = os.path.dirname(folder)
        found = self.json_lines("du", "--json")
        self.assertEqual({entry["path"]: entry["blocks"] for entry in found}, expected)
        lines = self.run_tool("du").decode().splitlines()
        self.assertEqual(lines, [f"{-(-expected[entry['path']] // 1024)}\t{entry['path']}"
                                 for entry in found])
        self.assertEqual(found[-1]["path"], "/")

    def test_units(self):
        self.assertEqual(self.run_tool("du", "-h", "--apparent-size", "-s", "/data").decode(), "5.5M\t/data\n")
        self.assertEqual(self.run_tool("du", "--apparent-size", "/etc/passwd").decode(), "1\t/etc/passwd\n")
        total = self.json_lines("du", "--json", "-sc", "/data", "/lib")[-1]
        self.assertEqual((total["total"], total["apparent"]), (True, 5_900_000))
        self.assertNotIn("path", total)

    def test_options_that_exclude_each_other(self):
        for words in (["-s", "-a"], ["-s", "-d", "1"]):
            self.run_tool("du", *words, status=1)
            self.assertIn("du: -s does not go with -a or -d", self.said)

    def test_a_path_that_is_not_there(self):
        self.assertEqual(self.run_tool("du", "-b", "/no", "/etc/passwd", status=1), b"22\t/etc/passwd\n")
        self.assertIn("/no: No such file", self.said)


class PatternTest(LookTest):
    def test_matches_what_a_shell_matches(self):
        there = self.unpacked()
        matched = 0
        for pattern in ("/*", "/etc/*", "/*/s*", "/data/large?", "/data/[es]*", "/data/[!l]*", "/*/*/*",
                        "/gone/*", "/etc/pass*", "/nothing*", "/data/*/x", "/*/", "/*a/*a*", "/[a-f]*", "/*/s*o*", "/*/*e", "/name*",
                        "/etc/./p*", "//etc//p*", "/gr*", "/l*/so.?.?", "/etc/../l*/so"):
            with self.subTest(pattern):
                # Some spellings of a path are the same path.
                clean = lambda path: os.path.normpath(path).replace("//", "/")
                theirs = subprocess.run(["bash", "-c", f"shopt -s nullglob; printf '%s\\n' \"$1\"{pattern}",
                                         "-", there], env={"LC_ALL": "C"}, capture_output=True, check=True)
                theirs = [clean(line.removeprefix(there)) for line in theirs.stdout.decode().split("\n")
                          if line and os.path.lexists(line)]
                ours = self.run_tool("find", "-maxdepth", "0", pattern, status=0 if theirs else 1)
                found = [clean(line) for line in ours.decode().splitlines()]
                # On this machine, /abs leads out of the directory.
                self.assertEqual([path for path in found if not path.startswith("/abs")],
                                 [path for path in theirs if not path.startswith("/abs")])
                matched += len(found)
        self.assertGreater(matched, 45)

    def test_ls_has_titles_if_a_pattern_matches_several(self):
        self.assertEqual(self.run_tool("ls", "/[l-o]*"),
                         self.run_tool("ls", "/lib", "/name with blanks", "/null", "/old"))
        self.assertIn(b"/lib:\nso\nso.1.2\n", self.run_tool("ls", "/[l-o]*"))
        self.assertEqual(self.run_tool("ls", "/o*d"), b"new\n")

    def test_cat_of_several(self):
        self.assertEqual(self.run_tool("cat", "/gone/*", "/old/n?w", "/attr"), b"cn3")
        self.assertEqual(self.run_tool("cat", "/etc/[lp]*"), 2 * b"root:x:0:0\nuser:x:1:1\n")
        self.assertEqual(self.run_tool("cat", "/etc/*.conf", "/attr", status=1), b"3")
        self.assertIn("/etc/*.conf: No such file", self.said)

    def test_dots_and_backslashes_and_names_that_look_like_patterns(self):
        layer = images.Layer().file(".dot", b"1").file("a*", b"2").file("ab", b"3").file("[x]", b"4")
        image = self.image_of("odd", layer.file("d/.e", b"5").file("d\\e/f", b"6"))
        for pattern, content in (("/*", None), ("/a*", b"2"), ("/a?", b"23"), ("/.d*", b"1"), ("/?dot", None),
                                 ("/\\a[*]", b"2"), ("/[x]", b"4"), ("/d/.*", b"5"), ("/d*/f", b"6"),
                                 ("/d\\\\e/?", b"6"), ("/[\\[]x]", b"4")):
            with self.subTest(pattern):
                if content is None:
                    names = self.run_tool("ls", pattern, image=image, status=int("?" in pattern)).decode()
                    self.assertNotIn("dot\n", names)
                else:
                    self.assertEqual(self.run_tool("cat", pattern, image=image), content)

    def test_too_many_paths_are_refused(self):
        # 300 links to the root: 300 to the power of the number of components.
        layer = images.Layer()
        for i in range(300):
            layer.symlink(f"{i}", "/")
        image = self.image_of("links", layer)
        self.run_tool("stat", "/*/*/*/*/*", image=image, status=2)
        self.assertIn("a pattern that matches more than a million paths", self.said)


if __name__ == "__main__":
    unittest.main()
