# SPDX-License-Identifier: Apache-2.0
"""Servers of other projects for tests: certificates, Debian's docker-registry, nginx, a token server."""
import base64
import contextlib
import http.server
import json
import pathlib
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
import urllib.request


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, timeout=60, **options).stdout


GIVEN = set()  # ports that a server of this process has, or will have


def free_port():
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in GIVEN:
            GIVEN.add(port)
            return port


def wait_for_port(port, process, log):
    """Until a server accepts connections there."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"{process.args}: {pathlib.Path(log).read_text(errors='replace')}")


class Authority:
    """An authority for certificates, with its files in a directory of its own, which is one for
    certificates of a registry, too: no name ends in .key or .cert."""

    def __init__(self, directory, name="ca"):
        self.dir = pathlib.Path(directory) / name
        self.dir.mkdir()
        self.cert, self.key = self.dir / "ca.crt", self.dir / "ca.private"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
            f"/CN={name}", "-keyout", self.key, "-out", self.cert)
        (self.dir / "index").touch()
        (self.dir / "config").write_text(f"""[ca]
default_ca = own
[own]
database = {self.dir}/index
new_certs_dir = {self.dir}
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
copy_extensions = copy
certificate = {self.cert}
private_key = {self.key}
[any]
commonName = supplied
""")

    def issue(self, name, subject="localhost", names="DNS:localhost,IP:127.0.0.1", expired=False):
        """A certificate for a server or a client; its file and its key's."""
        cert, key, request = (self.dir / f"{name}.{kind}" for kind in ("pem", "private", "csr"))
        more = ["-addext", f"subjectAltName={names}"] if names else []
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={subject}", *more,
            "-keyout", key, "-out", request)
        when = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"] if expired else \
            ["-days", "2"]
        run("openssl", "ca", "-batch", "-notext", "-config", self.dir / "config", *when,
            "-in", request, "-out", cert)
        return cert, key


def docker_registry(case, directory, name, data, http="", more=""):
    """Debian's docker-registry; its port. `http` and `more` are further lines of its configuration."""
    port = free_port()
    config, log = (pathlib.Path(directory) / f"{name}.{kind}" for kind in ("yml", "log"))
    config.write_text(f"""version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {data}}}}}
http: {{addr: "127.0.0.1:{port}"{http}}}
{more}""")
    start(case, ["docker-registry", "serve", config], log, port)
    return port


def nginx(case, directory, servers):
    """nginx with these `server` blocks, of which the first listens on `port`."""
    directory = pathlib.Path(directory)
    temporary = "".join(f"{kind}_temp_path {directory}/{kind}; "
                        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (directory / "nginx.conf").write_text(f"""daemon off; master_process off;
pid {directory}/pid; error_log {directory}/error.log;
events {{}}
http {{
  access_log off; {temporary}
  proxy_buffering on; proxy_http_version 1.1; proxy_set_header Host $http_host;
{servers}
}}
""")
    port = int(servers.split("listen 127.0.0.1:")[1].split(" ")[0].rstrip(";"))
    start(case, ["nginx", "-c", directory / "nginx.conf", "-e", directory / "error.log"],
          directory / "nginx.log", port)


def start(case, command, log, port):
    """Starts a server, which the end of the test or of its class ends."""
    with open(log, "wb") as file:
        process = subprocess.Popen([str(part) for part in command], stdout=file, stderr=file)
    cleanup = case.addClassCleanup if isinstance(case, type) else case.addCleanup
    cleanup(lambda: (process.kill(), process.wait()))
    wait_for_port(port, process, log)


def push(layout, registry, repository):
    """Copies all blobs of an image layout into a registry, those that are manifests as manifests, too,
    and its tags."""
    layout, base = pathlib.Path(layout), f"{registry}/v2/{repository}"

    def send(url, data, kind, method):
        request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.headers

    manifests = {}
    for blob in sorted((layout / "blobs/sha256").iterdir()):
        data = blob.read_bytes()
        place = send(f"{base}/blobs/uploads/", b"", "application/octet-stream", "POST")["Location"]
        mark = "&" if "?" in place else "?"
        send(f"{urllib.parse.urljoin(registry, place)}{mark}digest=sha256:{blob.name}", data,
             "application/octet-stream", "PUT")
        with contextlib.suppress(ValueError):
            if data[:1] == b"{" and "layers" in (manifest := json.loads(data)):
                manifests[f"sha256:{blob.name}"] = data, manifest["mediaType"]
    for entry in json.loads((layout / "index.json").read_text())["manifests"]:
        tag = entry["annotations"]["org.opencontainers.image.ref.name"]
        manifests[tag] = manifests[entry["digest"]]
    for name, (data, kind) in manifests.items():
        send(f"{base}/manifests/{name}", data, kind, "PUT")


class TokenServer:
    """Tokens for docker-registry. What a user gets depends on the name: `reader` a good token, each of
    the others something that is not."""

    SERVICE, ISSUER = "registry.test", "tokens.test"

    def __init__(self, case, authority, password):
        self.chain, self.key = authority.issue("tokens", "tokens")
        self.other = authority.issue("forger", "forger")[1]
        self.password = password
        self.released = threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                owner.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("token-server"))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                 do_handshake_on_connect=False)
        self.host = f"localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        case.addClassCleanup(self.end)

    def end(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def settings(self):
        """For docker-registry's configuration."""
        return (f"auth: {{token: {{realm: \"https://{self.host}/token\", service: {self.SERVICE}, "
                f"issuer: {self.ISSUER}, rootcertbundle: {self.chain}}}}}\n")

    def answer(self, request):
        given = request.headers.get("Authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(given).decode().partition(":")
        if user == "hung":
            self.released.wait(60)
            return
        if user == "cut":
            request.connection.close()
            return
        if password != self.password:
            request.send_error(401)
            return
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        scope = "repository:another:pull" if user == "other" else query["scope"][0]
        text = self.token(user, scope, self.other if user == "forger" else self.key)
        body = b"<html>welcome</html>" if user == "portal" else json.dumps({"token": text}).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def token(self, user, scope, key):
        kind, name, actions = scope.split(":")
        der = base64.b64encode(ssl.PEM_cert_to_DER_cert(self.chain.read_text())).decode()
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        claims = {"iss": self.ISSUER, "sub": user, "aud": self.SERVICE, "exp": now + 300,
                  "nbf": now - 10, "iat": now, "jti": user,
                  "access": [{"type": kind, "name": name, "actions": actions.split(",")}]}
        signed = b".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
        signature = run("openssl", "dgst", "-sha256", "-sign", key, input=signed)
        return (signed + b"." + encoded(signature)).decode()


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")
