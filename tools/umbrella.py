#!/usr/bin/env python3
"""Writes include/erofs_oci/all.hpp, which names every header but those of testing/ and of any detail/,
and but those that bring in what all others keep to themselves (APART).

usage: tools/umbrella.py [--check] [INCLUDE_DIR]

With --check nothing is written; a difference is printed and fails.
"""
import difflib
import pathlib
import sys

# Headers of which the first thing said in them is that they need an optional library.
GUARDS = {"gzip/isal_inflater.hpp": "EROFS_OCI_HAVE_ISAL"}

# oci/json.hpp has another library's type in its functions, 3 s of a unit. Who wants it says so.
APART = {"all.hpp", "oci/json.hpp"}


def headers(root):
    found = (path.relative_to(root).as_posix() for path in root.rglob("*.hpp"))
    return sorted(
        h for h in found if h not in APART and not h.startswith("testing/") and "/detail/" not in h)


def all_hpp(root):
    plain = [f"#include <erofs_oci/{header}>" for header in headers(root) if header not in GUARDS]
    text = [
        "// SPDX-License-Identifier: Apache-2.0",
        "/// @file",
        "/// Every header of the library but those for tests. Written by tools/umbrella.py.",
        "///",
        "/// For the project's own checks and for a first look: it costs ten seconds to compile.",
        "#pragma once",
        "",
        *plain,
    ]
    for header, guard in sorted(GUARDS.items()):
        if (root / header).exists():
            text += ["", f"#ifdef {guard}", f"#include <erofs_oci/{header}>", "#endif"]
    return "\n".join(text) + "\n"


def main():
    arguments = sys.argv[1:]
    check = "--check" in arguments
    rest = [a for a in arguments if a != "--check"]
    top = pathlib.Path(__file__).resolve().parent.parent
    root = pathlib.Path(rest[0] if rest else top / "include") / "erofs_oci"

    path, text = root / "all.hpp", all_hpp(root)
    old = path.read_text() if path.exists() else ""
    if old == text:
        return
    if not check:
        path.write_text(text)
        return
    sys.stdout.writelines(
        difflib.unified_diff(old.splitlines(True), text.splitlines(True), str(path), "wanted"))
    sys.exit("out of date: run tools/umbrella.py")


main()
