#!/usr/bin/env bash
# What Doxygen reads of a header: what the header has, in the group that its folder belongs to. Lines stay
# where they are.
#
# usage: tools/doxygen_filter.sh FILE
set -euo pipefail
folder=${1#*include/erofs_oci/}
case ${folder%%/*} in
  source) group=sources ;;
  combinator | cache) group=combinators ;;
  gzip) group=gzip ;;
  digest) group=digests ;;
  erofs | tar | tarindex) group=erofs ;;
  nbd) group=nbd ;;
  fuse) group=fuse ;;
  oci | http | image) group=oci ;;
  recovery) group=recovery ;;
  mount | host) group=mounting ;;
  testing) group=testing ;;
  *) group=basics ;;
esac
if [[ $1 != *.hpp ]]; then exec cat "$1"; fi
# Doxygen 1.9.4 takes the mark in 30'000 for the start of a character and loses comments up to the next one.
exec sed -E -e "s/([0-9])'([0-9A-Fa-f])/\1\2/g" \
  -e "s|^(namespace erofs_oci[a-z_:]* \{)\$|\1 /** @addtogroup $group */ /** @{ */|" \
  -e 's|^\}  // namespace erofs_oci|/** @} */ &|' "$1"
