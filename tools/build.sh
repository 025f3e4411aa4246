# Sourced by run, check and .ci/run: builds that say nothing unless they fail.

top=${top:?}
logs=$top/build/log

# What one checkout has compiled serves another one, too.
export CCACHE_BASEDIR=$top CCACHE_NOHASHDIR=1

# quietly NAME COMMAND...: the command's output goes to a log, which is shown only on failure.
quietly() {
  local name=$1
  shift
  mkdir -p "$logs"
  "$@" >"$logs/$name.log" 2>&1 </dev/null && return
  local status=$?
  { grep -E -m 20 'error:|Error|FAILED' "$logs/$name.log" || tail -n 40 "$logs/$name.log"; } >&2
  echo "$name failed ($status): $*" >&2
  echo "whole log: $logs/$name.log" >&2
  return "$status"
}

# configure PRESET [ARGUMENT...]: unless done, since ninja sees changes of CMake files itself.
configure() {
  if [ -f "$top/build/$1/build.ninja" ] && [ $# = 1 ]; then return 0; fi
  if command -v ccache >/dev/null; then export CMAKE_CXX_COMPILER_LAUNCHER=ccache; fi
  (cd "$top" && cmake --preset "$@")
}

# A second call at the same time waits for the first.
build_tool() (
  "$top/tools/packages.sh" build
  mkdir -p "$top/build"
  exec 9>"$top/build/.lock"
  flock 9
  if [ ! -x "$top/build/bin/mount-oci" ]; then echo "building mount-oci, once ..." >&2; fi
  quietly configure-release configure release 9>&-
  quietly build-release cmake --build "$top/build/release" --target mount-oci oci-registry 9>&-
)
