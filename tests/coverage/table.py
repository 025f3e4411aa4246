#!/usr/bin/env python3
"""Prints which lines of a tree were run: by folder, in all, and for files with few, which were not.

usage: table.py TREE LCOV_FILE
       table.py --selftest
"""
import collections
import itertools
import pathlib
import sys

LEAST = 80  # percent, below which a file's lines are named


def counts_of(lcov):
    """For each file, how often each of its lines was run."""
    files = collections.defaultdict(collections.Counter)
    lines = None
    for record in lcov.splitlines():
        kind, _, value = record.partition(":")
        if kind == "SF":
            lines = files[value]
        elif kind == "DA":
            line, count = value.split(",")[:2]
            lines[int(line)] += int(count)
    return files


def ranges(numbers, known):
    """`3-5, 9`: those that follow each other are joined, over lines without code, too."""
    index = {line: i for i, line in enumerate(sorted(known))}
    runs = [[line for _, line in run]
            for _, run in itertools.groupby(enumerate(sorted(numbers)), lambda pair: index[pair[1]] - pair[0])]
    return ", ".join(str(run[0]) if run[0] == run[-1] else f"{run[0]}-{run[-1]}" for run in runs)


def table(files, tree):
    """The report as lines of text."""
    by_folder = collections.defaultdict(lambda: [0, 0])
    gaps = []
    for path, lines in sorted(files.items()):
        if not pathlib.Path(path).is_relative_to(tree) or not lines:
            continue
        name = pathlib.Path(path).relative_to(tree)
        covered = sum(count > 0 for count in lines.values())
        for folder in (name.parts[0] if len(name.parts) > 1 else ".", "total"):
            by_folder[folder][0] += len(lines)
            by_folder[folder][1] += covered
        if 100 * covered < LEAST * len(lines):
            missing = [line for line, count in lines.items() if count == 0]
            gaps.append(f"{name}: {100 * covered / len(lines):.1f} %, not {ranges(missing, lines)}")
    yield f"{'folder':<12} {'lines':>7} {'covered':>8} {'percent':>8}"
    for folder in [*sorted(set(by_folder) - {"total"}), "total"]:
        lines, covered = by_folder[folder]
        yield f"{folder:<12} {lines:>7} {covered:>8} {100 * covered / max(lines, 1):>8.1f}"
    if gaps:
        yield f"\nfiles under {LEAST} %, and the lines that were not run:"
        yield from gaps


def selftest():
    lcov = "SF:/t/a/b.hpp\nDA:1,2\nDA:2,0\nDA:4,0\nDA:7,1\nDA:8,0\nend_of_record\nSF:/else/c\nDA:1,0\n"
    lcov += "SF:/t/a/b.hpp\nDA:2,0\nend_of_record\nSF:/t/d.hpp\nDA:1,1\nend_of_record\n"
    text = "\n".join(table(counts_of(lcov), "/t"))
    assert "a                  5        2     40.0" in text, text
    assert "total              6        3     50.0" in text, text
    assert text.endswith("\na/b.hpp: 40.0 %, not 2-4, 8"), text


def main():
    if sys.argv[1:] == ["--selftest"]:
        return selftest()
    tree, lcov = sys.argv[1:]
    files = counts_of(pathlib.Path(lcov).read_text())
    print("\n".join(table(files, tree)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
