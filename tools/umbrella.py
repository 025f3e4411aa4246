#!/usr/bin/env python3
"""Writes include/erofs_oci/all.hpp and fwd.hpp from the other headers.

usage: tools/umbrella.py [--check] [INCLUDE_DIR]

all.hpp names every header but those of testing/. fwd.hpp declares every class and class template
whose head can be repeated with core/source.hpp alone: a head that names a concept of its own header
needs that header anyway. With --check nothing is written; a difference is printed and fails.
"""
import difflib
import pathlib
import re
import sys

# Headers of which the first thing said in them is that they need an optional library.
GUARDS = {"gzip/isal_inflater.hpp": "EROFS_OCI_HAVE_ISAL"}
CONCEPTS = {"RandomAccessSource"}
GENERATED = {"all.hpp", "fwd.hpp"}


def headers(root):
    found = (path.relative_to(root).as_posix() for path in root.rglob("*.hpp"))
    return sorted(h for h in found if h not in GENERATED and not h.startswith("testing/"))


def without_comments(text):
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)


def public_scope(text):
    """The text directly in namespace erofs_oci, what is between other braces cut out."""
    kept, depth, inside = [], 0, []
    for part in re.split(r"(namespace\s+[\w:]*\s*\{|[{}])", text):
        if part == "}":
            if inside and inside[-1] == depth:
                inside.pop()
            depth -= 1
            if depth == len(inside):
                kept.append("}")
        elif part.endswith("{"):
            if depth == len(inside):
                kept.append("{")
            depth += 1
            if re.fullmatch(r"namespace\s+erofs_oci\s*\{", part):
                inside.append(depth)
        elif depth == len(inside) and inside:
            kept.append(part)
    return "".join(kept)


CLASS = re.compile(
    r"(?:template\s*<(?P<head>(?:[^<>]|<[^<>]*>)*)>\s*(?P<requires>requires\s*[^;{}]*?)?)?"
    r"(?<!enum )\b(?P<key>class|struct)\s+(?P<name>\w+)\s*(?P<final>final\s*)?(?::[^;{}]*)?\{"
)


def declaration(match):
    head = match["head"]
    if match["requires"] or re.search(r"template\s*<>\s*$", match.string[: match.start()]):
        return None
    if head is None:
        return f"{match['key']} {match['name']};"
    parameters = []
    for parameter in re.split(r",(?![^<>]*>)", " ".join(head.split())):
        parameter = parameter.split("=")[0].strip()
        kind = parameter.split()[0].rstrip(".")
        if kind not in CONCEPTS | {"class", "typename"}:
            return None
        parameters.append(parameter)
    return f"template <{', '.join(parameters)}>\n{match['key']} {match['name']};"


def all_hpp(root):
    lines = []
    for header in headers(root) + ["fwd.hpp"]:
        lines.append((header, f"#include <erofs_oci/{header}>"))
    plain = [line for header, line in sorted(lines) if header not in GUARDS]
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


def fwd_hpp(root):
    declared = {}
    for header in headers(root):
        if header.startswith("core/source"):
            continue
        text = public_scope(without_comments((root / header).read_text()))
        for match in CLASS.finditer(text):
            line = declaration(match)
            if line:
                declared.setdefault(header.split("/")[0], {})[match["name"]] = line
    text = [
        "// SPDX-License-Identifier: Apache-2.0",
        "/// @file",
        "/// The library's classes, declared. Written by tools/umbrella.py.",
        "#pragma once",
        "",
        "#include <erofs_oci/core/source.hpp>",
        "",
        "namespace erofs_oci {",
    ]
    for folder, classes in declared.items():
        text += ["", f"// {folder}"]
        text += [classes[name] for name in sorted(classes)]
    text += ["", "}  // namespace erofs_oci"]
    return "\n".join(text) + "\n"


def main():
    arguments = sys.argv[1:]
    check = "--check" in arguments
    rest = [a for a in arguments if a != "--check"]
    top = pathlib.Path(__file__).resolve().parent.parent
    root = pathlib.Path(rest[0] if rest else top / "include") / "erofs_oci"

    stale = False
    for name, text in (("all.hpp", all_hpp(root)), ("fwd.hpp", fwd_hpp(root))):
        path = root / name
        old = path.read_text() if path.exists() else ""
        if old == text:
            continue
        if not check:
            path.write_text(text)
            continue
        stale = True
        sys.stdout.writelines(
            difflib.unified_diff(old.splitlines(True), text.splitlines(True), str(path), "wanted"))
    if stale:
        sys.exit("out of date: run tools/umbrella.py")


main()
