#!/usr/bin/env python3
"""Changes one line of the library at a time and runs the unit test that must notice it.

usage: tests/mutants/run.py [--jobs N] [NAME...]   builds and runs the mutants of these names, or all
       tests/mutants/run.py --check                only looks whether each still applies; builds nothing
       tests/mutants/run.py --selftest

mutants.toml has a table for each mutant:
    file      below include/erofs_oci
    before    a text that is there exactly once in that file
    after     what takes its place: one line of it differs
    test      the unit test that must fail with it, as ctest names it
    sanitize  what -fsanitize= of the compiler that takes to fail, such as "thread"; default: nothing
    alone     true: it is compiled by itself, since it changes more than an expression

The checkout stays as it is: a changed file is in an include directory that goes before the library's own.
A test is compiled once for all of its mutants, not optimized; in each place that one of them changes
stands `on(N) ? after : before`, over the whole expression, and the environment says which is on. So
each test is first run without any: it must pass. All runs begin with the same random numbers.

A line for each mutant says `killed` and what failed, `SURVIVED`, `did not apply` or `does not compile`.
The exit status is 1 unless all are killed. What the compiler said is in build/mutants.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
INCLUDE = TOP / "include"
OUT = TOP / "build/mutants"
COMPILER = "clang++-19"
PACKAGES = ["fuse3", "libnl-genl-3.0", "libisal", "zlib", "openssl", "tomlplusplus", "libcryptsetup"]
DEFINES = ["-DEROFS_OCI_HAVE_ISAL=1", "-DEROFS_OCI_HAVE_CRYPTSETUP=1", "-DCPPHTTPLIB_OPENSSL_SUPPORT"]
SEED = "seed=1 max_success=100"
LONGEST = 300  # seconds, of one run of a test
# Slow to read, and the same for all tests.
COMMON = "#include <catch.hpp>\n#include <rapidcheck/catch.h>\n#include <nlohmann/json.hpp>\n"
SWITCH = """#pragma once
#include <cstdlib>
#include <type_traits>
namespace mutants {
inline int chosen() noexcept {
  static int const number = std::getenv("MUTANT") == nullptr ? -1 : std::atoi(std::getenv("MUTANT"));
  return number;
}
constexpr bool on(int number) noexcept { return !std::is_constant_evaluated() && chosen() == number; }
}
"""
KEYS = {"file", "before", "after", "test"}


def load():
    return tomllib.loads((HERE / "mutants.toml").read_text())


def source_of(test):
    return TOP / "tests" / f"{test}_test.cpp"


def fault(mutant):
    """Why a mutant does not apply, or nothing."""
    if not KEYS <= set(mutant) <= KEYS | {"sanitize", "alone"}:
        return "has the keys " + ", ".join(sorted(mutant))
    before, after = (mutant[key].split("\n") for key in ("before", "after"))
    if len(before) != len(after) or sum(a != b for a, b in zip(before, after)) != 1:
        return "is no change of one line"
    file = INCLUDE / "erofs_oci" / mutant["file"]
    if not file.is_file():
        return f"there is no {mutant['file']}"
    count = file.read_text().count(mutant["before"])
    if count != 1:
        return f"its text is {count} times in {mutant['file']}"
    if not source_of(mutant["test"]).is_file():
        return f"there is no test {mutant['test']}"
    try:
        mutant.get("alone") or switched(file.read_text(), mutant, 0)
    except ValueError as why:
        return str(why)
    return None


# --- both texts in one place -------------------------------------------------------------------------

BOUNDARY = re.compile(r"&&|\|\||(?<!:):(?!:)|[?,;]|(?<![=!<>])=(?!=)|\breturn\b")
MASKED = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\])\'|//[^\n]*')


def left_end(text, at):
    """Where the operand begins that ends before `at`: behind an opening bracket or a low operator."""
    depth = 0
    for i in range(at - 1, -1, -1):
        if text[i] in ")]" or (text[i] == "}" and depth > 0):
            depth += 1
        elif text[i] in "([{" and depth > 0:
            depth -= 1
        elif depth == 0 and (text[i] in "([{}" or BOUNDARY.match(text, i)):
            found = BOUNDARY.match(text, i)
            return found.end() if found else i + 1
    return 0


def right_end(text, low, at):
    """Where the operand ends that begins at `low` and holds all before `at`; nothing if there is none."""
    depth = 0
    for i in range(low, len(text)):
        if text[i] in "([{":
            depth += 1
        elif text[i] in ")]}" and depth > 0:
            depth -= 1
        elif depth == 0 and (text[i] in ")]}" or BOUNDARY.match(text, i)):
            if i >= at or text[i] in ")]},;=":
                return i if i >= at else None
    return None


def operand(text, begin, end):
    """The range of the least operand that holds text[begin:end]."""
    text = MASKED.sub(lambda found: "_" * len(found[0]), text)
    low = left_end(text, begin)
    while (high := right_end(text, low, end)) is None:
        if low == 0:
            raise ValueError("is in no expression")
        at, inner = low, low
        while low >= inner:
            at -= 1
            low = left_end(text, at) if at > 0 else 0
    return low, high


def switched(text, mutant, number):
    """The range of a file's text that a mutant changes, and what stands there to have both."""
    start = text.index(mutant["before"])
    end = start + len(mutant["before"])
    if mutant["after"].strip() == "" and mutant["before"].rstrip().endswith(";"):
        return start, end, f"if (!mutants::on({number})) {{ {mutant['before'].strip()} }}"
    changed = text[:start] + mutant["after"] + text[end:]
    first = len(os.path.commonprefix([mutant["before"], mutant["after"]]))
    last = len(os.path.commonprefix([mutant["before"][first:][::-1], mutant["after"][first:][::-1]]))
    longer = len(changed) - len(text)
    low, high = start + first, end - last
    for _ in range(9):  # until both texts have their operand there
        (a, b), (c, d) = operand(text, low, high), operand(changed, low, high + longer)
        if (low, high) == (min(a, c), max(b, d - longer)):
            break
        low, high = min(a, c), max(b, d - longer)
    before, after = text[low:high].strip(), changed[low:high + longer].strip()
    if re.match(r"(if|for|while)\b|\)|$", before) or re.match(r"(if|for|while)\b|\)|$", after):
        raise ValueError("is no expression: it must be compiled alone")
    return low, high, f" (mutants::on({number}) ? ({after}) : ({before}))"


