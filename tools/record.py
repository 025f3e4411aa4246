#!/usr/bin/env python3
"""Records a real run of mount-oci against a registry on this machine, as an animated picture for README.md.

usage: tools/record.py            writes doc/recording.svg; needs root, FUSE or NBD, ip(8), and build/bin, which
                                  ./run makes
       tools/record.py --check    whether that picture shows these commands, and no path of some machine

What is shown is what is run and what it prints. The run has namespaces of its own: mounts, where /etc has the
name of the registry and /run and /var are empty, a network with nothing but this machine, and processes.
"""
import html
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

TOP = pathlib.Path(__file__).resolve().parent.parent
PICTURE = TOP / "doc/recording.svg"
COMMANDS = [
    "mount-oci registry.example.com/app /mnt        # an image without an index: each layer is read once",
    "cat /mnt/srv/hello.txt",
    "find /mnt -type f | wc -l",
    "mount-oci status /mnt | grep served",
    "pkill -9 -u 65123 mount-oci                    # kills the worker, which reads the image",
    "cat /mnt/usr/share/common-licenses/LICENSE",
    "mount-oci status /mnt | grep served",
    "mount-oci umount /mnt && mount-oci registry.example.com/app /mnt   # again: nothing to index",
    "mount-oci umount /mnt",
]
COLUMNS, LINE, CHARACTER, MARGIN = 104, 19, 8.43, 14  # characters, and pixels
TYPING, LONGEST, READING = 1.2, 4.0, 1.0  # seconds: a command before it runs, how long it may, behind it


def in_namespaces(folder):
    """What runs before the commands: an image, a registry that has it, and directories of this run alone."""
    (folder / "etc").mkdir()
    subprocess.run([TOP / "tools/demo_image.sh", folder], check=True)
    subprocess.run(["cp", "-a", "/etc/.", folder / "etc"], check=True)
    (folder / "etc/hosts").write_text("127.0.0.1 localhost registry.example.com\n")
    (folder / "etc/mount-oci.conf").write_text("oci.insecure = true\n")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    registry = subprocess.Popen([TOP / "build/bin/oci-registry", "--listen", "127.0.0.1:80", folder / "layout"],
                                stdout=subprocess.PIPE)
    registry.stdout.readline()
    subprocess.run(["mount", "--bind", folder / "etc", "/etc"], check=True)
    for place in ("/run", "/var/lib", "/var/cache"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", place], check=True)
    return registry


def record():
    """For each command what it printed, and the seconds that it took."""
    environment = {"PATH": f"{TOP}/build/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    for command in COMMANDS:
        begin = time.monotonic()
        done = subprocess.run(["bash", "-c", command], env=environment, stdin=subprocess.DEVNULL, cwd="/", text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            sys.exit(f"{command}: status {done.returncode}: {done.stdout}")
        yield command, done.stdout.splitlines(), time.monotonic() - begin


def picture(steps):
    """An SVG in which each line appears when it was there, in seconds; all of them where nothing moves."""
    lines, now = [], 0.5
    for command, printed, took in steps:
        lines.append((now, "c", "# " + command))
        now += TYPING + min(took, LONGEST)
        lines += [(now, "o", text) for text in printed]
        now += READING
    width, height = round(COLUMNS * CHARACTER + 2 * MARGIN), len(lines) * LINE + 2 * MARGIN
    text = "\n".join(
        f'<text class="{kind}" x="{MARGIN}" y="{MARGIN + LINE * number + 14}" style="animation-duration:{at:.2f}s">'
        f"{html.escape(line[:COLUMNS])}</text>" for number, (at, kind, line) in enumerate(lines))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<style>
text {{ font: 14px monospace; white-space: pre; animation-name: wait; animation-timing-function: step-end; }}
.c {{ fill: #fff; font-weight: bold; }} .o {{ fill: #b8c4cc; }}
@keyframes wait {{ from {{ opacity: 0; }} }}
@media (prefers-reduced-motion) {{ text {{ animation: none; }} }}
</style>
<rect width="100%" height="100%" rx="6" fill="#1e2529"/>
{text}
</svg>
"""


def faults():
    texts = [(element.get("class"), element.text or "")
             for element in xml.etree.ElementTree.parse(PICTURE).iter("{http://www.w3.org/2000/svg}text")]
    if [text for kind, text in texts if kind == "c"] != [("# " + command)[:COLUMNS] for command in COMMANDS]:
        yield "it shows other commands than tools/record.py runs: run that again"
    for _, text in texts:
        if any(part in text for part in ("/tmp", "/home", "/root/", str(TOP))):
            yield f"a path of some machine: {text}"


def main():
    if sys.argv[1:] == ["--check"]:
        found = list(faults())
        print("\n".join(f"{PICTURE.name}: {fault}" for fault in found))
        return 1 if found else 0
    if "RECORD_INSIDE" not in os.environ:
        return subprocess.run(["unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork",
                               "--kill-child", "--mount-proc", sys.executable, __file__],
                              env=os.environ | {"RECORD_INSIDE": "1"}).returncode
    with tempfile.TemporaryDirectory(dir=TOP / "build") as folder:
        registry = in_namespaces(pathlib.Path(folder))
        PICTURE.write_text(picture(record()))
        registry.kill()
        subprocess.run(["umount", "-l", "/etc"], check=True)
    print(f"{PICTURE.relative_to(TOP)} is written")
    return next((1 for _ in faults()), 0)


if __name__ == "__main__":
    sys.exit(main())
