#!/usr/bin/env bash
# Makes build/doc/html from the headers and doc/. Fails on any warning.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p build/doc
doxygen Doxyfile
