# SPDX-License-Identifier: Apache-2.0
"""Hosts as containerd's hosts.toml has them, and the configuration file, before registries and nginx."""
import os
import pathlib
import subprocess
import unittest

import servers
from servers import free_port
from support import REGISTRY, Running, TOOL, ToolTest


class HostsTest(ToolTest):
    def setUp(self):
        super().setUp()
        self.certs = pathlib.Path(self.dir) / "certs.d"
        self.authority = servers.Authority(self.dir)

    def at(self, name):
        return os.path.join(self.dir, name)

    def registry_by_tls(self, *certificate):
        cert, key = self.authority.issue("server", *certificate)
        server = Running(self, self.layout, "--cert", cert, "--key", key, program=REGISTRY)
        return server.line.split("://", 1)[1].replace("127.0.0.1", "localhost")

    def hosts(self, registry, text):
        directory = self.certs / registry
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts.toml").write_text(text)

    def run_tool(self, command, image, *more, words=""):
        """Status, output and messages of a command that reads the image."""
        done = subprocess.run(
            [TOOL, command, "-o", f"oci.hosts={self.certs},oci.retry=off,oci.cache_dir=none,"
             f"oci.store={self.dir}/store" + words, image, *more],
            capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": self.dir})
        return done.returncode, done.stdout, done.stderr

    def test_an_authority_of_hosts_toml_is_trusted_beside_the_others(self):
        host = self.registry_by_tls()
        self.assertIn("certificate", self.run_tool("image", f"{host}/a:v1")[2])
        self.hosts(host, f'ca = "{self.authority.cert}"\n')
        status, output, errors = self.run_tool("image", f"{host}/a:v1")
        self.assertEqual((status, errors), (0, ""))
        self.assertIn("sha256:", output)

    def test_dockers_certificates_are_taken_where_there_is_no_hosts_toml(self):
        host = self.registry_by_tls()
        directory = self.certs / host
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(self.authority.cert.read_bytes())
        self.assertEqual(self.run_tool("image", f"{host}/a:v1")[0], 0)

    def test_a_name_must_be_among_the_alternative_names(self):
        for names in "", "DNS:other.example":
            host = self.registry_by_tls("localhost", names)
            self.hosts(host, f'ca = "{self.authority.cert}"\n')
            status, _, errors = self.run_tool("image", f"{host}/a:v1")
            self.assertNotEqual(status, 0, names)
            self.assertIn("certificate", errors)

    def test_skip_verify_counts_with_a_warning_and_for_that_host_alone(self):
        host = self.registry_by_tls()
        self.hosts(host, "skip_verify = true\n")
        status, _, errors = self.run_tool("image", f"{host}/a:v1")
        self.assertEqual(status, 0, errors)
        self.assertIn('hosts.toml:1: "skip_verify": certificates of this host are not verified',
                      errors)
        self.hosts("other.invalid", f'[host."https://{host}"]\n')
        self.assertNotEqual(self.run_tool("image", "other.invalid/a:v1")[0], 0)

    def test_a_mirror_with_a_client_certificate_a_path_and_a_header(self):
        self.need("nginx")
        host = self.registry()
        cert, key = self.authority.issue("nginx")
        client, client_key = self.authority.issue("client", "client")
        port = free_port()
        servers.nginx(self, self.dir, f"""  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
    ssl_client_certificate {self.authority.cert}; ssl_verify_client on;
    location /v2/proxy/ {{
      if ($http_x_key != "s3cret") {{ return 403; }}
      if ($arg_ns != "other.invalid") {{ return 404; }}
      proxy_pass http://{host}/v2/; }}
  }}""")
        table = f'[host."https://localhost:{port}/v2/proxy"]\noverride_path = true\n' \
                f'ca = "{self.authority.cert}"\n'
        header = f'[host."https://localhost:{port}/v2/proxy".header]\nx-key = "s3cret"\n'
        pair = f'client = [["{client}", "{client_key}"]]\n'
        for text, works in ((table + pair + header, True), (table + header, False),
                            (table + pair, False),
                            (table + pair + 'capabilities = ["pull"]\n' + header, False)):
            self.hosts("other.invalid", text)
            status, output, errors = self.run_tool("image", "other.invalid/a:v1")
            self.assertEqual(status == 0, works, text + errors)
            self.assertNotIn("s3cret", output + errors)
        self.hosts("other.invalid", table + pair + 'capabilities = ["pull"]\n' + header)
        status, _, errors = self.run_tool("image", f"other.invalid/a@{self.top}")
        self.assertEqual(status, 0, errors)

    def test_the_configuration_file_names_hosts_for_one_registry(self):
        host = self.registry()
        config = pathlib.Path(self.at("conf"))
        config.write_text(f'oci.retry = "off"\n[registry."{host}"]\noci.insecure = true\n')
        command = [TOOL, "image", "--config", str(config), f"{host}/a:v1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.refused("image", "--config", "none", "-o", "oci.retry=off", f"{host}/a:v1")
        config.write_text("\n[registry.other]\noci.insecur = true\n")
        self.assertIn(f"{config}:3: oci.insecur: unknown word; did you mean `oci.insecure`?",
                      self.refused(*command[1:])[1])
        config.unlink()
        os.mkfifo(config)
        self.assertIn("not a regular file", self.refused(*command[1:])[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
