# Sourced by tests that run in clean trees of Debian's suites, with top set: the trees, which are made once, in
# build/trees, from the Debian mirror that this machine uses. To make one again, remove its directory. Needs
# root, for mmdebstrap, chroot and mounts.
trees=${top:?}/build/trees
debian_key=/usr/share/keyrings/debian-archive-keyring.gpg
# A suite of long ago has a signature that was valid then.
tree_options=(--quiet --mode=root --format=directory --aptopt='Acquire::Check-Valid-Until "false"'
  --aptopt='Acquire::Check-Date "false"' --aptopt='APT::Install-Recommends "false"')

# What a user has beside a minimal Debian, for whom `packages.sh --use` speaks.
user_packages=(bash-completion ca-certificates fuse3 kmod man-db mount procps)

# The mirror of this machine's own Debian suite, whichever form its sources have.
mirror() {
  apt-get indextargets --format '$(SITE) $(ORIGIN) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 == "Debian" && $3 == "main" && !/security/ {print $1; exit}'
}

# new_tree SUITE TREE OPTION...: a tree of the suite, by mmdebstrap with these options, in TREE.new.
new_tree() {
  local suite=$1 tree=$2 site
  shift 2
  site=$(mirror)
  [ -n "$site" ] || { echo "apt knows no Debian mirror" >&2; return 1; }
  mkdir -p "$trees"
  rm -rf "$tree.new"
  mmdebstrap "${tree_options[@]}" "$@" "$suite" "$tree.new" "deb [signed-by=$debian_key] $site $suite main"
}

# make_tree SUITE NAME PACKAGE...: unless it is there.
make_tree() {
  local suite=$1 tree=$trees/$2
  shift 2
  [ ! -d "$tree" ] || return 0
  new_tree "$suite" "$tree" --variant=minbase --skip=cleanup/apt --include="$(IFS=,; echo "$*")" || return
  echo '127.0.0.1 localhost' >"$tree.new/etc/hosts"
  mkdir -p "$tree.new/src" "$tree.new/out"
  mv "$tree.new" "$tree"  # complete or not there
}

# in_tree NAME OUT COMMAND...: as root in a copy of the tree that is forgotten; the sources are in /src, and
# what is left in /out stays in OUT. Its mounts and processes go with its namespaces.
in_tree() {
  local tree=$trees/$1 out=$2 ccache
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

# user_image OUT: the image that `packages.sh --use` mounts.
user_image() {
  python3 "$top/tools/make_layout.py" "$top/tests/data/oci/basic.tar.gz" "$1/image" >/dev/null
}

# for_suites COMMAND SUITE...: the command with each suite, until one fails.
for_suites() {
  local command=$1 suite
  shift
  for suite in "$@"; do
    echo "== $suite"
    "$command" "$suite" || { echo "$suite: failed" >&2; return 1; }
  done
}
