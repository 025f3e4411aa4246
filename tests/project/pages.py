#!/usr/bin/env python3
"""Checks what the pages show: README.md and doc/*.md.

usage: pages.py programs [--write]         each program is the file of example/ that its first comment names
       pages.py run                        each command with output gives that output; needs root, else 77
       pages.py selftest

A program is a block ```cpp with a main(); the comment `<!-- example/NAME.cpp -->` before it names the file, which
the build compiles; --write puts the files' text in.

A page's blocks ```console are run in their order, by one shell in an empty directory, if one of them shows
output. `$ ` and `# ` begin commands, all else is what they print, on standard output or standard error. In it,
`…` stands for any text within a line, and by itself for any lines. A block after `<!-- not run: WHY -->` is left
out. The programs of EROFS_OCI_PROGRAMS (NAME=PATH, separated by colons) come first in PATH. README.md's commands
are not run: they show no output. A command that is named in a page and is not on this machine is a failure.
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = re.compile(r"(?:<!-- (example/\S+\.cpp) -->\n\n?)?```cpp\n(.*?)```\n", re.S)
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n\n?)?```console\n(.*?)```\n", re.S)
LICENCE = "// SPDX-License-Identifier: Apache-2.0\n"
LIMIT = 240  # seconds for the commands of one page


def pages():
    return [TOP / "README.md", *sorted(TOP.glob("doc/*.md"))]


def check_programs(text, files, write=False):
    """The text with the programs as they are, and what is wrong with it."""
    faults = []

    def replace(match):
        name, program = match.groups()
        if name is None and "int main(" not in program:
            return match.group()
        if name is None:
            faults.append("a program has no comment that names its file")
            return match.group()
        wanted = files(name)
        if wanted is None:
            faults.append(f"{name} is not there")
            return match.group()
        wanted = wanted.removeprefix(LICENCE)
        if wanted != program and not write:
            faults.append(f"the program is not {name}: run {pathlib.Path(__file__).name} programs --write")
        return f"<!-- {name} -->\n```cpp\n{wanted}```\n"

    return PROGRAM.sub(replace, text), faults


def commands_of(text):
    """Pairs of a command and what it prints, of the blocks that are run."""
    for skipped, block in BLOCK.findall(text):
        if skipped:
            continue
        command, printed, goes_on = None, [], False
        for line in block.splitlines():
            if goes_on:
                command += "\n" + line
            elif line.startswith(("$ ", "# ")):
                if command is not None:
                    yield command, printed
                command, printed = line[2:], []
            else:
                printed.append(line)
            goes_on = line.endswith("\\") and not printed
        if command is not None:
            yield command, printed


def is_like(printed, wanted):
    """Whether lines are as the page has them."""
    pattern = "".join("(?:.*\n)*" if line == "…" else
                      ".*".join(re.escape(part) for part in line.split("…")) + "\n" for line in wanted)
    return re.fullmatch(pattern, "".join(line + "\n" for line in printed)) is not None


def run(commands, programs):
    """Runs the commands in one shell; for each that prints something else, what it did print."""
    with tempfile.TemporaryDirectory(prefix="pages-") as folder:
        top = pathlib.Path(folder)
        (top / "bin").mkdir()
        (top / "home").mkdir()
        (top / "here").mkdir()
        for name, path in programs.items():
            (top / "bin" / name).symlink_to(path)
        mark = "-- end of command --"
        script = "".join(f"{command}\necho '{mark}'\n" for command, _ in commands)
        environment = {"PATH": f"{top}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                       "HOME": f"{top}/home", "XDG_CACHE_HOME": f"{top}/home/cache", "LANG": "C.UTF-8",
                       "TMPDIR": f"{top}/home", "XDG_RUNTIME_DIR": f"{top}/home"}
        shell = ["bash"]
        if os.geteuid() == 0:  # what is mounted or left running is seen nowhere else, and ends with the shell
            shell = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
                     "--mount-proc", *shell]
        process = subprocess.Popen(shell, cwd=top / "here", env=environment, text=True, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            said, _ = process.communicate(script, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what the page has left running
        except ProcessLookupError:
            pass
    answers = [part.strip("\n").splitlines() for part in said.split(mark + "\n")]
    for number, (command, wanted) in enumerate(commands):
        printed = answers[number] if number < len(answers) else ["(it was not reached)"]
        if not is_like(printed, wanted):
            yield f"$ {command}\n" + "".join(f"  wanted: {line}\n" for line in wanted) + \
                "".join(f"  printed: {line}\n" for line in printed)


def check_run():
    programs = dict(pair.split("=", 1) for pair in os.environ["EROFS_OCI_PROGRAMS"].split(":"))
    faults, count = [], 0
    for page in pages()[1:]:
        commands = list(commands_of(page.read_text()))
        if not any(printed for _, printed in commands):
            continue
        count += len(commands)
        faults += [f"{page.name}: {fault}" for fault in run(commands, programs)]
    if count == 0:
        faults.append("no page has a command with output")
    return faults


def selftest():
    page = "<!-- example/a.cpp -->\n```cpp\nint main() {}\n```\n"
    assert check_programs(page, lambda name: LICENCE + "int main() {}\n") == (page, [])
    assert check_programs(page, lambda name: "int main() { }\n")[1]
    assert check_programs(page, lambda name: None)[1]
    assert check_programs("```cpp\nint main() {}\n```\n", lambda name: "int main() {}\n")[1]
    assert not check_programs("```cpp\nint x;\n```\n", lambda name: None)[1]
    for old in (page, "<!-- example/a.cpp -->\n```cpp\n```\n"):
        assert "int x;" in check_programs(old, lambda name: "int x; int main() {}\n", write=True)[0]
    text = "```console\n$ echo a \\\n  b\na b\n$ here\n```\n<!-- not run: it is long -->\n```console\n$ c\nd\n```\n"
    assert list(commands_of(text)) == [("echo a \\\n  b", ["a b"]), ("here", [])]
    assert is_like(["a", "b", "c"], ["a", "…"]) and is_like(["a"], ["…", "a"]) and is_like([], ["…"])
    assert not is_like(["a", "b"], ["a"]) and not is_like(["a", "b"], ["…b"]) and not is_like(["b"], ["a", "…"])
    good = [("echo a; here", ["a", "b … c"]), ("true", [])]
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder) / "program"
        here.write_text("#!/bin/sh\necho b 12 c\n")
        here.chmod(0o755)
        assert not list(run(good, {"here": here})), list(run(good, {"here": here}))
        for bad in ([("here", ["b"])], [("echo a", ["b"])], [("exit 1", []), ("true", [])], [("true", ["a"])]):
            assert list(run(bad, {"here": here})), bad


def main():
    if sys.argv[1:] == ["selftest"]:
        return selftest()
    if sys.argv[1:] == ["run"]:
        if os.geteuid() != 0:
            print("not root: some commands of the pages mount")
            return 77
        faults = check_run()
    elif sys.argv[1:2] == ["programs"]:
        write = sys.argv[2:] == ["--write"]
        faults = []
        for page in pages():
            text, found = check_programs(
                page.read_text(), lambda name: (TOP / name).read_text() if (TOP / name).exists() else None, write)
            faults += [f"{page.name}: {fault}" for fault in found]
            if write:
                page.write_text(text)
    else:
        sys.exit(__doc__)
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
