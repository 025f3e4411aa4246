#!/usr/bin/env python3
"""Measures what a machine fetches that has nothing of an image, when another one has pushed its index.

usage: bench/first_contact.py [--layer TAR.GZ] [--bin DIR] [--latency MS] [--bandwidth SIZE] [--way WAY]
                              [--repeat N] [--docker-registry]

Makes an image as bench/cold_start.py does, or takes a layer with python3. One store makes its index from
oci-registry, without latency; a mount for `python3 -c 'import os'` records the start list; `index --push
--with-start-list --sign-key` puts both beside the image. Then, with latency, and the bandwidth for each
answer, each with an empty layer cache:

  second mount     of the machine that has the index and the start list
  first contact    of one with an empty store that has the key
  without a list   the same with oci.start_list=off
  without an index the same with oci.index=none: the layer is read

Each from the mount command to the end of python3. Counts are what to compare: exits 1 unless first contact
fetches at most 1.2 times the bytes of the second mount, and what was pushed. Times (medians) are of this
machine. --docker-registry: times of first contact with Debian's docker-registry in place of ours, which
has no referrers API, no latency and no counts. Needs root, openssl, and FUSE or NBD.
"""
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from common import (Registry, arguments, bench_image, conditions, drop_caches, mounted, note, run_in,
                    server, slow_registry)

PYTHON = ["python3", "-c", "import os"]
MOST = 1.2  # times the bytes of a second mount


class Machine:
    """One with a store; its cache is empty at each mount."""

    def __init__(self, args, directory, name):
        self.program = args.bin / "mount-oci"
        self.way = args.way
        self.directory = directory
        self.store = directory / f"store of {name}"

    def words(self, more="", cache="none"):
        return f"oci.insecure,oci.store={self.store},oci.cache_dir={cache},dev{more}"

    def run(self, image, more=""):
        """Mounts the image, and starts python3 in it; seconds from the first command to its end."""
        drop_caches()
        where = self.directory / "mnt"
        where.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.directory) as cache:
            begin = time.monotonic()
            with mounted(self.program, image, self.words(more, cache), self.way, where):
                run_in(where, PYTHON)
                seconds = time.monotonic() - begin
        return seconds

    def forget(self):
        shutil.rmtree(self.store, ignore_errors=True)

    def push(self, image, key):
        said = subprocess.run([self.program, "index", "--push", "--with-start-list", "--json",
                               "--sign-key", key, "-o", self.words().replace(",dev", ""), image],
                              check=True, capture_output=True).stdout
        return json.loads(said.splitlines()[-1])["indexes"]


def make_keys(directory):
    key, public = directory / "key", directory / "key.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    return key, f",oci.index=signed,oci.index_key={public}"


def measured(args, registry, run):
    """Requests, megabytes and seconds of what `run` does."""
    rows = []
    for _ in range(args.repeat):
        registry.reset()
        seconds = run()
        seen = registry.stats()
        rows.append((seen["requests"], seen["bytes"], seconds))
    return [statistics.median(column) for column in zip(*rows)]


@contextlib.contextmanager
def docker_registry(directory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = directory / "docker-registry.yml"
    config.write_text(json.dumps({
        "version": 0.1, "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "docker-registry")}},
        "http": {"addr": f"127.0.0.1:{port}"}}))
    process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def with_docker_registry(args, directory, layout, maker, user, key, words):
    with docker_registry(directory) as host:
        image = f"{host}/bench:latest"
        subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests",
                        "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{image}"],
                       check=True)
        maker.push(image, key)
        times = []
        for _ in range(args.repeat):
            user.forget()
            times.append(user.run(image, words))
            if not list(user.store.glob("claimed/*")):
                sys.exit("the index of docker-registry was not used")
    print(f"docker-registry, without latency: {statistics.median(times):.2f} s")


def main():
    parser = arguments(__doc__, repeat=5)
    parser.add_argument("--docker-registry", action="store_true")
    args = parser.parse_args()
    with bench_image(args) as (directory, layer, layout):
        key, words = make_keys(directory)
        maker, user = Machine(args, directory, "maker"), Machine(args, directory, "user")
        with server([args.bin / "oci-registry", layout], "http") as address:
            image = f"{Registry(address).host}/bench:latest"
            for _ in range(2):  # with the second one, the list begins at extra checkpoints
                maker.run(image)
        with slow_registry(args, layout, "--accept-pushes") as address:
            registry = Registry(address)
            image = f"{registry.host}/bench:latest"
            pushed = maker.push(image, key)  # it forgets what refers to what when it ends

            def first(more):
                user.forget()
                return user.run(image, more)

            rows = {
                "second mount": measured(args, registry, lambda: maker.run(image)),
                "first contact": measured(args, registry, lambda: first(words)),
                "without a list": measured(args, registry,
                                           lambda: first(words + ",oci.start_list=off")),
                "without an index": measured(args, registry, lambda: first(",oci.index=none")),
            }
        print(f"{conditions(args, layer)}, {args.repeat} of each")
        print("pushed: " + ", ".join(
            f"{kind} {part['size']} bytes" for part in pushed for kind in part
            if kind in ("index", "checkpoints", "start_list")))
        print("| | requests | MB | seconds |\n|---|---|---|---|")
        for what, (requests, fetched, seconds) in rows.items():
            print(f"| {what} | {requests:.0f} | {fetched / 1e6:.3f} | {seconds:.2f} |")
            if what != "without an index":
                note(args, f"python3 in an image: {what}", seconds, "s", "without an index",
                     rows["without an index"][2])
        if args.docker_registry:
            with_docker_registry(args, directory, layout, maker, user, key, words)
        parts = sum(part["size"] for part in pushed)
        most = MOST * rows["second mount"][1] + parts
        good = rows["first contact"][1] <= most
        print(f"first contact: {rows['first contact'][1] / 1e6:.3f} MB, at most {most / 1e6:.3f} MB are "
              f"promised: {'good' if good else 'TOO MUCH'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
