#!/usr/bin/env python3
"""What each header costs to compile: processor seconds and memory of a unit with nothing else in it.

usage: bench/compile/run.py [--all] [--compiled] [--limit SECONDS] [--compiler CXX] [HEADER...]

Without a header: those that LIMITS names, with -O0, as users of the headers alone and as those of
erofs_oci::compiled see them; one that is over its limit fails. With --all, or for the headers that are
named: a table, dearest first. The last column is the time beyond the dearest heavy dependency that
the header brings in, rightly by the table in doc/design.md. With --limit, a header over it fails; one of image/, where the whole
stack is put together and instantiated, over twice that. Processor time and not the clock's, so that
what else runs on the machine counts little; on a busy machine it is still up to twice as much.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
# What a consumer pays: {(header, whether with EROFS_OCI_COMPILED): most seconds}
LIMITS = {
    ("erofs_oci/gzip/gzran.hpp", False): 2,
    ("erofs_oci/http/http.hpp", False): 4,
    ("erofs_oci/http/http.hpp", True): 4,
    ("erofs_oci/all.hpp", True): 10,
}
PACKAGES = ["cpp-httplib", "libnl-genl-3.0", "libisal", "zlib", "openssl"]


def heavy_seconds():
    """{pattern of a path: seconds}, from the table of heavy headers"""
    section = (TOP / "doc/design.md").read_text().partition("## Heavy headers")[2]
    section = section.partition("\n## ")[0]
    rows = re.findall(r"^\| `<([^>]+)>` \| ([\d.]+) \|", section, re.M)
    return {re.compile("/" + re.escape(header).replace(r"\*", ".*") + "$"): float(seconds)
            for header, seconds in rows}


def compile_once(compiler, flags, header, folder, level="-O1"):
    source = os.path.join(folder, "unit.cpp")
    with open(source, "w") as file:
        file.write(f"#include <{header}>\n")
    depends = os.path.join(folder, "unit.d")
    command = [compiler, "-std=c++20", level, "-c", source, "-o", os.path.join(folder, "unit.o"),
               "-MD", "-MF", depends, *flags]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status != 0:
        sys.exit(f"{header} does not compile")
    seconds = usage.ru_utime + usage.ru_stime  # the driver's, and of the compiler that it waited for
    return seconds, usage.ru_maxrss / 1024, pathlib.Path(depends).read_text().split()


def check_limits(compiler, flags):
    over = []
    print(f"{'seconds':>8} {'MB':>6} {'limit':>8}  header")
    with tempfile.TemporaryDirectory() as folder:
        compile_once(compiler, flags, "erofs_oci/core/result.hpp", folder)  # warms the page cache
        for (header, compiled), limit in LIMITS.items():
            mode = ["-DEROFS_OCI_COMPILED"] if compiled else []
            seconds, megabytes, _ = compile_once(compiler, flags + mode, header, folder, "-O0")
            name = header + (" with erofs_oci::compiled" if compiled else "")
            print(f"{seconds:8.2f} {megabytes:6.0f} {limit:8.2f}  {name}")
            if seconds > limit:
                over.append(name)
    if over:
        sys.exit(f"over the limit: {', '.join(over)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--limit", type=float)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("headers", nargs="*")
    arguments = parser.parse_args()

    root = TOP / "include"
    headers = arguments.headers or sorted(
        p.relative_to(root).as_posix() for p in root.rglob("*.hpp") if p.name != "all.hpp" and not p.name.endswith("_body.hpp"))
    flags = subprocess.run(["pkg-config", "--cflags", *PACKAGES], check=True, capture_output=True,
                           text=True).stdout.split() + [f"-I{root}", "-DEROFS_OCI_HAVE_ISAL=1"]
    if not (arguments.all or arguments.headers or arguments.limit):
        return check_limits(arguments.compiler, flags)
    if arguments.compiled:
        flags.append("-DEROFS_OCI_COMPILED")
    heavy = heavy_seconds()

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        compile_once(arguments.compiler, flags, headers[0], folder)  # warms the page cache
        for header in headers:
            seconds, megabytes, used = compile_once(arguments.compiler, flags, header, folder)
            allowed = sum(cost for pattern, cost in heavy.items()
                          if any(pattern.search(path) for path in used))
            rows.append((seconds, megabytes, max(0.0, seconds - allowed), header))

    rows.sort(reverse=True)
    print(f"{'seconds':>8} {'MB':>6} {'beyond':>8}  header")
    for seconds, megabytes, beyond, header in rows:
        print(f"{seconds:8.2f} {megabytes:6.0f} {beyond:8.2f}  {header}")
    if arguments.limit:
        over = [header for _, _, beyond, header in rows
                if beyond > arguments.limit * (2 if "/image/" in header else 1)]
        if over:
            sys.exit(f"over {arguments.limit} s beyond what they may include: {', '.join(over)}")


main()
