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

The checkout stays as it is: a mutant is an include directory with one file, which goes before the
library's own. Its test is compiled with it, alone and not optimized, and run with a fixed seed. Each
test must pass without a mutant first.

A line for each mutant says `killed` and what failed, `SURVIVED`, `did not apply` or `does not compile`.
The exit status is 1 unless all are killed. What a compiler said is in build/mutants/NAME.log.
"""
import argparse
import concurrent.futures
import hashlib
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
KEYS = {"file", "before", "after", "test"}


def load():
    return tomllib.loads((HERE / "mutants.toml").read_text())


def source_of(test):
    return TOP / "tests" / f"{test}_test.cpp"


def fault(mutant):
    """Why a mutant does not apply, or nothing."""
    if not KEYS <= set(mutant) <= KEYS | {"sanitize"}:
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
    return None


def pkg_config(what):
    return subprocess.run(["pkg-config", what, *PACKAGES], check=True, text=True,
                          capture_output=True).stdout.split()


class Builder:
    """Compiles and links tests, all with the same flags."""

    def __init__(self):
        OUT.mkdir(parents=True, exist_ok=True)
        include = [f"-I{INCLUDE}", f"-I{TOP}/tests", *(f.replace("-I", "-isystem", 1) for f in pkg_config("--cflags"))]
        self.flags = ["-std=c++20", "-O0", "-w", "-pthread", "-fpch-instantiate-templates", "-D_GLIBCXX_ASSERTIONS", *DEFINES, *include]
        self.libraries = ["-lCatch2WithMain", "-lrapidcheck", "-lcpp-httplib", *pkg_config("--libs")]
        self.paths = OUT / "data_path.o"
        self.command(OUT / "data_path.log", [
            *self.flags, f'-DEROFS_OCI_TEST_DATA="{TOP}/tests/data"',
            f'-DEROFS_OCI_FIXTURES="{TOP}/../shared/fixtures"', "-c", TOP / "tests/data_path.cpp", "-o", self.paths])

    def command(self, log, arguments):
        with open(log, "wb") as out:
            subprocess.run([COMPILER, *arguments], stdout=out, stderr=subprocess.STDOUT, check=True)

    def flags_for(self, sanitizer):
        return [*self.flags, *([f"-fsanitize={sanitizer}"] if sanitizer else [])]

    def read_common(self, sanitizer):
        """Makes the precompiled header for a set of flags."""
        name = OUT / f"common-{sanitizer or 'plain'}.hpp"
        name.write_text(COMMON)
        self.command(name.with_suffix(".log"), [
            *self.flags_for(sanitizer), "-x", "c++-header", name, "-o", name.with_suffix(".pch")])

    def test(self, name, mutant, before=()):
        """The program of a mutant's test; `before` are include directories that go before the library's."""
        program = OUT / name
        sanitizer = mutant.get("sanitize")
        self.command(OUT / f"{name}.log", [
            *(f"-I{directory}" for directory in before), *self.flags_for(sanitizer), "-include-pch",
            OUT / f"common-{sanitizer or 'plain'}.pch", source_of(mutant["test"]), self.paths,
            *self.libraries, "-fuse-ld=lld", "-o", program])
        return program


def run(program):
    """The output of a test that fails, or nothing."""
    environment = os.environ | {"RC_PARAMS": SEED, "TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}
    try:
        done = subprocess.run([program, "--abort", "--rng-seed", "1"], env=environment, timeout=LONGEST,
                              cwd=TOP, stdin=subprocess.DEVNULL, capture_output=True)
    except subprocess.TimeoutExpired:
        return f"no end within {LONGEST} s"
    text = (done.stdout + done.stderr).decode(errors="replace")
    program.with_suffix(".txt").write_text(text)
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


def passes_unchanged(builder, mutant, state):
    """Whether a mutant's test passes without it. `state`: of all headers."""
    name = "unchanged-" + mutant["test"].replace("/", "-") + "-" + mutant.get("sanitize", "plain")
    key = hashlib.sha256(state + source_of(mutant["test"]).read_bytes()).hexdigest()
    known = OUT / f"{name}.passed"
    if known.exists() and known.read_text() == key:
        return True
    try:
        program = builder.test(name, mutant)
    except subprocess.CalledProcessError:
        print(f"{mutant['test']} does not compile without a mutant: see {OUT / name}.log", flush=True)
        return False
    text = run(program)
    program.unlink()
    if text is not None:
        print(f"{mutant['test']} fails without a mutant: {what_failed(text)}", flush=True)
        return False
    known.write_text(key)
    return True


def verdict(builder, name, mutant):
    overlay = OUT / "overlay" / name
    file = overlay / "erofs_oci" / mutant["file"]
    file.parent.mkdir(parents=True, exist_ok=True)
    text = (INCLUDE / "erofs_oci" / mutant["file"]).read_text()
    file.write_text(text.replace(mutant["before"], mutant["after"]))
    try:
        program = builder.test(name, mutant, [overlay])
    except subprocess.CalledProcessError:
        return f"does not compile: see {OUT / name}.log"
    failure = run(program)
    program.unlink()
    return "SURVIVED" if failure is None else f"killed by {mutant['test']}: {what_failed(failure)}"


def run_group(builder, mutants, state):
    """All mutants of one test; how many were killed."""
    if not passes_unchanged(builder, next(iter(mutants.values())), state):
        return 0
    killed = 0
    for name, mutant in mutants.items():
        outcome = verdict(builder, name, mutant)
        print(f"{name}: {outcome}", flush=True)
        killed += outcome.startswith("killed")
    return killed


def check(mutants):
    """Prints the mutants that do not apply; whether there is none."""
    faults = {name: why for name, mutant in mutants.items() if (why := fault(mutant))}
    for name, why in faults.items():
        print(f"{name}: {why}")
    return not faults


def selftest():
    good = {"file": "combinator/slice.hpp", "before": "begin > inner.size()", "after": "false",
            "test": "unit/combinator/slice"}
    assert fault(good) is None
    for bad in ({"before": "no such text"}, {"before": "inner"}, {"file": "none.hpp"}, {"test": "unit/none"},
                {"after": "a\nb"}, {"after": good["before"]}, {"sanitise": "thread"}):
        assert fault(good | bad), bad
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

    groups = {}
    for name, mutant in chosen.items():
        if why := fault(mutant):
            print(f"{name}: did not apply: {why}")
        else:
            groups.setdefault((mutant["test"], mutant.get("sanitize")), {})[name] = mutant
    builder = Builder()
    for sanitizer in {sanitizer for _, sanitizer in groups}:
        builder.read_common(sanitizer)
    headers = sorted(INCLUDE.rglob("*.hpp")) + sorted((TOP / "tests").rglob("*.hpp"))
    state = hashlib.sha256(b"".join(file.read_bytes() for file in headers)).digest()
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        killed = sum(pool.map(lambda group: run_group(builder, group, state), groups.values()))
    print(f"{killed} of {len(chosen)} killed")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