# --- programs ----------------------------------------------------------------------------------------

def pkg_config(what):
    return subprocess.run(["pkg-config", what, *PACKAGES], check=True, text=True,
                          capture_output=True).stdout.split()


class Builder:
    """Compiles and links tests, all with the same flags."""

    def __init__(self, sanitizers):
        OUT.mkdir(parents=True, exist_ok=True)
        system = (flag.replace("-I", "-isystem", 1) for flag in pkg_config("--cflags"))
        self.flags = ["-std=c++20", "-O0", "-w", "-pthread", "-fpch-instantiate-templates",
                      "-D_GLIBCXX_ASSERTIONS", *DEFINES, f"-I{INCLUDE}", f"-I{TOP}/tests", *system]
        self.libraries = ["-lCatch2WithMain", "-lrapidcheck", "-lcpp-httplib", *pkg_config("--libs")]
        self.paths = OUT / "data_path.o"
        self.switch = OUT / "switch.hpp"
        self.switch.write_text(SWITCH)
        self.command(OUT / "data_path.log", [
            *self.flags, f'-DEROFS_OCI_TEST_DATA="{TOP}/tests/data"',
            f'-DEROFS_OCI_FIXTURES="{TOP}/../shared/fixtures"', "-c", TOP / "tests/data_path.cpp", "-o", self.paths])
        for sanitizer in sanitizers:
            name = OUT / f"common-{sanitizer or 'plain'}.hpp"
            name.write_text(COMMON)
            self.command(name.with_suffix(".log"), [
                *self.flags_for(sanitizer), "-x", "c++-header", name, "-o", name.with_suffix(".pch")])

    def command(self, log, arguments):
        with open(log, "wb") as out:
            subprocess.run([COMPILER, *arguments], stdout=out, stderr=subprocess.STDOUT, check=True)

    def flags_for(self, sanitizer):
        return [*self.flags, *([f"-fsanitize={sanitizer}"] if sanitizer else [])]

    def test(self, name, test, sanitizer, files):
        """The program of a test; `files`: the changed ones, by their names below include."""
        overlay = OUT / "overlay" / name
        for file, text in files.items():
            (overlay / file).parent.mkdir(parents=True, exist_ok=True)
            (overlay / file).write_text(text)
        program = OUT / name
        self.command(OUT / f"{name}.log", [
            f"-I{overlay}", *self.flags_for(sanitizer), "-include-pch", OUT / f"common-{sanitizer or 'plain'}.pch",
            "-include", self.switch, source_of(test), self.paths, *self.libraries, "-fuse-ld=lld", "-o", program])
        return program


