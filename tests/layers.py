#!/usr/bin/env python3
"""Checks every #include of the project against the two tables in doc/design.md.

usage: tests/layers.py [TOP]         checks the tree at TOP (this project's)
       tests/layers.py --selftest    proves on small trees that each rule refuses what it should
"""
import fnmatch
import pathlib
import re
import sys
import tempfile

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
FREE = {"all.hpp", "version.hpp"}  # above the layers; nobody's to include but users
TEST_FOLDERS = ("tests/", "fuzz/", "bench/")


def layer_rules(text):
    """{folder: set of folders and single headers that it may include}"""
    block = re.search(r"^```layers\n(.*?)^```", text, re.M | re.S)
    if not block:
        sys.exit("doc/design.md has no ```layers block")
    words = {}
    for line in block[1].splitlines():
        folder, arrow, targets = line.partition("->")
        if not arrow:
            sys.exit(f"doc/design.md, layers: cannot read '{line}'")
        words[folder.strip()] = targets.split()
    rules = {}
    for folder, targets in words.items():
        allowed = set()
        if targets[:1] == ["all"]:
            allowed = set(words) - set(targets[2:])
            targets = []
        unknown = [t for t in targets if t.split("/")[0] not in words]
        if unknown:
            sys.exit(f"doc/design.md, layers: {folder} -> {unknown}: no such folder")
        rules[folder] = allowed | set(targets) | {folder}
    return rules


def heavy_rules(text):
    """[(pattern of a header, [patterns of files that may include it])], first match decides"""
    rules = []
    section = text.partition("## Heavy headers")[2].partition("\n## ")[0]
    for line in section.splitlines():
        row = [cell.strip() for cell in line.strip("| ").split(" | ")]
        header = re.fullmatch(r"`<(.+)>`", row[0])
        if header:
            rules.append((header[1], re.findall(r"`([^`]+)`", row[-1])))
    if not rules:
        sys.exit("doc/design.md has no table of heavy headers")
    return rules


def cycles(rules):
    """Folders that can reach themselves through another one."""
    edges = {f: {t.split("/")[0] for t in ts if "/" not in t} - {f} for f, ts in rules.items()}
    found = []
    for start in edges:
        seen, todo = set(), list(edges[start])
        while todo:
            folder = todo.pop()
            if folder == start:
                found.append(start)
                break
            if folder not in seen:
                seen.add(folder)
                todo += edges[folder]
    return found


def check_layer(name, target, rules):
    """What is wrong with a header of ours, `name`, that includes `target`; None if nothing."""
    folder, other = name.split("/")[0], target.split("/")[0]
    if folder not in rules:
        return f"folder {folder} is not in the table"
    if target in FREE:
        return f"no header includes {target}"
    if other not in rules:
        return f"folder {other} is not in the table"
    if not rules[folder] & {other, target}:
        return f"{folder} may not include {other}"
    return None


def check(top):
    design = (top / "doc/design.md").read_text()
    layers, heavy = layer_rules(design), heavy_rules(design)
    problems = [f"doc/design.md, layers: {folder} reaches itself" for folder in cycles(layers)]
    problems += [f"include/erofs_oci/{header}: {needs} needs it, which it includes itself"
                 for header, needs in missing_declarations(include_lists(top / "include/erofs_oci"))]
    files = 0
    for folder in ("include/erofs_oci", "example", "fuzz", "bench", "tests", "tools"):
        for path in sorted((top / folder).rglob("*")):
            if path.suffix not in {".hpp", ".cpp", ".h"}:
                continue
            files += 1
            place = path.relative_to(top).as_posix()
            name = place.removeprefix("include/erofs_oci/")
            text = path.read_text()
            for match in INCLUDE.finditer(text):
                for problem in problems_of(name, place, match[1], match[2], layers, heavy):
                    line = text.count("\n", 0, match.start(2)) + 1
                    problems.append(f"{place}:{line}: {match[2]}: {problem}")
    return files, problems


def include_lists(root):
    """{header: [(header that it includes, whether only behind its own declarations)]}"""
    lists = {}
    for path in sorted(root.rglob("*.hpp")):
        text = path.read_text()
        tail = text.find("#ifndef EROFS_OCI_COMPILED")
        lists[path.relative_to(root).as_posix()] = [
            (match[2].removeprefix("erofs_oci/"), 0 <= tail < match.start())
            for match in INCLUDE.finditer(text) if match[2].startswith("erofs_oci/")]
    return lists


def missing_declarations(lists):
    """Pairs of a header, and one that needs it and comes first if the header does."""
    found = set()
    for start in lists:
        seen, open_heads = set(), []  # those whose declarations have not been reached

        def visit(name):
            seen.add(name)
            open_heads.append(name)
            for target, behind in lists.get(name, []):
                if behind and open_heads[-1] == name:
                    open_heads.pop()
                if target not in seen:
                    visit(target)
                elif target in open_heads and not target.endswith("_body.hpp"):
                    found.add((target, name))
            if open_heads and open_heads[-1] == name:
                open_heads.pop()

        visit(start)
    return sorted(found)


