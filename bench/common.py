"""What benches have alike: their options, a layer, its registry, mounts of it, and a table of results."""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

TOP = pathlib.Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def server(command, prefix):
    """Runs a command that prints its address when ready and ends on SIGTERM."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline().strip()
        if prefix not in line:
            sys.exit(f"{command[1]} did not start: {line!r}")
        yield line[line.index(prefix):].split()[0]
    finally:
        process.terminate()
        process.wait(timeout=30)


class Registry:
    def __init__(self, address):
        self.url = address if address.startswith("http") else "http://" + address
        self.host = self.url.split("//")[1].rstrip("/")

    def stats(self):
        with urllib.request.urlopen(f"{self.url}/_stats") as answer:
            return json.load(answer)

    def reset(self):
        request = urllib.request.Request(f"{self.url}/_stats/reset", method="POST")
        urllib.request.urlopen(request).close()


def seconds(command):
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def make_layer(directory):
    """A gzipped tar of a small Debian, the same for the same packages."""
    if shutil.which("mmdebstrap") is None:
        sys.exit("no mmdebstrap, and no --layer")
    tar = directory / "layer.tar"
    # From where this machine's packages come.
    sources = [*pathlib.Path("/etc/apt/sources.list.d").glob("debian.sources"),
               *pathlib.Path("/etc/apt").glob("sources.list")]
    subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", "--include=python3-minimal",
                    "--aptopt=Acquire::Check-Valid-Until \"false\"", "bookworm", tar, *sources[:1]],
                   check=True)
    subprocess.run(["gzip", "-6", "-n", tar], check=True)
    return directory / "layer.tar.gz"


def plain_arguments(description, repeat):
    """The options of all benches."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--layer", type=pathlib.Path,
                        help="a tar.gz; default: a small Debian, by mmdebstrap")
    parser.add_argument("--bin", type=pathlib.Path, default=TOP / "build/bin")
    parser.add_argument("--repeat", type=int, default=repeat)
    parser.add_argument("--report", type=pathlib.Path, help="where rows for bench/run go")
    return parser


def arguments(description, repeat, way=""):
    """The options of benches that use an image from a slow registry."""
    parser = plain_arguments(description, repeat)
    parser.add_argument("--latency", default="30", help="milliseconds")
    parser.add_argument("--bandwidth", default="12500000", help="bytes a second")
    parser.add_argument("--way", default=way)
    return parser


@contextlib.contextmanager
def bench_image(args):
    """A directory that goes afterwards, the image's layer, and its layout, which has the tag `latest`. Ends
    the program unless root runs it."""
    if os.geteuid() != 0:
        sys.exit("needs root")
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        directory = pathlib.Path(name)
        layer = args.layer or make_layer(directory)
        layout = directory / "layout"
        subprocess.run([TOP / "tools/make_layout.py", layer, layout, "--tag", "latest"], check=True,
                       stdout=subprocess.DEVNULL)
        yield directory, layer, layout


def erofs_utils_index(args, layout, directory):
    """A tarindex and a zinfo of the image's layer, in files as erofs-utils makes them."""
    made = f"{directory}/files"
    subprocess.run([args.bin / "mount-oci", "index", "--output", made, "-o", "oci.store=none",
                    f"oci:{layout}:latest"], check=True, stdout=subprocess.DEVNULL)
    tarindex, = pathlib.Path(made).glob("*.erofs")
    zinfo, = pathlib.Path(made).glob("*.zinfo")
    return tarindex, zinfo


def slow_registry(args, layout, *options):
    """server() of oci-registry, as far away as `args` say."""
    return server([args.bin / "oci-registry", *options, "--latency", args.latency, "--bandwidth",
                   args.bandwidth, layout], "http")


def conditions(args, layer):
    return (f"layer of {layer.stat().st_size / 1e6:.2f} MB, {args.latency} ms, "
            f"{int(args.bandwidth) / 1e6:.1f} MB/s for each answer, {args.way or 'the best way here'}")


def run_in(where, command):
    """Runs a command in a mounted image."""
    done = subprocess.run([shutil.which("chroot"), where, *command], capture_output=True, timeout=300,
                          env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr.decode()[-500:]}")


@contextlib.contextmanager
def mounted(program, image, words, way, where):
    command = [program, "mount", "-o", words, image, where]
    if way:
        command[2:2] = ["--attach", way]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([program, "umount", where], check=True, stdout=subprocess.DEVNULL)


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def note(args, what, value, unit, against="", other=None):
    """Adds a row to the table of bench/run: what was measured, and what for comparison in the same run."""
    if args.report:
        with open(args.report, "a") as report:
            report.write(json.dumps({"what": what, "value": value, "unit": unit, "against": against,
                                     "other": other}) + "\n")
