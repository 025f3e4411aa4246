# Sourced by tests that run in the guest: checks a line each, a registry, and what a mount may leave.
# MNT: where they mount. TOOL: mount-oci. TOOLS: tools/. WHAT: what their lines begin with.
failed=0

check() {  # check WHAT COMMAND...: one line a check
  local what=$1 start
  shift
  start=$(date +%s%N)
  if "$@" >/run/tmp/output 2>&1; then
    printf 'ok      %s: %s (%d ms)\n' "$WHAT" "$what" $((($(date +%s%N) - start) / 1000000))
  else
    printf 'FAILED  %s: %s\n' "$WHAT" "$what"
    tail -n 30 /run/tmp/output
    failed=$((failed + 1))
  fi
}

# What a mount may leave behind: processes, devices with a size, files where it can write.
traces() {
  # Few programs, each once: starting one takes an emulated processor long.
  grep -lF -f /run/tmp/tool /proc/[0-9]*/cmdline 2>/dev/null | sed "s/^/process /"
  grep . /sys/block/nbd*/size | grep -v ':0$'
  grep . /sys/block/nbd*/pid 2>/dev/null
  find /run /mnt -xdev ! -path '/run/tmp*' ! -path '/run/registry*' \
    ! -path /run/mount ! -path /run/erofs_oci  # mount(8)'s own, and our own, empty
}
remember_traces() {
  echo "$TOOL" >/run/tmp/tool  # not an argument of grep, which would find itself
  traces >/run/tmp/before
}
nothing_left() {
  local end=$((SECONDS + 20))
  while :; do
    traces >/run/tmp/after
    cmp -s /run/tmp/before /run/tmp/after && return 0
    [ "$SECONDS" -lt "$end" ] || break
    sleep 0.2
  done
  diff /run/tmp/before /run/tmp/after
}

start_registry() {  # start_registry STORAGE: on port 5000
  cat >/run/registry.yml <<END
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $1}, maintenance: {readonly: {enabled: true}}}
http: {addr: 127.0.0.1:5000}
END
  docker-registry serve /run/registry.yml >/run/registry.log 2>&1 &
  for _ in $(seq 300); do
    curl -fs -o /run/tmp/answer http://127.0.0.1:5000/v2/ && return 0
    sleep 0.1
  done
  cat /run/registry.log
  return 1
}

serve() {  # serve LAYOUT OPTION...: by our own registry, at $host
  rm -f address
  "${TOOL%/*}/oci-registry" "$@" >address & registry=$!
  for _ in $(seq 200); do [ -s address ] && break; sleep 0.1; done
  host=$(sed 's,http://,,' address)
}
close_registry() { kill "$registry" 2>/dev/null; wait "$registry"; }

cold() { echo 3 >/proc/sys/vm/drop_caches; }
refuses() {  # refuses TEXT COMMAND...: within LONGEST seconds, by default 30
  local text=$1
  shift
  ! timeout "${LONGEST:-30}" "$@" >said 2>&1 && grep -q -- "$text" said || { cat said; return 1; }
}
status_of() {  # status_of KEY [DIR]: of the first mount
  local key=$1
  shift
  "$TOOL" status --json "$@" | python3 -c "import json, sys; print(json.load(sys.stdin)[0]['$key'])"
}

mounted_readonly() { findmnt -n -o FSTYPE,OPTIONS "$MNT" | grep -E '^erofs +ro'; }
not_mounted() { ! findmnt -n "$MNT"; }
files_equal() {  # files_equal MANIFEST
  "$TOOLS/tree_manifest.py" dir "$MNT" >/run/tmp/got.jsonl &&
    "$TOOLS/tree_manifest.py" compare "$1" /run/tmp/got.jsonl
}