def problems_of(name, place, quote, header, layers, heavy):
    ours = place.startswith("include/")
    if header.startswith("erofs_oci/"):
        target = header.removeprefix("erofs_oci/")
        if ours and name not in FREE:
            problem = check_layer(name, target, layers)
            if problem:
                yield problem
        folder = target.split("/")[0]
        if "/detail/" in target and not (
                name.startswith(folder + "/") if ours else place.startswith(f"tests/unit/{folder}/")):
            yield "another folder's detail/"
        if target.startswith("testing/") and not ours and not place.startswith(TEST_FOLDERS):
            yield "only tests, fuzzers and benchmarks include testing/"
        return
    if ours and quote == '"':
        yield "a header of the library includes with < > only"
    for pattern, allowed in heavy:
        if fnmatch.fnmatchcase(header, pattern):
            if not any(fnmatch.fnmatchcase(name, a) for a in allowed):
                yield "may be included by " + (", ".join(allowed) or "nobody")
            return


DESIGN = """
```layers
core ->
gzip -> core
combinator -> core digest/digest.hpp
digest -> core
image -> all - http
http -> core image
```
## Heavy headers

| header | seconds | MB | may be included by |
|---|---|---|---|
| `<zlib.h>` | 0.04 | 26 | `gzip/inflater.hpp` |
| `<range/v3/all.hpp>` | 3 | 2 | nobody |
| `<range/v3/*>` | 1 | 1 | `image/*`, `tests/*` |
"""


def selftest():
    cases = [  # file, include line, words of the complaint or None
        ("include/erofs_oci/gzip/a.hpp", "<erofs_oci/core/b.hpp>", None),
        ("include/erofs_oci/core/a.hpp", "<erofs_oci/gzip/b.hpp>", "core may not include gzip"),
        ("include/erofs_oci/combinator/a.hpp", "<erofs_oci/digest/digest.hpp>", None),
        ("include/erofs_oci/combinator/a.hpp", "<erofs_oci/digest/sha256.hpp>", "may not include"),
        ("include/erofs_oci/image/a.hpp", "<erofs_oci/gzip/b.hpp>", None),
        ("include/erofs_oci/image/a.hpp", "<erofs_oci/http/b.hpp>", "may not include http"),
        ("include/erofs_oci/gzip/a.hpp", "<erofs_oci/all.hpp>", "no header includes all.hpp"),
        ("include/erofs_oci/new/a.hpp", "<erofs_oci/core/b.hpp>", "new is not in the table"),
        ("include/erofs_oci/gzip/a.hpp", '"b.hpp"', "with < > only"),
        ("include/erofs_oci/gzip/inflater.hpp", "<zlib.h>", None),
        ("include/erofs_oci/gzip/a.hpp", "<zlib.h>", "may be included by gzip/inflater.hpp"),
        ("example/a.cpp", "<zlib.h>", "may be included by gzip/inflater.hpp"),
        ("example/a.cpp", "<erofs_oci/testing/b.hpp>", "only tests"),
        ("tests/a.cpp", "<erofs_oci/testing/b.hpp>", None),
        ("include/erofs_oci/core/a.hpp", "<erofs_oci/core/detail/b.hpp>", None),
        ("tests/a.cpp", "<erofs_oci/core/detail/b.hpp>", "another folder's detail/"),
        ("tests/unit/core/a.cpp", "<erofs_oci/core/detail/b.hpp>", None),
        ("tests/unit/gzip/a.cpp", "<erofs_oci/core/detail/b.hpp>", "another folder's detail/"),
        ("include/erofs_oci/image/a.hpp", "<erofs_oci/core/detail/b.hpp>", "detail/"),
        ("include/erofs_oci/image/a.hpp", "<range/v3/view/zip.hpp>", None),
        ("include/erofs_oci/image/a.hpp", "<range/v3/all.hpp>", "by nobody"),
        ("tests/a.cpp", "<range/v3/all.hpp>", "by nobody"),
        ("include/erofs_oci/core/a.hpp", "<range/v3/view/zip.hpp>", "may be included by image"),
    ]
    for file, include, wanted in cases:
        with tempfile.TemporaryDirectory() as folder:
            top = pathlib.Path(folder)
            for name, text in {"doc/design.md": DESIGN, file: f"int x;\n#include {include}\n"}.items():
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                (top / name).write_text(text)
            files, problems = check(top)
            good = files == 1 and (
                len(problems) == 1 and wanted in problems[0] and f"{file}:2:" in problems[0]
                if wanted else not problems)
            if not good:
                sys.exit(f"{file} with {include}: wanted {wanted}, got {problems}")
    if cycles({"a": {"a", "b"}, "b": {"b", "a"}}) != ["a", "b"] or cycles(layer_rules(DESIGN)):
        sys.exit("cycles are not told from layers")
    bodies = {"a.hpp": [("detail/a_body.hpp", True)], "detail/a_body.hpp": [("a.hpp", False), ("b.hpp", False)]}
    if missing_declarations(bodies | {"b.hpp": []}):
        sys.exit("a body behind its header is taken for a cycle")
    if missing_declarations(bodies | {"b.hpp": [("a.hpp", False)]}) != [("b.hpp", "detail/a_body.hpp")]:
        sys.exit("a body that needs a header whose declarations come later is not seen")
    print(f"{len(cases)} cases")


def main():
    if sys.argv[1:] == ["--selftest"]:
        selftest()
        return
    top = pathlib.Path(sys.argv[1] if sys.argv[1:] else pathlib.Path(__file__).parent.parent)
    files, problems = check(top.resolve())
    print("\n".join(problems) or f"{files} files, nothing to complain about")
    if problems or files == 0:
        sys.exit(1)


main()