def run(program, number=None):
    """The output of a test that fails, or nothing."""
    environment = os.environ | {"RC_PARAMS": SEED, "TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}
    if number is not None:
        environment["MUTANT"] = str(number)
    try:
        done = subprocess.run([program, "--abort", "--rng-seed", "1"], env=environment, timeout=LONGEST,
                              cwd=TOP, stdin=subprocess.DEVNULL, capture_output=True)
    except subprocess.TimeoutExpired:
        return f"no end within {LONGEST} s"
    text = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode == 0:
        return None
    return text or f"status {done.returncode}"


def what_failed(text):
    """The name of the test case, by Catch2's report."""
    found = re.search(r"^-{79}\n(.+)\n(?:  .+\n)*-{79}$", text, re.M)
    if found:
        return f'"{found[1].strip()}"'
    sanitizer = re.search(r"WARNING: (ThreadSanitizer: [\w -]+)", text)
    return sanitizer[1].strip() if sanitizer else text.strip().splitlines()[-1]


# --- mutants -----------------------------------------------------------------------------------------

def batches(mutants):
    """Lists of (name, mutant) of one test, each to be compiled at once: no two change the same place."""
    plain, alone = [], []
    for name, mutant in mutants.items():
        (alone if mutant.get("alone") else plain).append((name, mutant))
    while plain:
        batch, later, taken = [], [], []
        for name, mutant in plain:
            low, high, _ = switched((INCLUDE / "erofs_oci" / mutant["file"]).read_text(), mutant, 0)
            clash = any(file == mutant["file"] and low < b and a < high for file, a, b in taken)
            (later if clash else batch).append((name, mutant))
            if not clash:
                taken.append((mutant["file"], low, high))
        yield batch
        plain = later
    for one in alone:
        yield [one]


def changed_files(batch):
    """The files of a batch with all of its mutants."""
    changes = {}
    for number, (_, mutant) in enumerate(batch):
        changes.setdefault("erofs_oci/" + mutant["file"], []).append((number, mutant))
    files = {}
    for file, mutants in changes.items():
        text = (INCLUDE / file).read_text()
        if mutants[0][1].get("alone"):
            files[file] = text.replace(mutants[0][1]["before"], mutants[0][1]["after"])
            continue
        for low, high, both in sorted((switched(text, m, number) for number, m in mutants), reverse=True):
            text = text[:low] + both + text[high:]
        files[file] = text
    return files


def run_batch(builder, test, sanitizer, batch):
    """How many of a batch were killed."""
    names = ", ".join(name for name, _ in batch)
    try:
        program = builder.test(batch[0][0], test, sanitizer, changed_files(batch))
    except subprocess.CalledProcessError:
        print(f"{names}: does not compile: see {OUT / batch[0][0]}.log", flush=True)
        return 0
    alone = batch[0][1].get("alone")
    if not alone and (text := run(program)) is not None:
        print(f"{names}: {test} fails without them: {what_failed(text)}", flush=True)
        return 0
    killed = 0
    for number, (name, _) in enumerate(batch):
        failure = run(program, number)
        killed += failure is not None
        print(f"{name}: " + ("SURVIVED" if failure is None else f"killed by {test}: {what_failed(failure)}"),
              flush=True)
    program.unlink()
    return killed


def check(mutants):
    """Prints the mutants that do not apply; whether there is none."""
    faults = {name: why for name, mutant in mutants.items() if (why := fault(mutant))}
    for name, why in faults.items():
        print(f"{name}: did not apply: {why}")
    return not faults


def selftest():
    good = {"file": "combinator/slice.hpp", "before": "begin > inner.size()", "after": "false",
            "test": "unit/combinator/slice"}
    assert fault(good) is None
    for bad in ({"before": "no such text"}, {"before": "inner"}, {"file": "none.hpp"}, {"test": "unit/none"},
                {"after": "a\nb"}, {"after": "false; if (true"}, {"after": good["before"]}, {"sanitise": "thread"}):
        assert fault(good | bad), bad

    def both(text, before, after):
        low, high, middle = switched(text, {"before": before, "after": after}, 7)
        return text[:low] + middle + text[high:]

    assert both("x = min(a, b[i]);", "b[i]", "b[i] - 1") == "x = min(a, (mutants::on(7) ? (b[i] - 1) : (b[i])));"
    assert both("if (a || c < d + 1) {", "c < d", "c <= d") == "if (a || (mutants::on(7) ? (c <= d + 1) : (c < d + 1))) {"
    assert both("return std::x - 1;", "- 1", "") == "return (mutants::on(7) ? (std::x) : (std::x - 1));"
    assert both("n = (b - 1) / c;", "(b - 1)", "b") == "n = (mutants::on(7) ? (b / c) : ((b - 1) / c));"
    assert both('f(p ? "a:b" : "c");', "a:b", "a") == 'f(p ? (mutants::on(7) ? ("a") : ("a:b")): "c");'
    assert both("{ f(a); g(); }", "f(a);", "") == "{ if (!mutants::on(7)) { f(a); } g(); }"
    assert what_failed("-" * 79 + "\nA sum is right\n  a part\n" + "-" * 79 + "\nfile:1\n") == '"A sum is right"'
    assert what_failed("a\nb\n") == "b"


def main():
    parser = argparse.ArgumentParser(description="Runs unit tests against changed headers.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--selftest", action="store_true")
    arguments = parser.parse_args()
    if arguments.selftest:
        return selftest()
    mutants = load()
    if unknown := set(arguments.names) - set(mutants):
        sys.exit(f"no mutant has the name {', '.join(sorted(unknown))}")
    if arguments.check:
        return 0 if check(mutants) else 1
    chosen = {name: mutants[name] for name in arguments.names or mutants}
    check(chosen)

    groups = {}
    for name, mutant in chosen.items():
        if not fault(mutant):
            groups.setdefault((mutant["test"], mutant.get("sanitize")), {})[name] = mutant
    builder = Builder({sanitizer for _, sanitizer in groups})
    work = [(*group, batch) for group, members in groups.items() for batch in batches(members)]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        killed = sum(pool.map(lambda one: run_batch(builder, *one), work))
    print(f"{killed} of {len(chosen)} killed")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
