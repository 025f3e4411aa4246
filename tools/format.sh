#!/usr/bin/env bash
# usage: tools/format.sh [--fix]     checks, or mends, the layout of every C++ file
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode=(--dry-run -Werror)
[ "${1:-}" != --fix ] || mode=(-i)
find include example tests fuzz bench tools \( -name '*.hpp' -o -name '*.cpp' \) -print0 | sort -z |
  xargs -0 -r -n 40 -P "$(nproc)" clang-format-19 "${mode[@]}"
