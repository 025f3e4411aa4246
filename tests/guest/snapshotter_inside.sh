#!/usr/bin/env bash
# Run by tests/guest/run.sh for snapshotter.sh.
set -euo pipefail
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/containerd
exec /usr/bin/python3 -B "$(dirname "${BASH_SOURCE[0]}")/snapshotter_test.py"
