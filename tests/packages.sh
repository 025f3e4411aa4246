#!/usr/bin/env bash
# Builds the packages in clean trees of Debian's suites, both by dpkg-buildpackage and by CPack, and
# installs, uses and removes each of them in a tree that holds nothing that builds need.
#
# usage: tests/packages.sh [SUITE...]     by default bookworm trixie
#
# Needs root, for mmdebstrap, chroot and mounts, and a kernel with EROFS and FUSE; nbd is not needed. The
# trees are made once, in build/trees, from the Debian mirror that this machine uses; to make one again,
# remove its directory. The packages are left in build/packages/SUITE.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$top/tests/trees.sh"
build_packages=(ca-certificates ccache debhelper dpkg-dev fakeroot g++)
user_packages=(bash-completion ca-certificates fuse3 kmod man-db mount procps)

# The names of debian/control's Build-Depends, without those of a build profile.
build_depends() {
  awk '/^Build-Depends:/ {on = 1; next} on && !/^ / {exit} on && !/</ {sub(/,$/, ""); print $1}' "$top/debian/control" |
    grep -v '^debhelper-compat'
}

# make_tree SUITE NAME PACKAGE...
make_tree() {
  local suite=$1 tree=$trees/$2 site
  shift 2
  site=$(mirror)
  [ -n "$site" ] || { echo "apt knows no Debian mirror" >&2; return 1; }
  rm -rf "$tree.new"
  mmdebstrap "${tree_options[@]}" --variant=minbase --skip=cleanup/apt --include="$(IFS=,; echo "$*")" \
    "$suite" "$tree.new" "deb [signed-by=$debian_key] $site $suite main" || return
  echo '127.0.0.1 localhost' >"$tree.new/etc/hosts"
  mkdir -p "$tree.new/src" "$tree.new/out"
  mv "$tree.new" "$tree"  # complete or not there
}

# in_tree TREE OUT COMMAND...: as root in a copy of the tree that is forgotten; the sources are in /src, and
# what is left in /out stays in OUT. Its mounts and processes go with its namespaces.
in_tree() {
  local tree=$1 out=$2 ccache
  shift 2
  ccache=$(ccache -k cache_dir 2>/dev/null || true)
  unshare --mount --pid --ipc --fork --kill-child --propagation private bash -c '
    set -e
    tree=$1 top=$2 out=$3 ccache=$4; shift 4
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay overlay -o "lowerdir=$tree,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
    cd /mnt/root
    mount --rbind /dev dev; mount --rbind /sys sys; mount -t proc proc proc; mount -t tmpfs tmpfs run
    mount --bind -o ro "$top" src; mount --bind "$out" out
    cp /etc/resolv.conf etc/resolv.conf
    if [ -d "$ccache" ]; then mkdir -p var/ccache; mount --bind "$ccache" var/ccache; fi
    exec chroot /mnt/root "$@"' - "$tree" "$top" "$out" "$ccache" "$@"
}

