#!/usr/bin/env python3
"""Checks numbers that a page repeats: where they come from, they still are.

usage: facts.py [--selftest]

Sizes in doc/layers.md are the source's constants. Numbers with a unit in doc/performance.md, but for the profile's
shares, are in README.md, which says how they were measured.
"""
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
# A size in a page, in KiB, and the constant that it is, as an expression of C++ in bytes.
SIZES = [
    (r"in chunks of (\d+) KiB", "include/erofs_oci/cache/blob_cache.hpp", r"uint64_t chunk = ([^;]+);"),
    (r"a SHA-256 for each (\d+) KiB", "include/erofs_oci/gzip/layer_index.hpp", r"index_piece_size = ([^;]+);"),
    (r"the (\d+) KiB that it\shas\swritten last", "include/erofs_oci/gzip/checkpoint.hpp", r"gzip_window_size = ([^;]+);"),
]
NUMBER = re.compile(r"\d+(?:\.\d+)?(?: (?:or|to) \d+)? ?(?:requests|ranges|MB|KiB|ms|seconds|times|s\b)")


def size_faults(page, sizes, text_of):
    for wanted, file, constant in sizes:
        said = re.search(wanted, page)
        is_now = re.search(constant, text_of(file))
        if not said or not is_now:
            yield f"{wanted}: not found in the page or in {file}"
            continue
        expression = is_now.group(1).replace("'", "")
        if not re.fullmatch(r"[\d *<()]+", expression):
            yield f"{file}: {expression} is no number"
        elif eval(expression) != int(said.group(1)) * 1024:
            yield f"the page says {said.group(1)} KiB, {file} {expression}"


def number_faults(page, readme):
    """Each number with a unit in the page whose digits README.md has nowhere."""
    known = set(re.findall(r"\d+(?:\.\d+)?", readme))
    for found in NUMBER.findall(page):
        for digits in re.findall(r"\d+(?:\.\d+)?", found):
            if digits not in known:
                yield f"{found}: README.md has no such number"


def selftest():
    sizes = [(r"chunks of (\d+) KiB", "a.hpp", r"size = ([^;]+);")]
    assert not list(size_faults("chunks of 8 KiB", sizes, lambda _: "size = 8 << 10;"))
    assert not list(size_faults("chunks of 8 KiB", sizes, lambda _: "size = 8 * 1024;"))
    for page, text in (("chunks of 8 KiB", "size = 16'384;"), ("chunks", "size = 8192;"), ("chunks of 8 KiB", ""),
                       ("chunks of 8 KiB", "size = other;")):
        assert list(size_faults(page, sizes, lambda _, text=text: text)), (page, text)
    assert not list(number_faults("1.00 requests, 0.5 MB, 3 apples, 8 or 9 ranges", "1.00 0.5 MB 8 or 9"))
    for bad in ("1.01 requests", "0.56 s", "8 or 9 ranges", "1.06 times as long"):
        assert list(number_faults(bad, "1.00 0.57 8 1.07")), bad


def main():
    if sys.argv[1:] == ["--selftest"]:
        return selftest()
    layers, performance, readme = ((TOP / name).read_text()
                                   for name in ("doc/layers.md", "doc/performance.md", "README.md"))
    faults = [*(f"layers.md: {fault}" for fault in size_faults(layers, SIZES, lambda file: (TOP / file).read_text())),
              *(f"performance.md: {fault}" for fault in number_faults(performance, readme))]
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
