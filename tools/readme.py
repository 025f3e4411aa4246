#!/usr/bin/env python3
"""Checks that README.md's program is example/hello_source.cpp, which is compiled; --write puts it in."""
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```cpp\n(.*?)```", re.S)

readme = TOP / "README.md"
program = (TOP / "example/hello_source.cpp").read_text()
program = program.removeprefix("// SPDX-License-Identifier: Apache-2.0\n")
text = readme.read_text()
found = BLOCK.search(text)
if found is None:
    sys.exit("README.md has no program")
if "--write" in sys.argv:
    readme.write_text(text[:found.start(1)] + program + text[found.end(1):])
elif found.group(1) != program:
    sys.exit("README.md's program is not example/hello_source.cpp: run tools/readme.py --write")
