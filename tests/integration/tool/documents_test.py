# SPDX-License-Identifier: Apache-2.0
"""Man pages, completions and the example of the configuration file, as the build makes them: read by man,
mandoc and the shells themselves, and compared with what the program says and takes."""
import gzip
import os
import pty
import re
import select
import shutil
import subprocess
import tempfile
import unittest

from support import TOOL

DOCUMENTS = os.environ["MOUNT_OCI_DOCUMENTS"]
MAN = os.path.join(DOCUMENTS, "man")
IMAGE = "oci:/nonexistent"


def run(*words, **more):
    return subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                          **more)


def pages():
    """Paths of all pages, and as what `help` prints the same."""
    for folder, _, files in os.walk(MAN):
        for name in sorted(files):
            yield os.path.join(folder, name), re.sub(r"\.\d(\.gz)?$", "", name)


def help_of(name):
    topic = name.removeprefix("mount-oci-")
    return run(TOOL, *(["--help"] if topic == "mount-oci" else ["help", topic])).stdout


def words_of(text):
    return re.sub(r"[^A-Za-z0-9]+", " ", text).split()


class ManTest(unittest.TestCase):
    def test_there_is_a_page_for_each_command(self):
        overview = run(TOOL, "--help").stdout
        listed = re.search(r"\nCOMMANDS\n(.*?)\n\nInstalled", overview, re.S).group(1)
        commands = re.findall(r"^  (\w+(?:, \w+)*)(?:  |$)", listed, re.M)
        names = {name for _, name in pages()}
        for command in ", ".join(commands).split(", "):
            self.assertIn("mount-oci-" + command, names)
        self.assertLessEqual({"mount-oci", "mount.erofs.nbd", "mount-oci.conf"}, names)
        self.assertGreater(len(names), 20)

    def test_man_has_no_warning(self):
        for path, name in pages():
            done = run("man", "--warnings", "-l", path, env=dict(os.environ, LC_ALL="C.UTF-8"))
            self.assertEqual((done.returncode, done.stderr), (0, ""), name)

    @unittest.skipUnless(shutil.which("mandoc"), "no mandoc")
    def test_mandoc_has_no_warning(self):
        for path, name in pages():
            done = run("mandoc", "-T", "lint", "-W", "warning", path)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), name)

    def test_a_page_has_all_words_of_the_help_and_their_order(self):
        for path, name in pages():
            done = run("man", "-l", path, env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="1000",
                                                   MAN_KEEP_FORMATTING="", PAGER="cat",
                                                   GROFF_NO_SGR="1", MANROFFOPT="-c"))
            page = re.sub(r".\x08", "", done.stdout)
            shown = " ".join(words_of(page))
            # What --help names as a command's help is a reference in the page.
            text = help_of(name)
            text = re.sub(r"`mount-oci help ([\w.-]+)`", r"\1", text)
            text = re.sub(r"`mount-oci(?: (\w+))? --help`", r"mount-oci \1", text)
            text = text.split("\n", 1)[1]
            self.assertGreater(len(text), 100, name)
            at = 0
            shown_words = shown.split()
            for word in words_of(text):
                self.assertIn(word, shown_words[at:], f"{name}: {word}")
                at = shown_words.index(word, at) + 1

    def test_a_page_has_every_option_of_the_help(self):
        for path, name in pages():
            with gzip.open(path, "rt") as file:
                source = file.read().replace("\\-", "-")
            for option in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", help_of(name)):
                if option != "--help":
                    self.assertIn(option, source, name)


class ConfigTest(unittest.TestCase):
    def test_the_example_says_nothing_but_has_every_word(self):
        with open(os.path.join(DOCUMENTS, "mount-oci.conf")) as file:
            text = file.read()
        self.assertFalse([line for line in text.splitlines() if line and not line.startswith("#")])
        for word in set(re.findall(r"^  (oci\.\w+)[=\[]", run(TOOL, "mount", "--help").stdout, re.M)):
            self.assertRegex(text, rf"(?m)^#{re.escape(word)} = ")

    def test_the_example_is_taken(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "c")
            shutil.copy(os.path.join(DOCUMENTS, "mount-oci.conf"), path)
            done = run(TOOL, "ls", "--config", path, IMAGE)
            self.assertNotIn("--config", done.stderr)
            self.assertIn("nonexistent", done.stderr)

    def test_choices_in_the_example_are_values(self):
        with open(os.path.join(DOCUMENTS, "mount-oci.conf")) as file:
            lines = re.findall(r'^#(oci\.\w+ = (?:\d+|"(?!\.\.\.).*"))$', file.read(), re.M)
        lines = [line for line in lines if not line.startswith(("oci.username", "oci.password"))]
        self.assertGreater(len(lines), 5)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "c")
            with open(path, "w") as file:
                file.write("\n".join(lines) + "\n")
            done = run(TOOL, "ls", "--config", path, IMAGE)
            self.assertIn("nonexistent", done.stderr)


class Completion:
    """What a shell offers; candidates are words up to a blank."""

    def check(self, line, offered, not_offered=()):
        found = self.complete(line)
        for word in offered:
            self.assertIn(word, found, line)
        for word in not_offered:
            self.assertNotIn(word, found, line)

    def test_commands(self):
        self.check("mount-oci ind", ["index"], ["image", "ls"])
        self.check("mount-oci ca", ["cat", "cache"], ["ls"])

    def test_options_are_those_of_the_command(self):
        self.check("mount-oci ls --re", ["--recursive"], ["--replace"])
        self.check("mount-oci reattach --re", ["--replace"], ["--recursive"])
        self.check("mount-oci --att", ["--attach"])

    def test_values(self):
        self.check("mount-oci mount --attach fuse-", ["fuse-file", "fuse-tree"], ["netlink"])
        self.check("mount-oci cache ", ["ls", "prune", "verify"], ["index"])

    def test_words_of_o(self):
        self.check("mount-oci ls -o oci.pl", ["oci.platform="], ["oci.pull="])
        self.check("mount-oci -o nos", ["nosuid"], ["oci.store="])