check_suite() {
  local suite=$1 out=$top/build/packages/$1 kind
  local build=$trees/packages-$suite-build user=$trees/packages-$suite-user
  if [ ! -d "$build" ]; then
    mapfile -t depends < <(build_depends)
    make_tree "$suite" "packages-$suite-build" "${build_packages[@]}" "${depends[@]}" || return
  fi
  [ -d "$user" ] || make_tree "$suite" "packages-$suite-user" "${user_packages[@]}" || return
  rm -rf "$out"
  mkdir -p "$out"
  git -C "$top" ls-files -z --cached --others --exclude-standard |
    (cd "$top" && xargs -0 ls -d 2>/dev/null) | tar -C "$top" -cf "$out/source.tar" -T -
  python3 "$top/tools/make_layout.py" "$top/tests/data/oci/basic.tar.gz" "$out/image" >/dev/null
  in_tree "$build" "$out" bash /src/tests/packages.sh --build || return
  if command -v lintian >/dev/null; then
    lintian --fail-on error --suppress-tags bad-distribution-in-changes-file \
      "$out"/dpkg/*.deb "$out"/cpack/*.deb || return
  fi
  for kind in dpkg cpack; do
    in_tree "$user" "$out" bash /src/tests/packages.sh --use "$kind" || return
    echo "$suite: packages of $kind: installed, used and removed"
  done
  in_tree "$build" "$out" bash /src/tests/packages.sh --develop || return
}

# ---------------------------------------------------------------- in a tree, after a build
# The packages of dpkg-buildpackage are in /out/dpkg, those that CPack makes of the same build in /out/cpack.
build() {
  export LC_ALL=C CCACHE_DIR=/var/ccache CCACHE_BASEDIR=/var/tmp/erofs-oci CCACHE_NOHASHDIR=1
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache DEB_BUILD_OPTIONS="noautodbgsym parallel=${JOBS:-2}"
  # The project's own flags alone: with the same compiler, what ./run has compiled serves here, too.
  export DEB_CFLAGS_SET='' DEB_CXXFLAGS_SET='' DEB_CPPFLAGS_SET='' DEB_LDFLAGS_SET=''
  mkdir -p /var/tmp/erofs-oci /out/dpkg /out/cpack
  cd /var/tmp/erofs-oci
  tar -xf /out/source.tar
  dpkg-buildpackage -us -uc -b >/out/build.log 2>&1 || { tail -n 40 /out/build.log >&2; return 1; }
  mv ../*.deb /out/dpkg/
  (cd build/debian && cpack -G DEB) >/out/cpack.log 2>&1 || { cat /out/cpack.log >&2; return 1; }
  mv build/debian/packages/*.deb /out/cpack/
  # Both have the same files.
  local package
  for package in mount-oci erofs-oci-dev; do
    diff <(contents /out/dpkg/"$package"_*.deb) <(contents /out/cpack/"$package"_*.deb) ||
      { echo "$package: dpkg's package (<) has other files than CPack's (>)" >&2; return 1; }
  done
}

contents() {
  # debhelper compresses long texts.
  dpkg-deb -c "$1" | awk '{print $1, $2, $6, $7, $8}' | grep -v '^d' | sed 's/\.md\.gz/.md/' | sort -k 3
}

# ---------------------------------------------------------------- in a tree, by a user
quiet_apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends "$@" </dev/null >/tmp/apt.log 2>&1 ||
    { cat /tmp/apt.log >&2; return 1; }
}

# All that is there, but for what dpkg, apt and ldconfig keep of everything, and what others leave.
everything() {
  find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /src -o -path /out -o -path /tmp \
    -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/cache/man \
    -o -path /var/cache/ldconfig -o -path /var/log -o -path /var/ccache \) -prune -o -print |
    grep -v -e '^/etc/ld.so.cache$' -e '^/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$' -e '/.pwd.lock$' | sort
  sort /etc/passwd /etc/group
  cut -d: -f1 /etc/shadow | sort
  find /run -path /run/mount -prune -o -print | sort  # which is of mount(8)
}

fails() {
  echo "failed: $*" >&2
  exit 1
}

use() {
  export LC_ALL=C.UTF-8
  local before=/tmp/before image=oci:/out/image:latest
  quiet_apt update
  everything >$before
  quiet_apt install "/out/$1"/mount-oci_*.deb

  [[ $(mount-oci --version) == "mount-oci (erofs_oci) "[0-9]* ]] || fails "mount-oci --version"
  getent passwd mount-oci >/dev/null || fails "there is no user mount-oci"
  for page in mount-oci mount-oci-mount mount-oci-index mount.erofs.nbd mount.erofs.fuse mount-oci.conf; do
    man -w "$page" >/dev/null || fails "man -w $page"
  done
  man mount.erofs.fuse 2>/dev/null | grep -q fstab || fails "man mount.erofs.fuse"
  bash -c '. /usr/share/bash-completion/bash_completion
           if declare -F _comp_load >/dev/null; then _comp_load mount-oci; else _completion_loader mount-oci; fi
           complete -p mount-oci' >/dev/null 2>&1 || fails "the completion of bash does not load"
  grep -qE '^[^#]' /etc/mount-oci.conf && fails "/etc/mount-oci.conf says something"
  sed 's/^#\(oci.timeout = \).*/\130/' /etc/mount-oci.conf | grep -qE '^oci.timeout = 30$' ||
    fails "/etc/mount-oci.conf has no oci.timeout"

  local mnt=/mnt/image
  mkdir $mnt
  mount -t erofs.nbd "$image" $mnt || fails "mount -t erofs.nbd"
  [ "$(stat -c %s $mnt/f4097)" = 4097 ] || fails "the mounted image has no f4097"
  cat $mnt/f100003 >/dev/null || fails "a file of the mounted image cannot be read"
  umount $mnt || fails "umount"
  mount -t erofs.fuse "$image" $mnt || fails "mount -t erofs.fuse"
  mount-oci umount $mnt || fails "mount-oci umount"
  if mount -t erofs.nbd -o nosuidd "$image" $mnt 2>/tmp/error; then fails "-o nosuidd is taken"; fi
  grep -q 'did you mean `nosuid`' /tmp/error || fails "no suggestion: $(cat /tmp/error)"

  cp /etc/fstab /tmp/fstab 2>/dev/null || : >/tmp/fstab
  echo "$image $mnt erofs.nbd noauto,nofail,_netdev 0 0" >>/etc/fstab
  mount -a || fails "mount -a with a line that is noauto"
  mountpoint -q $mnt && fails "noauto was mounted by mount -a"
  mount $mnt || fails "mount by fstab"
  mount $mnt || fails "mount by fstab, a second time"
  [ "$(grep -c " $mnt " /proc/mounts)" = 1 ] || fails "mounted twice"
  # What is still mounted is unmounted when the package is removed.
  quiet_apt purge mount-oci
  mountpoint -q $mnt && fails "the image is mounted without the package"
  cp /tmp/fstab /etc/fstab
  rmdir $mnt
  quiet_apt autoremove --purge
  if [ ! -s /tmp/fstab ]; then rm -f /etc/fstab; fi
  everything | diff $before - || fails "what purge has left (>)"
  mount-oci --version 2>/dev/null && fails "mount-oci is there"
  return 0
}

