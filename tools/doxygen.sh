#!/usr/bin/env bash
# Makes build/doc/reference, the reference of the library, from its headers. Fails on any warning. doc/build
# calls this and adds the pages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p build/doc
doxygen Doxyfile
