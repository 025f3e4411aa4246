# Sourced by what looks at other Debian suites: where their trees are, and how they are taken.

top=${top:?}
# shellcheck disable=SC2034  # who sources this uses them
trees=$top/build/trees
debian_key=/usr/share/keyrings/debian-archive-keyring.gpg
# A suite of long ago has a signature that was valid then.
tree_options=(--quiet --mode=root --format=directory --aptopt='Acquire::Check-Valid-Until "false"'
  --aptopt='Acquire::Check-Date "false"' --aptopt='APT::Install-Recommends "false"')

# The mirror of this machine's own Debian suite, whichever form its sources have.
mirror() {
  apt-get indextargets --format '$(SITE) $(ORIGIN) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 == "Debian" && $3 == "main" && !/security/ {print $1; exit}'
}
