# SPDX-License-Identifier: Apache-2.0
"""Every world (logins, TLS, mirrors and networks as they are) with every form in which a layer can be
read: a table of what `mount-oci cat` does, which is the file's bytes, or an error that names host and
cause within the deadline. docker-registry and nginx are Debian's; each cell runs."""
import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import images
import servers
import ztoc
from servers import free_port
from support import TOOL, UNPROVED, make_layout, read

USER, PASSWORD = "reader", "a pass, word"
TIMEOUT = 4  # seconds, oci.timeout where it is waited for
SLACK = 20  # seconds more, for what else a command does on a machine that is busy
FILE = b"".join(b"line %d %s\n" % (i, images.noise(6, b"%d" % i).hex().encode())
                for i in range(200_000))  # two spans once decoded
SMALL = images.noise(3000)


# ---------------------------------------------------------------- what may come of a cell

@dataclasses.dataclass(frozen=True)
class Right:
    """The file's bytes."""

    def judge(self, cell):
        assert cell.status == 0 and cell.output == FILE, f"{cell.status}: {cell.errors}"


@dataclasses.dataclass(frozen=True)
class Refused:
    """An error that names the host and the cause, and no wrong byte."""
    host: str
    cause: str

    def judge(self, cell):
        assert cell.status != 0, "it succeeds"
        assert FILE.startswith(cell.output), "wrong bytes"
        for part in (re.escape(self.host), self.cause):
            assert re.search(part, cell.errors), f"nothing of {part}: {cell.errors}"


@dataclasses.dataclass(frozen=True)
class Unproved:
    """Any bytes or an error: the warning has said so."""

    def judge(self, cell):
        assert re.search(UNPROVED, cell.errors), cell.errors


@dataclasses.dataclass(frozen=True)
class Cell:
    status: int
    output: bytes
    errors: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class World:
    """Where the image is, the words of -o for it, and what comes of each form."""
    place: str  # the image without its tag
    outcome: object
    words: str = ""
    timeout: int = 0  # seconds, oci.timeout; 0: enough for what comes out right, TIMEOUT for the rest
    but: dict = dataclasses.field(default_factory=dict)  # outcomes of single forms

    @property
    def deadline(self):
        return self.timeout or (30 if isinstance(self.outcome, Right) else TIMEOUT)


# ---------------------------------------------------------------- forms
#
# The tag of the image, and the words of -o. {own} is a directory with the files of one's own, {full} a
# store that has the index of every layer, {empty} a store that is empty and the cell's alone.

FORMS = {
    "index on the fly": ("gz", "oci.store={empty}"),
    "stored index": ("gz", "oci.store={full}"),
    "SOCI index": ("soci", "oci.store={empty},oci.index=bound"),
    "tarindex, zinfo": ("gz", "oci.store=none,oci.layer=0,oci.tarindex={own}/gz.erofs,"
                              "oci.zinfo={own}/gz.zinfo"),
    "tarindex, zinfo, stored index": ("gz", "oci.store={full},oci.layer=0,"
                                            "oci.tarindex={own}/gz.erofs,oci.zinfo={own}/gz.zinfo"),
    "tarindex": ("tar", "oci.store=none,oci.layer=0,oci.tarindex={own}/tar.erofs"),
    "plain tar, stored index": ("tar", "oci.store={full}"),
    "EROFS image": ("erofs", "oci.store=none,oci.native=yes"),
}
OWN = ("tarindex, zinfo", "tarindex", "EROFS image")  # no digests of spans
READS = {"SOCI index": 2}  # one after the other, each of which has its time: else the layer is read


def forms_with(outcome, *names):
    return {name: outcome for name in names}


class WorldsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        for program in ("docker-registry", "nginx", "openssl", "mkfs.erofs"):
            if shutil.which(program) is None:
                raise unittest.SkipTest(f"{program} is not installed")
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="worlds-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        cls.dir.chmod(0o755)  # for the user that reads for root
        cls.make_images()
        cls.start_registries()
        cls.start_nginx()

    # ---- images

    @classmethod
    def make_images(cls):
        """One image in four formats, and of each what a form needs."""
        cls.own, cls.full, cls.layout = cls.dir / "own", cls.dir / "full", cls.dir / "layout"
        bottom = images.Layer().dir("data").file("data/file", FILE).file("data/small", SMALL)
        top = images.Layer().file("etc", b"of another layer")
        layers = {"gz": [bottom.save(cls.dir / "gz"), top.save(cls.dir / "top")],
                  "tar": [bottom.save(cls.dir / "tar", packed=False)]}
        folder = cls.dir / "folder" / "data"
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(FILE)
        servers.run("mkfs.erofs", "--quiet", cls.dir / "erofs", folder.parent)
        for tag, paths in layers.items():
            make_layout.make_layout(paths, cls.layout, tag=tag)
            for path in paths:
                servers.run(TOOL, "index", "-o", "oci.store=none", "--output", cls.own, path)
            servers.run(TOOL, "index", "-o", f"oci.store={cls.full},oci.platform=linux/amd64",
                        f"oci:{cls.layout}:{tag}")
        make_layout.make_layout([cls.dir / "erofs"], cls.layout, tag="erofs",
                                media_type="application/vnd.erofs")
        soci = cls.dir / "soci"
        make_layout.make_layout(layers["gz"], soci, tag="soci")
        ztoc.add_soci_index(soci, 2, [
            ztoc.make_ztoc(read(path), read(cls.own / f"{pathlib.Path(path).name}.zinfo"))
            for path in layers["gz"]])
        for blob in (soci / "blobs/sha256").iterdir():
            shutil.copy(blob, cls.layout / "blobs/sha256")
        top = cls.layout / "index.json"
        entries = make_layout.json.loads(top.read_text())
        entries["manifests"] += make_layout.json.loads((soci / "index.json").read_text())["manifests"]
        top.write_text(make_layout.json.dumps(entries))
        cls.large = {path.name for path in (cls.layout / "blobs/sha256").iterdir()
                     if path.stat().st_size > 1_000_000}
        assert len(cls.large) == 3, cls.large

    @classmethod
    def damaged(cls, name):
        """A copy of the layout with one bit flipped in the middle of each large layer."""
        place = cls.dir / name
        shutil.copytree(cls.layout, place)
        for blob in cls.large:
            data = bytearray(read(place / "blobs/sha256" / blob))
            data[len(data) // 2] ^= 16
            (place / "blobs/sha256" / blob).write_bytes(data)
        return place

    # ---- servers

    @classmethod
    def start_registries(cls):
        data = cls.dir / "data"
        cls.authority = servers.Authority(cls.dir)
        cls.stranger = servers.Authority(cls.dir, "stranger")
        cls.tokens = servers.TokenServer(cls, cls.authority, PASSWORD)
        cls.open = servers.docker_registry(cls, cls.dir, "open", data)
        servers.push(cls.layout, f"http://127.0.0.1:{cls.open}", "app")
        cert, key = cls.authority.issue("registry")
        cls.login = servers.docker_registry(
            cls, cls.dir, "login", data, f", tls: {{certificate: {cert}, key: {key}}}",
            cls.tokens.settings())

    @classmethod
    def start_nginx(cls):
        """A server for each world that the registry alone does not make; `ports` by their names."""
        cls.ports, blocks = {}, []
        blobs = cls.damaged("flipped") / "blobs/sha256"
        good = cls.authority.issue("nginx")
        cls.ports["second"] = free_port()
        cls.dead = free_port()
        back = f"proxy_pass http://127.0.0.1:{cls.open};"
        blob = "location ~ ^/v2/app/blobs/sha256:(.*)$"
        away = "127.0.0.1:%d$request_uri"

        def server(name, inside, certificate=None, more=""):
            port = cls.ports.setdefault(name, free_port())
            tls = "" if certificate is None else \
                f"ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]};"
            blocks.append(f"  server {{ listen 127.0.0.1:{port}{' ssl' if tls else ''}; {tls} {more}\n"
                          f"    {inside} }}")

        # As a store of objects: it answers nobody who shows the registry's secrets.
        server("second", f"if ($http_authorization) {{ return 400; }} location / {{ {back} }}")
        all_back = f"location / {{ {back} }}"
        server("right", all_back, good)
        server("other name", all_back, cls.authority.issue("other", "localhost", "DNS:other.test"))
        server("no name", all_back, cls.authority.issue("none", "localhost", ""))
        server("expired", all_back, cls.authority.issue("expired", expired=True))
        server("stranger", all_back, cls.stranger.issue("stranger"))
        server("old TLS", all_back, good, "ssl_protocols TLSv1 TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0;")
        server("to http", f"return 302 http://{away % cls.open};", good)
        server("blobs to http", f"{blob} {{ return 307 http://{away % cls.open}; }} {all_back}", good)
        server("blobs to second",
               f"{blob} {{ return 307 http://{away % cls.ports['second']}; }} {all_back}")
        server("blobs to dead", f"{blob} {{ return 307 http://{away % cls.dead}; }} {all_back}")
        server("no ranges", f"{blob} {{ proxy_set_header Range ''; max_ranges 0; {back} }} {all_back}")
        server("slow", f"{blob} {{ limit_rate 4m; {back} }} {all_back}")
        server("drips", f"{blob} {{ limit_rate 200; {back} }} {all_back}")
        server("blobs 502", f"{blob} {{ return 502; }} {all_back}")
        server("blobs 403", f"{blob} {{ return 403; }} {all_back}")
        server("busy", f"{blob} {{ add_header Retry-After 3600 always; return 429; }} {all_back}")
        server("404", "return 404;")
        server("flipped", f"{blob} {{ alias {blobs}/$1; }} {all_back}")
        servers.nginx(cls, cls.dir, "\n".join(reversed(blocks)))

        silent = socket.create_server(("127.0.0.1", 0))
        cls.addClassCleanup(silent.close)
        cls.silent = silent.getsockname()[1]  # accepts, and never says anything

    # ---- the table

    def worlds(self):
        at = lambda name: f"localhost:{self.ports[name]}"
        plain, ca = "oci.insecure=1", f"oci.ca={self.authority.cert}"
        pin = f"localhost:{self.login}"
        (self.dir / "password").write_text(PASSWORD + "\n")
        (self.dir / "password").chmod(0o600)
        (self.dir / "wrong").write_text("nope\n")
        (self.dir / "wrong").chmod(0o600)
        user = lambda name, file="password": \
            f"{ca},oci.username={name},oci.password_file={self.dir}/{file}"
        right, dead = Right(), f"localhost:{self.dead}"
        unproved = forms_with(Unproved(), *OWN)

        def before(*hosts, timeout=0):
            """A hosts.toml for a registry of its own: these first, then the one that is right."""
            number = len(list((self.dir / "hosts").glob("*")))
            name = f"world{number}.test"
            folder = self.dir / "hosts" / name
            folder.mkdir(parents=True)
            folder.joinpath("hosts.toml").write_text(
                f'server = "http://127.0.0.1:{self.open}"\n' +
                "".join(f'[host."http://{host}"]\n' for host in hosts))
            return World(f"{name}/app", right, f"oci.hosts={self.dir}/hosts", timeout)

        (self.dir / "hosts").mkdir()
        return {
            # What is said of docker-registry itself, with TLS and a token server.
            "tokens": World(f"{pin}/app", right, user(USER)),
            "wrong password": World(f"{pin}/app", Refused(pin, "not authorized"), user(USER, "wrong")),
            "nobody": World(f"{pin}/app", Refused(pin, "not authorized"), ca),
            "token for another repository": World(f"{pin}/app", Refused(pin, "not authorized"),
                                                  user("other")),
            "forged token": World(f"{pin}/app", Refused(pin, "not authorized"), user("forger")),
            "token server that says nothing": World(
                f"{pin}/app", Refused(self.tokens.host, "timed out|deadline"), user("hung")),
            "token server that hangs up": World(
                f"{pin}/app", Refused(self.tokens.host, "connection broke"), user("cut")),
            "portal in place of a token": World(
                f"{pin}/app", Refused(self.tokens.host, "token"), user("portal")),
            # TLS.
            "right authority": World(f"{at('right')}/app", right, ca),
            "unknown authority": World(f"{at('stranger')}/app",
                                       Refused(at("stranger"), "certificate"), ca),
            "authority of the system alone": World(f"{at('right')}/app",
                                                   Refused(at("right"), "certificate")),
            "certificate for another host": World(
                f"{at('other name')}/app", Refused(at("other name"), "certificate"), ca),
            "certificate without names": World(
                f"{at('no name')}/app", Refused(at("no name"), "certificate"), ca),
            "expired certificate": World(
                f"{at('expired')}/app", Refused(at("expired"), "certificate"), ca),
            "TLS 1.0 and 1.1 alone": World(f"{at('old TLS')}/app", Refused(at("old TLS"), "TLS.*version"), ca),
            "http where https is due": World(f"localhost:{self.open}/app",
                                             Refused(f"localhost:{self.open}", "speak TLS.*oci.insecure"), ca),
            "redirect to http": World(f"{at('to http')}/app", Refused(at("to http"), "http"), ca),
            "blobs redirected to http": World(
                f"{at('blobs to http')}/app", Refused(at("blobs to http"), "http"), ca),
            # Networks.
            "plain http": World(f"localhost:{self.open}/app", right, plain),
            "a slow network": World(f"{at('slow')}/app", right, plain),
            "a network that drips": World(
                f"{at('drips')}/app", Refused(at("drips"), "timed out|deadline|slow"), plain),
            "no ranges": World(f"{at('no ranges')}/app", right, plain),
            "blobs on a second host": World(f"{at('blobs to second')}/app", right, plain),
            "blobs on a host that is away": World(
                f"{at('blobs to dead')}/app", Refused(f"127.0.0.1:{self.dead}", "cannot connect"), plain),
            "registry that is away": World(f"{dead}/app", Refused(dead, "cannot connect"), plain),
            "registry that says nothing": World(
                f"localhost:{self.silent}/app",
                Refused(f"localhost:{self.silent}", "timed out|deadline"), plain),
            "blobs fail": World(f"{at('blobs 502')}/app", Refused(at("blobs 502"), "502"), plain),
            "blobs are forbidden": World(f"{at('blobs 403')}/app", Refused(at("blobs 403"), "403|not auth"),
                                         plain),
            "too many requests": World(f"{at('busy')}/app", Refused(at("busy"), "429|asked for a pause"), plain),
            "flipped bits": World(f"{at('flipped')}/app", Refused(at("flipped"), "mismatch|CRC"), plain,
                                  but=unproved),
            # Mirrors.
            "first mirror is away": before(f"127.0.0.1:{self.dead}"),
            "first mirror says nothing": before(f"127.0.0.1:{self.silent}", timeout=12),
            "first mirror has nothing": before(f"127.0.0.1:{self.ports['404']}"),
            "first mirror fails": before(f"127.0.0.1:{self.ports['blobs 502']}"),
            "first two mirrors fail": before(f"127.0.0.1:{self.dead}",
                                             f"127.0.0.1:{self.ports['blobs 502']}"),
            # No network.
            "image layout": World(f"oci:{self.layout}", right),
            "image layout with flipped bits": World(
                f"oci:{self.dir}/flipped", Refused("/flipped/blobs/", "mismatch|CRC"), but=unproved),
        }

    def cell(self, world, form, empty):
        tag, words = FORMS[form]
        words = words.format(own=self.own, full=self.full, empty=empty)
        if world.words:
            words += "," + world.words
        begin = time.monotonic()
        done = subprocess.run(
            [TOOL, "cat", "--config", "none", "-o",
             f"oci.timeout={world.deadline},oci.platform=linux/amd64,oci.cache_dir=none,{words}",
             f"{world.place}:{tag}", "/data/file"],
            capture_output=True, timeout=60, env={"PATH": os.environ["PATH"], "HOME": str(self.dir)})
        return Cell(done.returncode, done.stdout, done.stderr.decode(errors="replace"),
                    time.monotonic() - begin)

    def test_every_world_with_every_form(self):
        worlds = self.worlds()
        cells = [(name, form) for name in worlds for form in FORMS]

        def run(pair):
            name, form = pair
            with tempfile.TemporaryDirectory(dir=self.dir) as empty:
                return self.cell(worlds[name], form, empty + "/store")

        # Those that wait take no processor, the others take one.
        waiting = [pair for pair in cells if worlds[pair[0]].deadline < 30]
        working = [pair for pair in cells if pair not in waiting]
        with concurrent.futures.ThreadPoolExecutor(8) as patient, \
                concurrent.futures.ThreadPoolExecutor(2) as busy:
            under_way = [*zip(waiting, map(functools.partial(patient.submit, run), waiting)),
                         *zip(working, map(functools.partial(busy.submit, run), working))]
            results = {pair: future.result() for pair, future in under_way}
        for (name, form), cell in results.items():
            world = worlds[name]
            if os.environ.get("WORLDS_VERBOSE"):
                print(f"{name} | {form} | {cell.status} {len(cell.output)} {cell.output == FILE} "
                      f"{cell.seconds:.1f} s | {cell.errors.strip()}")
            with self.subTest(world=name, form=form):
                self.assertLess(cell.seconds, READS.get(form, 1) * world.deadline + SLACK, cell.errors)
                self.assertNotIn(PASSWORD, cell.errors)
                world.but.get(form, world.outcome).judge(cell)
        self.assertEqual(len(results), len(worlds) * len(FORMS))
        self.assertGreater(sum(cell.output == FILE for cell in results.values()), len(FORMS) * 10)


if __name__ == "__main__":
    unittest.main(verbosity=2)
