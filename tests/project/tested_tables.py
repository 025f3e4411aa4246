#!/usr/bin/env python3
"""Checks the tables whose rows name their tests, the threat model of SECURITY.md and the failures of
doc/failures.md: no cell is missing, and the tests are there.

A test is named as ctest names it, `unit/ROOM/NAME`, `integration/FOLDER/NAME`, `fuzz/NAME` or
`simulation/NAME`, or by its script, `guest/NAME`; `.NAME` behind it is a function of a Python test.
"""
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
# For each document: the heading, the columns, and how many of the first may be empty, as in the row above.
TABLES = {
    "SECURITY.md": ("Threat model", ["who", "may", "must not", "what stops it", "tests"], 2),
    "doc/failures.md": ("What happens", ["what fails", "what readers see", "what is done", "tests"], 0),
}
TEST = re.compile(r"`((?:unit|integration|fuzz|simulation|guest)/[^`]+)`")


def rows_of(text, heading):
    """The cells of each row of the table under a heading."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in section.splitlines() if line.startswith("|")]
    return rows[0], rows[2:]


def files_of(test):
    """Where a test may be."""
    kind, _, name = test.partition("/")
    if kind == "unit":
        room, _, file = name.partition("/")
        yield f"tests/tool/{file}_test.cpp" if room == "tool" else f"tests/unit/{name}_test.cpp"
    elif kind == "integration":
        yield f"tests/integration/{name}_test.py"
        yield f"tests/integration/{name}_test.cpp"
    elif kind == "fuzz":
        yield f"fuzz/{name}.cpp"
    else:
        yield f"tests/{kind}/{name}.{'sh' if kind == 'guest' else 'cpp'}"


def missing(test):
    """What is wrong with the name of a test, or nothing."""
    path, _, function = test.partition(".")
    found = [TOP / file for file in files_of(path) if (TOP / file).exists()]
    if not found:
        return f"{test}: there is no such test"
    if function and not re.search(rf"^ *def {re.escape(function)}\(", found[0].read_text(), re.M):
        return f"{test}: {found[0].relative_to(TOP)} has no such function"
    return None


def faults(document, text):
    heading, columns, may_be_empty = TABLES[document]
    head, rows = rows_of(text, heading)
    if head != columns:
        yield f"the table has the columns {head}"
    for row in rows:
        name = " / ".join(row[:3])
        if len(row) != len(columns) or not all(row[may_be_empty:]):
            yield f"{name}: a cell is missing"
            continue
        tests = TEST.findall(row[-1])
        if not tests or TEST.sub("", row[-1]).strip(" ,"):
            yield f"{name}: the last cell is no list of tests"
        yield from filter(None, map(missing, tests))
    if not rows or not rows[0][0]:
        yield "the first row names nothing"


def selftest():
    def found(row):
        columns = TABLES["SECURITY.md"][1]
        text = "\n## Threat model\n\n" + "\n".join([f"| {' | '.join(columns)} |", "|---" * 5 + "|", row])
        return list(faults("SECURITY.md", text))

    good = "| a | b | c | d | `unit/core/bytes`, `integration/tool/soci.setUpClass`, `fuzz/tar` |"
    assert not found(good), found(good)
    for bad in ("| a | b | c | d | |", "| a | b | c | d | see there |", "| a | b | c | d |",
                "| | b | c | d | `unit/core/bytes` |", "| a | b | c | d | `unit/core/nothing` |",
                "| a | b | c | d | `integration/tool/soci.test_nothing` |",
                "| a | b | | d | `unit/core/bytes` |", "| a | b | c | d | `guest/nothing` |"):
        assert found(bad), bad


def main():
    if sys.argv[1:] == ["--selftest"]:
        return selftest()
    found = [f"{document}: {fault}" for document in TABLES
             for fault in faults(document, (TOP / document).read_text())]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
