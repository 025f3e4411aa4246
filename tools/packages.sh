#!/usr/bin/env bash
# Installs the Debian packages of packages.txt that are missing.
#
# usage: tools/packages.sh SECTION...        sections: build check matrix snapshotter
#
# Says nothing and touches nothing when all are there.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

wanted=()
for section in "$@"; do
  mapfile -t -O "${#wanted[@]}" wanted < <(
    awk -v section="[$section]" '/^\[/ {on = $0 == section; next} on && NF && !/^#/' "$top/packages.txt")
done
[ ${#wanted[@]} -gt 0 ] || { echo "packages.sh: no packages in: $*" >&2; exit 2; }

command -v dpkg-query >/dev/null || {
  echo "This is no Debian: install what packages.txt lists under $* by hand." >&2
  exit 1
}
missing=()
while read -r package; do missing+=("$package"); done < <(
  comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null |
      sed -n 's/^installed //p' | sort -u))
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || {
    echo "Not root, and there is no sudo. As root: apt-get install ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "installing ${#missing[@]} packages: ${missing[*]}" >&2
install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" </dev/null >>"$log" 2>&1
}
# A lone failure is more often the network than the list of packages.
attempt=1
until install update && install install --no-install-recommends "${missing[@]}"; do
  if [ "$attempt" = 3 ]; then
    tail -n 30 "$log" >&2
    echo "packages.sh: apt-get failed" >&2
    exit 1
  fi
  attempt=$((attempt + 1))
  sleep 5
done