# ---------------------------------------------------------------- in a tree, by a developer
# With the packages' files alone, without the sources.
develop() {
  export LC_ALL=C
  quiet_apt update
  quiet_apt install /out/cpack/erofs-oci-dev_*.deb
  mkdir /tmp/mine && cd /tmp/mine
  cat >CMakeLists.txt <<'EOF'
cmake_minimum_required(VERSION 3.25)
project(mine LANGUAGES CXX)
find_package(erofs_oci 0.1 REQUIRED)
find_package(erofs_oci 0.1 REQUIRED COMPONENTS core)
add_executable(mine main.cpp)
target_link_libraries(mine PRIVATE erofs_oci::core)
EOF
  cat >main.cpp <<'EOF'
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/version.hpp>

#include <cstdio>

int main() {
  std::puts(erofs_oci::version);
  return erofs_oci::Memory(erofs_oci::to_bytes("a")).size() == 1 ? 0 : 1;
}
EOF
  { cmake -G Ninja -B build . && cmake --build build && build/mine; } >log 2>&1 || { cat log >&2; return 1; }
  g++ -std=c++20 main.cpp -o by-pkg-config $(pkg-config --cflags --libs erofs_oci-core) && ./by-pkg-config
  quiet_apt purge erofs-oci-dev
  [ ! -e /usr/include/erofs_oci ] || fails "purge has left headers"
}

case ${1:-} in
  --build) build && exit ;;
  --use) use "$2" && exit ;;
  --develop) develop && exit ;;
  -*) echo "usage: tests/packages.sh [SUITE...]" >&2 && exit 2 ;;
  *) ;;
esac
mkdir -p "$trees"
suites=("$@")
[ $# != 0 ] || suites=(bookworm trixie)
for suite in "${suites[@]}"; do
  echo "== $suite"
  check_suite "$suite" || { echo "$suite: failed" >&2; exit 1; }
done
