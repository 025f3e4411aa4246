# SPDX-License-Identifier: Apache-2.0
"""What the tests of oci-snapshotter share: images, a registry, the snapshotter, containerd, and clients
of both.

A program of tests runs in a mount and a PID namespace of its own, so that whatever ends it, the kernel
ends all that it has started and unmounts all that was mounted; and a containerd that this machine has
shares no directory with the tests' one. Timeouts are generous: they end what hangs, and decide nothing."""
import contextlib
import ctypes
import fcntl
import glob
import importlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

TOP = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(TOP / "tools"), str(TOP / "tests/integration/tool")]
import images  # noqa: E402
import make_layout  # noqa: E402

TOOL = os.environ["MOUNT_OCI"]
REGISTRY = os.path.join(os.path.dirname(TOOL), "oci-registry")
SNAPSHOTTER = os.environ["OCI_SNAPSHOTTER"]
BUSYBOX = "/bin/busybox"
CONTAINERD = ("containerd", "ctr", "runc", "openssl", BUSYBOX)
PATIENCE = 120  # seconds, for anything
PREFIX = "oci-snapshotter-test-"  # of directories
INSIDE = "SNAPSHOTTER_TEST_DIRECTORY"  # of a program, which its namespaces have been made for
FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
SERVICE = "/containerd.services.snapshots.v1.Snapshots/"


def skip_unless_possible(programs):
    if os.geteuid() != 0:
        skip("needs root")
    missing = [name for name in ("protoc", "unshare", *programs) if shutil.which(name) is None]
    try:
        import google.protobuf  # noqa: F401
        import grpc  # noqa: F401
    except ImportError as error:
        missing.append(str(error))
    subprocess.run("modprobe -aq overlay erofs fuse", shell=True, capture_output=True)
    with open("/proc/filesystems") as file:
        known = file.read().split()
    missing += [f"{name} in the kernel" for name in ("overlay", "erofs") if name not in known]
    if not os.path.exists("/dev/fuse"):
        missing.append("/dev/fuse")
    if missing:
        skip(f"lacks {', '.join(missing)}")
    tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        skip(f"cannot have namespaces: {tried.stderr.strip()}")


def skip(why):
    print("skipped:", why)
    sys.exit(77)


NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def main(*programs):
    """Runs the tests of this program, which need these other programs."""
    if INSIDE in os.environ:
        sys.exit(run_as_first_process())
    skip_unless_possible(programs)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory, lock = own_directory()
    try:
        # What is asked for here is on this machine: no proxy can answer.
        environment = {name: value for name, value in os.environ.items()
                       if not name.lower().endswith("_proxy")}
        done = subprocess.run([*NAMESPACES, sys.executable, "-B", *sys.argv],
                              env=environment | {INSIDE: directory}, preexec_fn=end_with_parent)
    finally:
        end = time.monotonic() + PATIENCE
        while os.path.exists(directory) and time.monotonic() < end:
            remove_all_of(directory)
            time.sleep(0.05)
        os.close(lock)
    sys.exit(done.returncode)


def own_directory():
    """A directory, and a lock on it for as long as this process lives. What an earlier program has left
    that was killed, is removed."""
    top = tempfile.gettempdir()
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    one_at_a_time = os.open(os.path.join(top, f"{PREFIX}lock"), flags, 0o600)
    try:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for left in glob.glob(os.path.join(top, f"{PREFIX}*", "")):
            place = left.rstrip("/")
            if os.path.islink(place) or os.stat(place).st_uid != os.geteuid():
                continue
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(BlockingIOError):  # its program lives
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_all_of(place)
            os.close(lock)
        directory = tempfile.mkdtemp(prefix=PREFIX)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return directory, lock
    finally:
        os.close(one_at_a_time)