class BashTest(Completion, unittest.TestCase):
    def complete(self, line):
        script = """source "$1"; COMP_LINE=$2 COMP_POINT=${#2}
                    $(complete -p mount-oci | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
                    printf '%s\\n' "${COMPREPLY[@]}" """
        with tempfile.TemporaryDirectory() as empty:  # no file is offered
            done = run("bash", "-c", script, "-", os.path.join(DOCUMENTS, "mount-oci.bash"), line, cwd=empty)
        self.assertEqual(done.stderr, "", line)
        return done.stdout.split()

    def test_what_is_behind_an_equals_sign_or_a_comma(self):
        self.check("mount-oci -o oci.verify=", ["lazy", "background", "off"])
        self.check("mount-oci -o ro,oci.verify=b", ["background"], ["lazy"])
        self.check("mount-oci -o ro,oci.pu", ["ro,oci.pull="])
        self.check("mount-oci --log=j", ["json"], ["text"])

    def test_paths(self):
        self.check("mount-oci extract -C /et", ["/etc/"])
        self.check("mount-oci ls -o oci.store=/et", ["/etc/"])
        self.check("mount-oci ls -o oci.store=no", ["none"])

    def test_all_words(self):
        offered = self.complete("mount-oci -o oci.")
        named = re.findall(r"^  (oci\.\w+)[=\[]", run(TOOL, "mount", "--help").stdout, re.M)
        self.assertEqual({word.rstrip("=") for word in offered}, set(named))

    def test_choices_are_taken(self):
        words = [word for word in self.complete("mount-oci -o ") if word.startswith("oci.")]
        tried = 0
        for word in words:
            if word.rstrip("=") in ("oci.username", "oci.password", "oci.password_file"):
                continue
            for value in self.complete(f"mount-oci -o {word.rstrip('=')}="):
                if "/" in value:
                    continue
                done = run(TOOL, "ls", "-o", f"{word.rstrip('=')}={value}", IMAGE)
                self.assertNotIn("-o oci.", done.stderr)
                tried += 1
        self.assertGreater(tried, 15)


@unittest.skipUnless(shutil.which("fish"), "no fish")
class FishTest(Completion, unittest.TestCase):
    def complete(self, line):
        path = os.path.join(DOCUMENTS, "mount-oci.fish")
        with tempfile.TemporaryDirectory() as home:
            done = run("fish", "--no-config", "-c", f"source '{path}'; complete -C \"$argv[1]\"", line,
                       env=dict(os.environ, HOME=home))
        self.assertEqual(done.stderr, "", line)
        return [found.split("\t")[0] for found in done.stdout.splitlines()]

    def test_what_is_behind_an_equals_sign_or_a_comma(self):
        self.check("mount-oci -o oci.verify=b", ["oci.verify=background"], ["oci.verify=lazy"])
        self.check("mount-oci -o ro,oci.pu", ["ro,oci.pull="])


@unittest.skipUnless(shutil.which("zsh"), "no zsh")
class ZshTest(Completion, unittest.TestCase):
    # In an interactive shell: each match that a completion adds is written down; ^Xd ends the shell, once all
    # keys before it have had their effect.
    RC = r"""
# The functions of other programs are many, and none of them is needed.
all=($ZDOTDIR $fpath)
fpath=(${all:#*(Unix|Linux|Debian|Cron|X|vendor|site)*})
autoload -Uz compinit
compinit -u -D
fpath=($all)
autoload -Uz _files _path_files
compadd() {
  local -a got
  if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
    builtin compadd -O got "$@"
    print -rl -- "offered "${^got} >>$ZDOTDIR/offered
  fi
  builtin compadd "$@"
}
finish() { exit }
zle -N finish
bindkey '^Xd' finish
bindkey '^I' complete-word
PS1='ready>'
"""

    def complete(self, line):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(os.path.join(DOCUMENTS, "_mount-oci"), folder)
            with open(os.path.join(folder, ".zshrc"), "w") as file:
                file.write(self.RC)
            environment = dict(os.environ, HOME=folder, ZDOTDIR=folder, TERM="dumb")
            child, terminal = pty.fork()
            if child == 0:
                os.chdir(folder)
                os.execvpe("zsh", ["zsh", "-d", "-i"], environment)
            said = self.read_until(terminal, b"ready>")
            os.write(terminal, line.encode() + b"\t\x18d")
            said += self.read_until(terminal, None)
            os.close(terminal)
            os.waitpid(child, 0)
            self.assertTrue(os.path.exists(os.path.join(folder, "offered")), said)
            with open(os.path.join(folder, "offered")) as file:
                found = re.findall(r"^offered (\S+)", file.read(), re.M)
        return [word.replace("\\", "") for word in found]

    def read_until(self, terminal, text):
        """What is written up to a text, or to the end."""
        said = b""
        while text is None or text not in said:
            self.assertTrue(select.select([terminal], [], [], 200)[0], said)
            try:
                said += os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
        return said

    def check(self, line, offered, not_offered=()):
        # _values adds the equals sign itself.
        super().check(line, [word.rstrip("=") for word in offered],
                      [word.rstrip("=") for word in not_offered])


if __name__ == "__main__":
    unittest.main()
