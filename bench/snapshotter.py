#!/usr/bin/python3
"""Measures what a container's start costs by containerd with its overlayfs, and with oci-snapshotter.

usage: bench/snapshotter.py [--build DIR] [--latency MS] [--bandwidth SIZE] [--size MB] [--repeat N]

In one run, each time with an empty containerd, snapshotter and cache: a pod runs already; then an image is
pulled over CRI, and a container of it prints a file. The registry waits before each answer, and sends each
with the bandwidth. "first output": from the pull's beginning to the line in the container's log; with it what
the registry was asked for until then. Then, when all is cached, `find` and `tar` of the container's files by
busybox, the best of three. Ours is measured without an index, which it makes by reading the layers, and with a
signed one in the registry. Counts are what to compare; times are of this machine. Ends with status 1 if, with
an index, it is not five times as fast as overlayfs, or slower without one.

Needs root, containerd, runc, and the Python of Debian's packages python3-grpcio and python3-protobuf.
--build: directory of a build with -DEROFS_OCI_SNAPSHOTTER=ON.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import urllib.request

TOP = pathlib.Path(__file__).resolve().parents[1]
FILES = 2000  # of 4 KiB, for find and tar


def program(build, name):
    for place in ("example", "example/snapshotter", "../bin"):
        path = build / place / name
        if path.exists():
            return str(path.resolve())
    sys.exit(f"no {name} in {build}")


def settings():
    """Of the command line; for the process that runs within the tests' namespaces, of the first one."""
    if "SNAPSHOTTER_BENCH" in os.environ:
        return argparse.Namespace(**json.loads(os.environ["SNAPSHOTTER_BENCH"]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=pathlib.Path, default=TOP / "build/release")
    parser.add_argument("--latency", default="30", help="milliseconds")
    parser.add_argument("--bandwidth", default="12500000", help="bytes a second")
    parser.add_argument("--size", type=int, default=64, help="megabytes of the image's largest layer")
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    build = args.build.resolve()
    os.environ.update(MOUNT_OCI=program(build, "mount-oci"),
                      OCI_SNAPSHOTTER=program(build, "oci-snapshotter"),
                      SNAPSHOTS_PROTO=str(build / "example/snapshotter/proto"))
    args.build = str(build)
    os.environ["SNAPSHOTTER_BENCH"] = json.dumps(vars(args))
    sys.argv = sys.argv[:1]
    return args


ARGS = settings()
sys.path[:0] = [str(TOP / "tests/integration/snapshotter")]
import cluster  # noqa: E402
import images  # noqa: E402
from cluster import Cluster, Layout, base_layer, noise, wait_for  # noqa: E402

TAKEN = {}  # of each way: rows of numbers


class Bench(Cluster):
    def setUp(self):
        super().setUp()
        layout = Layout(self.dir / "layout")
        files = images.Layer().dir("files")
        for i in range(FILES):
            files.file(f"files/{i}", noise(4096, i))
        big = images.Layer().file("big", noise(ARGS.size * 1_000_000, "big")).file("small", b"small\n")
        base = base_layer()
        for name in ("find", "tar", "true"):
            base.symlink(f"bin/{name}", "busybox")
        layout.image("app", [layout.layer(base, "base"), layout.layer(files, "files"),
                             layout.layer(big, "big")])
        layout.image("pause", [layout.layer(base_layer().file("pause", b"pause"), "pause")])
        self.key = self.dir / "key.pub"
        for command in (["genpkey", "-algorithm", "ed25519", "-out", self.dir / "key"],
                        ["pkey", "-in", self.dir / "key", "-pubout", "-out", self.key]):
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        self.WORDS = [f"oci.index_key={self.key}"]
        self.run_registry("--accept-pushes", "--latency", ARGS.latency, "--bandwidth", ARGS.bandwidth,
                          layout.path)

    def push_index(self):
        subprocess.run([cluster.TOOL, "index", "--quiet", "--push", "--sign-key", self.dir / "key", "-o",
                        f"oci.insecure,oci.store={self.dir}/elsewhere", f"{self.host}/t/app:app"],
                       check=True, capture_output=True, timeout=cluster.PATIENCE)

    def stats(self):
        with urllib.request.urlopen(f"http://{self.host}/_stats") as answer:
            return json.load(answer)

    def timed(self, container, *command):
        begin = time.monotonic()
        self.execute(container, *command)
        return time.monotonic() - begin

    def measure(self, name):
        self.start_snapshotter()
        self.start_containerd(sandbox=f"{self.host}/t/pause:pause")
        pod = self.start_pod("p")
        log = self.dir / "logs/log"
        before = self.stats()
        begin = time.monotonic()
        self.pull("app")
        pulled = time.monotonic() - begin
        container = self.start_container(
            pod, "app", ["/bin/sh", "-c", "cat /small; trap 'exit 0' TERM; while :; do sleep 0.1; done"])
        wait_for(lambda: log.exists() and "small" in log.read_text(), "output")
        first = time.monotonic() - begin
        after = self.stats()
        self.execute(container, "/bin/sh", "-c", "cat /big /files/* >/dev/null")
        find = min(self.timed(container, "/bin/find", "/", "-xdev", "-size", "+1000000") for _ in range(3))
        tar = min(self.timed(container, "/bin/sh", "-c", "tar -cf - files big bin | cat >/dev/null")
                  for _ in range(3))
        self.remove_pod(pod[0])
        TAKEN.setdefault(name, []).append(
            [first, pulled, after["requests"] - before["requests"],
             (after["bytes"] - before["bytes"]) / 1e6, find, tar])

    def test_1_overlayfs(self):
        self.OF_IMAGES = "overlayfs"
        self.measure("overlayfs")

    def test_2_without_an_index(self):
        self.measure("ours, no index")

    def test_3_with_an_index(self):
        self.push_index()
        self.measure("ours, index")

    @classmethod
    def tearDownClass(cls):
        if len(TAKEN) != 3:
            return
        rows = {name: [statistics.median(column) for column in zip(*taken)]
                for name, taken in TAKEN.items()}
        base = rows["overlayfs"]
        print(f"\nimage of {ARGS.size} MB and {FILES} files, {ARGS.latency} ms, "
              f"{int(ARGS.bandwidth) / 1e6:.1f} MB/s for each answer, medians of {ARGS.repeat}")
        print("| | first output: s | x overlayfs | pull: s | requests | MB | find: s | x | tar: s | x |")
        print("|---|" + "---|" * 9)
        for name, (first, pulled, requests, size, find, tar) in rows.items():
            print(f"| {name} | {first:.2f} | {first / base[0]:.2f} | {pulled:.2f} | {requests:.0f} | "
                  f"{size:.2f} | {find:.3f} | {find / base[4]:.2f} | {tar:.3f} | {tar / base[5]:.2f} |",
                  flush=True)
        fast = base[0] / rows["ours, index"][0]
        slow = rows["ours, no index"][0] / base[0]
        if fast < 5 or slow > 1:
            raise AssertionError(f"with an index {fast:.1f} times as fast, without one {slow:.2f} of the time")


def load_tests(loader, tests, pattern):
    """Each way in turn, as often as wanted, so that what else the machine does hits all alike."""
    suite = type(tests)()
    for _ in range(ARGS.repeat):
        suite.addTests(loader.loadTestsFromTestCase(Bench))
    return suite


if __name__ == "__main__":
    cluster.main(*cluster.CONTAINERD)
