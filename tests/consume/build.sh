#!/usr/bin/env bash
# usage: build.sh find_package|add_subdirectory|fetch_content|pkg_config|missing PREFIX WORK_DIR COMPILER
#        build.sh tutorial PREFIX WORK_DIR COMPILER       the first project of doc/tutorial.md, as it is there
#        build.sh find_package_compiled|add_subdirectory_compiled PREFIX WORK_DIR COMPILER
# Builds and runs a small program against the library as installed at PREFIX, or as a subproject: its
# headers alone, or with the compiled library.
set -euo pipefail
kind=$1 prefix=$2 work=$3 compiler=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rm -rf "$work"
mkdir -p "$work"

configure() {  # configure PROJECT [CMAKE ARGUMENT...]
  cmake -S "$1" -B "$work" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_PREFIX_PATH="$prefix" "${@:2}"
}

refused() {  # refused WANTED_TEXT CMAKE_ARGUMENT...: configuring fails and says WANTED_TEXT
  rm -rf "$work" && mkdir -p "$work"
  if configure "$here/missing" "${@:2}" >"$work/log" 2>&1; then
    echo "configured although it should not: ${*:2}"
    exit 1
  fi
  tr -s ' \n' ' ' <"$work/log" | grep -qF "$1" ||
    { cat "$work/log"; echo "does not say: $1"; exit 1; }
}

case $kind in
  find_package | add_subdirectory)
    configure "$here/$kind"
    cmake --build "$work"
    "$work/consumer"
    ;;
  find_package_compiled | add_subdirectory_compiled)
    configure "$here/${kind%_compiled}" -DLIBRARY=erofs_oci::compiled
    cmake --build "$work"
    "$work/consumer"
    object=$(find "$work" -name main.cpp.o)
    nm -C "$object" | grep -F " U erofs_oci::parse_document(" >/dev/null ||
      { echo "the program has a body of its own for what the compiled library has"; exit 1; }
    ;;
  tutorial)
    project=$work/project
    mkdir "$project"
    awk '/^```cmake$/ {on = 1; next} /^```$/ {on = 0} on' "$here/../../doc/tutorial.md" >"$project/CMakeLists.txt"
    cp "$here/../../example/first_source.cpp" "$project"
    configure "$project"
    cmake --build "$work"
    [ "$("$work/first_source")" = uvwxyzabcd ]
    ;;
  fetch_content)
    tar -C "$here/../.." --exclude=./build --exclude=./.git -czf "$work/erofs_oci.tar.gz" .
    configure "$here/fetch_content" -DARCHIVE="$work/erofs_oci.tar.gz"
    cmake --build "$work"
    "$work/consumer"
    ;;
  pkg_config)
    PKG_CONFIG_PATH=$prefix/share/pkgconfig make -C "$here/pkg_config" CXX="$compiler" OUT="$work"
    "$work/consumer"
    ;;
  missing)
    configure "$here/missing" -DPARTS="gzip;nbd"
    cmake --build "$work"
    # Each alone: its package file brings what it stands on.
    for targets in "$prefix"/share/cmake/erofs_oci/erofs_oci-*-targets.cmake; do
      part=$(basename "$targets" -targets.cmake)
      configure "$here/missing" -DPARTS="${part#erofs_oci-}"
    done
    refused "erofs_oci has no component carrots here" -DPARTS=carrots
    refused "component gzip of erofs_oci needs ZLIB >= 1.2.13, which is not found" -DPARTS="core;gzip" \
      -DCMAKE_DISABLE_FIND_PACKAGE_ZLIB=ON
    refused "component gzip of erofs_oci needs ZLIB >= 1.2.13, which is not found" \
      -DCMAKE_DISABLE_FIND_PACKAGE_ZLIB=ON
    refused "requested version \"0.2\"" -DWANTED=0.2
    # Who asks for what does not decode does not need zlib.
    for parts in core "http;recovery"; do
      rm -rf "$work" && mkdir -p "$work"
      configure "$here/missing" -DPARTS="$parts" -DCMAKE_DISABLE_FIND_PACKAGE_ZLIB=ON
    done
    ;;
esac
