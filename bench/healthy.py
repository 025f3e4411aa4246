#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads a mounted image again and again from a slow and healthy registry, and counts the workers that
were replaced, of which there must be none.

Each run mounts the image anew, with a small read-ahead, and reads many files of one directory in an order
of its own with one process, so that the worker changes between work and idleness thousands of times. A run
must last several seconds: an idle worker looks at its work once a second. Needs root, /dev/fuse and what
--attach takes."""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tools"))
import make_layout  # noqa: E402


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", default=os.environ.get("MOUNT_OCI", "mount-oci"))
    parser.add_argument("--registry", default=os.environ.get("OCI_REGISTRY", "oci-registry"))
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--attach", default="fuse-file")
    parser.add_argument("--readahead", default="4K")
    parser.add_argument("--latency", type=int, default=40, help="of the registry, in ms")
    parser.add_argument("--bandwidth", default="3000000", help="of the registry, in bytes a second")
    parser.add_argument("--directory", default="usr/lib/x86_64-linux-gnu")
    parser.add_argument("--files", type=int, default=60, help="how many are read in each run")
    parser.add_argument("--busy", action="store_true", help="keep every processor busy meanwhile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tarindex")
    parser.add_argument("--zinfo")
    parser.add_argument("layer", help="a layer.tar.gz")
    return parser.parse_args()


def run_once(options, host, directory, order):
    """Mounts, reads, unmounts; yields how many workers were replaced and why the last one was."""
    target, journal = os.path.join(directory, "mount"), os.path.join(directory, "journal")
    store = os.path.join(directory, "store")
    words = [f"oci.layer=0,oci.insecure=1,oci.readahead={options.readahead},oci.cache_dir=none,oci.store={store}"]
    words += [f"oci.{name}={value}" for name in ("tarindex", "zinfo")
              if (value := getattr(options, name))]
    subprocess.run([options.tool, "mount", "--attach", options.attach, "--journal", journal, "-o",
                    ",".join(words), f"{host}/image:latest", target], check=True, capture_output=True)
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        top = os.path.join(target, options.directory)
        names = sorted(entry.name for entry in os.scandir(top) if entry.is_file(follow_symlinks=False))
        names = names[:options.files]
        order.shuffle(names)
        subprocess.run(["cat", "--", *names], cwd=top, stdout=subprocess.DEVNULL, check=True)
        status = subprocess.run([options.tool, "status", "--json", "--journal", journal], check=True,
                                capture_output=True, text=True).stdout
        mount = json.loads(status)[0]
        return mount["restarts"], mount["last_error"]
    finally:
        subprocess.run(["umount", target], check=True)
        while os.path.exists(journal) and os.listdir(journal):
            time.sleep(0.01)


def run_all(options, host, directory):
    order = random.Random(options.seed)
    killed = 0
    for run in range(options.runs):
        restarts, why = run_once(options, host, directory, order)
        killed += restarts
        if restarts:
            print(f"run {run}: {restarts} killed: {why}", flush=True)
    print(f"{options.runs} runs, {killed} workers killed")
    return killed


def main():
    options = parse_arguments()
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
               for _ in range(os.cpu_count() if options.busy else 0)]
    with tempfile.TemporaryDirectory() as directory:
        os.mkdir(os.path.join(directory, "mount"))
        layout = os.path.join(directory, "layout")
        make_layout.make_layout([options.layer], layout)
        registry = subprocess.Popen(
            [options.registry, "--latency", str(options.latency), "--bandwidth", options.bandwidth,
             layout], stdout=subprocess.PIPE, text=True)
        try:
            host = registry.stdout.readline().strip().split("://", 1)[1]
            killed = run_all(options, host, directory)
        finally:
            for process in [registry, *burning]:
                process.kill()
                process.wait()
    sys.exit(0 if killed == 0 else 1)


if __name__ == "__main__":
    main()
