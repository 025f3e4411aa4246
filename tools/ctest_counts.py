#!/usr/bin/env python3
"""Counts what a JUnit file of ctest says: prints "PASSED FAILED SKIPPED" to standard output, and to
standard error which tests failed, with the end of their output, and what was skipped.

A test is skipped when ctest says so. A test program that runs, and leaves out a case for want of
something, prints a line that begins with "skipped": each of those counts too.
"""
import re
import sys
import xml.etree.ElementTree as xml


def asked_to_skip(case):
    """Whether the test itself said so; one that could not be started is "notrun" as well."""
    why = case.find("skipped")
    return why is not None and (why.get("message") or "").startswith("SKIP_")


def main():
    try:
        cases = list(xml.parse(sys.argv[1]).getroot().iter("testcase"))
    except (OSError, xml.ParseError) as error:
        print(f"no result of ctest: {error}", file=sys.stderr)
        cases = []
    if not cases:
        print(0, 1, 0)
        return
    passed = failed = skipped = 0
    for case in cases:
        output = case.findtext("system-out") or ""
        lines = re.findall(r"^\s*(skipped\b.*)$", output, re.M)
        status = case.get("status")
        if status == "run":
            passed += 1
            skipped += len(lines)
        elif status == "disabled" or (status == "notrun" and asked_to_skip(case)):
            skipped += 1
            lines = lines or ["skipped"]
        else:
            failed += 1
            print(f"--- {case.get('name')} failed", file=sys.stderr)
            print("\n".join(output.splitlines()[-60:]), file=sys.stderr)
            continue
        for line in lines:
            print(f"        {case.get('name')}: {line}", file=sys.stderr)
    print(passed, failed, skipped)


main()
