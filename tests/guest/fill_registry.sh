#!/usr/bin/env bash
# usage: fill_registry.sh LAYOUT TAG ROOT NAME
# Makes ROOT the storage of a docker-registry that holds the image LAYOUT:TAG as NAME:TAG.
set -euo pipefail
layout=$1 tag=$2 root=$3 name=$4
mkdir -p "$root"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$root/config.yml" <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $root/data}}
http: {addr: 127.0.0.1:$port}
END
docker-registry serve "$root/config.yml" >"$root/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  curl -fs -o "$root/answer" "http://127.0.0.1:$port/v2/" && break
  sleep 0.1
done
skopeo --insecure-policy copy -q --preserve-digests --dest-tls-verify=false "oci:$layout:$tag" \
  "docker://127.0.0.1:$port/$name:$tag" || { cat "$root/log" >&2; exit 1; }