def end_with_parent():
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run_as_first_process():
    os.makedirs("/run/containerd", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/containerd"], check=True)
    tests = os.fork()
    if tests == 0:
        unittest.main(verbosity=2)
    while True:  # orphans come to the first process
        process, status = os.wait()
        if process == tests:
            return os.waitstatus_to_exitcode(status)


def remove_all_of(directory):
    """Files and cgroups; everything else has gone with the namespaces."""
    name = os.path.basename(directory)
    for top in glob.glob(f"/sys/fs/cgroup/{name}") + glob.glob(f"/sys/fs/cgroup/*/{name}"):
        for place, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # busy: a process in it is still ending
                os.rmdir(place)
    shutil.rmtree(directory, ignore_errors=True)


def wait_for(condition, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.05)


def kill_all(processes):
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it has ended with another one
            os.kill(process, signal.SIGKILL)


def mounts_below(directory):
    with open("/proc/self/mountinfo") as lines:
        return [line.split()[4] for line in lines if line.split()[4].startswith(str(directory) + "/")]


def base_layer():
    layer = images.Layer()
    layer.dir("./").dir("bin").dir("proc").dir("sys").dir("dev").dir("etc").dir("tmp", mode=0o1777)
    with open(BUSYBOX, "rb") as program:
        layer.file("bin/busybox", program.read(), mode=0o755)
    for name in ("sh", "cat", "ls", "sleep", "sha256sum", "head", "dd"):
        layer.symlink(f"bin/{name}", "busybox")
    return layer


def noise(size, seed):
    return random.Random(seed).randbytes(size)


class Layout:
    """An OCI layout of several images."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory)
        (self.path / "blobs/sha256").mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.entries = []

    def layer(self, layer, name):
        """(descriptor, diffID)"""
        file = self.path.parent / name
        layer.save(str(file), True)
        return make_layout.put_layer(self.path, file, None)

    def image(self, tag, layers, diff_ids=None, command=FOREVER):
        config = make_layout.put_json(self.path, {
            "architecture": "amd64", "os": "linux", "config": {"Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [one for _, one in layers]}})
        manifest = make_layout.put_json(self.path, {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [descriptor for descriptor, _ in layers]})
        self.entries.append(manifest | {"annotations": {
            make_layout.REF_NAME: tag, "io.containerd.image.name": f"example.com/{tag}:1"}})
        (self.path / "index.json").write_text(json.dumps(
            {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
             "manifests": self.entries}))
        return manifest["digest"]


class Service:
    """A client of the snapshots service."""

    def __init__(self, address):
        import grpc
        self.grpc = grpc
        self.api = importlib.import_module(
            "github.com.containerd.containerd.api.services.snapshots.v1.snapshots_pb2".replace(
                "github.com", "github_com"))
        self.empty = importlib.import_module("google.protobuf.empty_pb2").Empty
        self.channel = grpc.insecure_channel(f"unix:{address}")

    def call(self, method_name, answer, /, **fields):
        request_type = getattr(self.api, {
            "List": "ListSnapshotsRequest", "Mounts": "MountsRequest", "Usage": "UsageRequest",
            "Cleanup": "CleanupRequest"}.get(method_name, f"{method_name}SnapshotRequest"))
        make = self.channel.unary_stream if method_name == "List" else self.channel.unary_unary
        method = make(SERVICE + method_name, request_serializer=request_type.SerializeToString,
                      response_deserializer=answer.FromString)
        return method(request_type(**fields), timeout=PATIENCE)

    def prepare(self, key, parent="", labels=None):
        return self.call("Prepare", self.api.PrepareSnapshotResponse, key=key, parent=parent,
                         labels=labels or {}).mounts

    def view(self, key, parent="", labels=None):
        return self.call("View", self.api.ViewSnapshotResponse, key=key, parent=parent,
                         labels=labels or {}).mounts

    def mounts(self, key):
        return self.call("Mounts", self.api.MountsResponse, key=key).mounts

    def commit(self, name, key, labels=None):
        self.call("Commit", self.empty, name=name, key=key, labels=labels or {})

    def remove(self, key):
        self.call("Remove", self.empty, key=key)

    def stat(self, key):
        return self.call("Stat", self.api.StatSnapshotResponse, key=key).info

    def update(self, info, *paths):
        from google.protobuf.field_mask_pb2 import FieldMask
        return self.call("Update", self.api.UpdateSnapshotResponse, info=info,
                         update_mask=FieldMask(paths=paths)).info

    def list(self, *filters):
        blocks = list(self.call("List", self.api.ListSnapshotsResponse, filters=filters))
        return [info for block in blocks for info in block.info]

    def usage(self, key):
        return self.call("Usage", self.api.UsageResponse, key=key)

    def cleanup(self):
        self.call("Cleanup", self.empty)


class Cluster(unittest.TestCase):
    """A directory with a snapshotter; and, if the test wants them, a registry and containerd."""

    WORDS = []
    CONFIG = "[lazy]\ntimeout = 60"
    MOUNT_TIMEOUT = 110
    ATTACH = "auto"
    WRAPPER = []  # before the snapshotter's command line
    OF_IMAGES = "oci"  # the snapshotter that CRI uses
    CONTAINERD_CONFIG = ""  # more tables of its configuration

    @classmethod
    def setUpClass(cls):
        cls.protos = pathlib.Path(tempfile.mkdtemp(dir=os.environ[INSIDE]))
        cls.addClassCleanup(shutil.rmtree, cls.protos)
        # A package github.com would be two, one in the other.
        source = pathlib.Path(os.environ["SNAPSHOTS_PROTO"])
        for proto in source.rglob("*.proto"):
            copy = cls.protos / str(proto.relative_to(source)).replace("github.com", "github_com")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(proto.read_text().replace('"github.com/', '"github_com/'))
        shutil.copy(pathlib.Path(__file__).parent / "cri.proto", cls.protos)
        files = [str(file.relative_to(cls.protos)) for file in cls.protos.rglob("*.proto")]
        subprocess.run(["protoc", "--python_out=.", "-I.", *files], cwd=cls.protos, check=True)
        sys.path.insert(0, str(cls.protos))
        cls.addClassCleanup(sys.path.remove, str(cls.protos))

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=os.environ[INSIDE]))
        for place in (self.dir, self.dir.parent):
            place.chmod(0o711)  # the root of a user namespace goes through them
        self.addCleanup(self.clear)
        self.address = self.dir / "snapshotter.sock"
        self.root = self.dir / "root"

    def run(self, result=None):
        self.result = result
        return super().run(result)

    def clear(self):
        """After all processes that were started by start() have ended."""
        if any(test is self for test, _ in self.result.failures + self.result.errors):
            for log in sorted(self.dir.glob("*.log")):
                print(f"---- {log.name} of {self.id()}", log.read_text()[-20000:], sep="\n",
                      file=sys.stderr)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([TOOL, "umount", "--all", "--journal", self.dir / "journal"],
                           capture_output=True, timeout=PATIENCE)
        kill_all(self.processes_of(str(self.dir)))
        for place in reversed(mounts_below(self.dir)):
            subprocess.run(["umount", "-l", place], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    @staticmethod
    def processes_of(text):
        """Processes with this text in their command line: containerd's shims, mounts' servers."""
        found = []
        for name in os.listdir("/proc"):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if name.isdigit() and int(name) != os.getpid() and text.encode() in file.read():
                        found.append(int(name))
            except OSError:
                continue
        return found

    def start(self, *command, log, **options):
        with open(self.dir / log, "ab") as file:
            process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file,
                                       stdin=subprocess.DEVNULL, **options)
        self.addCleanup(lambda: (process.kill(), process.wait()))
        return process

    def said(self, log):
        return (self.dir / log).read_text()

    # ------------------------------------------------------------ the snapshotter

    def start_snapshotter(self, ready=True):
        words = json.dumps(["oci.insecure", f"oci.store={self.dir}/store", *self.WORDS])
        (self.dir / "config.toml").write_text(
            f'root = "{self.root}"\naddress = "{self.address}"\n{self.CONFIG}\n[mount]\n'
            f'program = "{TOOL}"\nattach = "{self.ATTACH}"\noptions = {words}\n'
            f'journal = "{self.dir}/journal"\n'
            f'unmount_after = 1\ntimeout = {self.MOUNT_TIMEOUT}\n')
        log = self.dir / "snapshotter.log"
        before = log.read_text().count(": serves ") if log.exists() else 0
        self.snapshotter = self.start(*self.WRAPPER, SNAPSHOTTER, "--config", self.dir / "config.toml",
                                      log="snapshotter.log")
        if ready:
            wait_for(lambda: self.said("snapshotter.log").count(": serves ") > before or
                     self.snapshotter.poll() is not None, "the snapshotter")
            self.service = Service(self.address)
            wait_for(self.is_serving, "the snapshotter")

    def is_serving(self):
        try:
            self.service.list()
            return True
        except self.service.grpc.RpcError:
            self.assertIsNone(self.snapshotter.poll(), self.said("snapshotter.log"))
            return False

    def kill_snapshotter(self, number=signal.SIGKILL):
        self.snapshotter.send_signal(number)
        status = self.snapshotter.wait(PATIENCE)
        self.service.channel.close()
        return status

    def refused(self, code, call, *arguments, **fields):
        """The text of an error."""
        with self.assertRaises(self.service.grpc.RpcError) as caught:
            call(*arguments, **fields)
        self.assertEqual(caught.exception.code().name, code, caught.exception.details())
        return caught.exception.details()

    # ------------------------------------------------------------ a registry

    def start_registry(self, layout):
        self.run_registry("--accept-pushes", layout)

    def run_registry(self, *words):
        process = subprocess.Popen([REGISTRY, *words], stdout=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (process.kill(), process.communicate()))
        self.registry = process
        self.host = process.stdout.readline().strip().split("://", 1)[1]

    def fetched(self):
        with urllib.request.urlopen(f"http://{self.host}/_stats") as answer:
            return json.load(answer)["bytes"]

    # ------------------------------------------------------------ containerd

    @staticmethod
    def containerd_version():
        """(major, minor, patch)"""
        said = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True)
        return tuple(int(part) for part in re.search(r" v?(\d+)\.(\d+)\.(\d+)", said.stdout).groups())

    def settings(self):
        """What the doctor says that this containerd's configuration is to have."""
        empty = self.dir / "empty.toml"
        empty.write_text("")
        done = subprocess.run([SNAPSHOTTER, "--config", self.dir / "config.toml", "doctor", "--json",
                               "--containerd-config", empty], capture_output=True, text=True,
                              timeout=PATIENCE)
        self.assertEqual(done.returncode, 1, done.stderr)
        plugin, = [one for one in json.loads(done.stdout)["checks"] if one["check"] == "plugin"]
        return plugin["advice"].partition("\n")[2]

    def configuration(self, sandbox):
        """Of containerd: in a directory of the test, and without what Kubernetes would add."""
        version, _, settings = self.settings().partition("\n")
        settings = settings.replace('snapshotter = "oci"', f'snapshotter = "{self.OF_IMAGES}"')
        if self.containerd_version() < (2,):
            images = runtime = "io.containerd.grpc.v1.cri"
            sandbox_image = f'sandbox_image = "{sandbox}"'
        else:
            images, runtime = "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"
            sandbox_image = f'[plugins."{images}".pinned_images]\n  sandbox = "{sandbox}"'
        programs = f'bin_dir = "{self.dir}/cni/bin"'
        if self.containerd_version() >= (2, 1):
            programs = f'bin_dirs = ["{self.dir}/cni/bin"]'
        return f"""{version}
root = "{self.dir}/containerd"
state = "{self.dir}/state"
[grpc]
  address = "{self.dir}/containerd.sock"
{settings}
{self.CONTAINERD_CONFIG}
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.dir}/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."{runtime}"]
  restrict_oom_score_adj = true
{sandbox_image}
[plugins."{runtime}".cni]
  {programs}
  conf_dir = "{self.dir}/cni/conf"
"""

    def start_containerd(self, sandbox=""):
        self.network()
        (self.dir / "containerd.toml").write_text(self.configuration(sandbox))
        self.containerd = self.start("containerd", "-c", self.dir / "containerd.toml",
                                     log="containerd.log")
        import grpc
        self.cri_api = importlib.import_module("cri_pb2")
        self.channel = grpc.insecure_channel(f"unix:{self.dir}/containerd.sock",
                                             options=[("grpc.default_authority", "localhost")])
        wait_for(lambda: self.ctr("version", check=False).returncode == 0, "containerd")
        wait_for(lambda: "cri" in self.ctr("plugins", "ls", "id==cri").stdout, "CRI")

    def ctr(self, *words, check=True, namespace="default"):
        done = subprocess.run(["ctr", "-a", self.dir / "containerd.sock", "-n", namespace,
                               *[str(word) for word in words]], capture_output=True, text=True,
                              timeout=PATIENCE)
        if check:
            self.assertEqual(done.returncode, 0, (words, done.stderr, self.said("snapshotter.log")))
        return done

    def cri(self, method, answer, **fields):
        service = "ImageService" if "Image" in method else "RuntimeService"
        request = getattr(self.cri_api, f"{method}Request")
        call = self.channel.unary_unary(f"/runtime.v1.{service}/{method}",
                                        request_serializer=request.SerializeToString,
                                        response_deserializer=answer.FromString)
        return call(request(**fields), timeout=PATIENCE)

    def pull(self, name):
        image = self.cri_api.ImageSpec(image=f"{self.host}/t/{name}:{name}")
        return self.cri("PullImage", self.cri_api.PullImageResponse, image=image)

    def remove_image(self, name):
        image = self.cri_api.ImageSpec(image=f"{self.host}/t/{name}:{name}")
        self.cri("RemoveImage", self.cri_api.RemoveImageResponse, image=image)

    def network(self):
        """For pods that have a network of their own: a plugin that makes none."""
        place = self.dir / "cni/bin"
        conf = self.dir / "cni/conf"
        for one in (place, conf):
            one.mkdir(parents=True, exist_ok=True)
        for name in ("stub", "loopback"):
            (place / name).write_text('#!/bin/sh\necho \'{"cniVersion": "0.4.0", "ips": '
                                      '[{"version": "4", "address": "10.9.8.7/24"}]}\'\n')
            (place / name).chmod(0o755)
        (conf / "1.conflist").write_text(json.dumps(
            {"cniVersion": "0.4.0", "name": "stub", "plugins": [{"type": "stub"}]}))

    def start_pod(self, name, **more):
        api = self.cri_api
        namespaces = api.NamespaceOption(**{"network": api.NODE, "pid": api.CONTAINER,
                                            "ipc": api.POD} | more)
        config = api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(name=name, uid=name, namespace="default"),
            log_directory=str(self.dir / "logs"),
            linux=api.LinuxPodSandboxConfig(
                cgroup_parent=f"/{os.path.basename(os.environ[INSIDE])}",
                security_context=api.LinuxSandboxSecurityContext(namespace_options=namespaces)))
        pod = self.cri("RunPodSandbox", api.RunPodSandboxResponse, config=config).pod_sandbox_id
        self.addCleanup(self.remove_pod, pod, quiet=True)
        return pod, config, namespaces

    def start_container(self, pod, image, command=FOREVER, name="c"):
        api = self.cri_api
        sandbox, config, namespaces = pod
        container = self.cri(
            "CreateContainer", api.CreateContainerResponse, pod_sandbox_id=sandbox,
            sandbox_config=config, config=api.ContainerConfig(
                metadata=api.ContainerMetadata(name=name), command=command,
                image=api.ImageSpec(image=f"{self.host}/t/{image}:{image}"), log_path="log",
                linux=api.LinuxContainerConfig(security_context=api.LinuxContainerSecurityContext(
                    namespace_options=namespaces)))).container_id
        self.cri("StartContainer", api.StartContainerResponse, container_id=container)
        return container

    def execute(self, container, *command):
        done = self.cri("ExecSync", self.cri_api.ExecSyncResponse, container_id=container,
                        cmd=command, timeout=PATIENCE - 10)
        self.assertEqual((done.exit_code, done.stderr), (0, b""), command)
        return done.stdout.decode()

    def remove_pod(self, pod, quiet=False):
        import grpc
        try:
            self.cri("StopPodSandbox", self.cri_api.StopPodSandboxResponse, pod_sandbox_id=pod)
            self.cri("RemovePodSandbox", self.cri_api.RemovePodSandboxResponse, pod_sandbox_id=pod)
        except grpc.RpcError:
            if not quiet:
                raise
