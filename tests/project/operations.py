#!/usr/bin/env python3
"""Compares doc/operations.md with the source.

usage: operations.py [--selftest]

The metrics: the table has those of mount_report.cpp and no others, of the same kind; what else names one, as the
alerts do, names one of the table. The messages: the fixed words of each message of "Troubleshooting" are in the
string literals of the source. `…` in a message stands for what is filled in.
"""
import functools
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
PREFIX = "erofs_oci_"
LEAST = 6  # characters of a fixed part that is looked for


def section(text, heading):
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def literals(text):
    """All string literals, those that follow one another joined, as the compiler joins them."""
    joined = re.sub(r'"[ \t]*\n?[ \t]*\n?[ \t]*"', "", re.sub(r"^\s*//.*$", "", text, flags=re.M))
    return "\n".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', joined)).replace('\\"', '"')


@functools.cache
def source_text():
    files = [*TOP.glob("example/mount-oci/*.[ch]pp"), *TOP.glob("include/erofs_oci/**/*.hpp")]
    return "\n".join(literals(file.read_text()) for file in sorted(files))


def messages(text):
    rows = [line for line in section(text, "Troubleshooting").splitlines() if line.startswith("| `")]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row.split(" | ")[0])
            if message != "status"]


def fixed_parts(message):
    """What of a message does not change, long parts only."""
    parts = [part.strip(" :;,.()") for part in message.split("…")]
    return [part for part in parts if len(part) >= LEAST]


def message_faults(text, source):
    found = messages(text)
    if len(found) < 10:
        yield "there are hardly any messages"
    for message in found:
        parts = fixed_parts(message)
        if not parts or max(map(len, parts)) < LEAST + 2:
            yield f"{message}: it has no fixed words"
        for part in parts:
            if part not in source:
                yield f"{message}: no message has the words: {part}"


def metrics_of(report):
    """The metrics that a mount serves, as name: kind."""
    return {PREFIX + name: kind for name, kind in re.findall(r'\badd\("(\w+)", "(gauge|counter)"', report)}


def metric_faults(text, served):
    table = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section(text, "Metrics"), re.M))
    for name in sorted(served.keys() | table.keys()):
        if served.get(name) != table.get(name):
            yield f"{name}: the table says {table.get(name)}, the source {served.get(name)}"
    for name in sorted(set(re.findall(rf"\b{PREFIX}[a-z_]+\b", text)) - served.keys()):
        yield f"{name}: there is no such metric"


def selftest():
    assert "a b" in literals('x("a "\n      "b");  // c\n')
    rows = "".join(f"| `…: the words number {n}…` | a | b |\n" for n in range(10))
    text = f"\n## Troubleshooting\n\n| message | c | d |\n|---|---|---|\n{rows}"
    source = "\n".join(f": the words number {n}" for n in range(10))
    assert not list(message_faults(text, source)), list(message_faults(text, source))
    for bad in ("| `the wrong words` | a | b |\n", "| `…` | a | b |\n"):
        assert list(message_faults(text + bad, source)), bad
    served = metrics_of('add("up", "gauge", "Whether.", 1);\n  add("n_total", "counter",\n "x", 2);')
    good = "\n## Metrics\n\n| `erofs_oci_up` | gauge | x |\n| `erofs_oci_n_total` | counter | x |\n"
    assert not list(metric_faults(good, served)), list(metric_faults(good, served))
    for bad in (good.replace("gauge", "counter"), good + "rate(erofs_oci_m_total[5m])", good.replace("_up", "_upp")):
        assert list(metric_faults(bad, served)), bad


def main():
    if sys.argv[1:] == ["--selftest"]:
        return selftest()
    text = (TOP / "doc/operations.md").read_text()
    served = metrics_of((TOP / "example/mount-oci/mount_report.cpp").read_text())
    faults = [*message_faults(text, source_text()), *metric_faults(text, served)]
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
