// SPDX-License-Identifier: Apache-2.0
// Against Debian's docker-registry, filled by skopeo: plain, with passwords, with TLS; and against
// a registry of our own with tokens that expire.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>
#include <httplib.h>

#include <erofs_oci/http/http.hpp>
#include <erofs_oci/http/registry.hpp>
#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/encoding.hpp>
#include <erofs_oci/oci/layout.hpp>

#include "support.hpp"

namespace erofs_oci {
namespace registry_test {

/// An image layout with one layer of a few MiB that does not compress.
struct SmallImage {
  explicit SmallImage(test::Scratch const& directory) : path(directory / "layout") {
    std::mt19937_64 random(7);
    std::string noise(3'000'001, '\0');
    for (auto& c : noise) c = static_cast<char>(random() & 255);
    write_text(directory / "files/noise", noise);
    auto const tar = directory / "layer.tar";
    REQUIRE(run("tar -C " + (directory / "files") + " -cf " + tar + " noise"));
    REQUIRE(run("gzip -kn " + tar));
    layer = read_text(tar + ".gz");

    fs::create_directories(path / "blobs/sha256");
    Manifest manifest;
    manifest.media_type = media_type::oci_manifest;
    manifest.config = blob(R"({"architecture":"amd64","os":"linux","rootfs":{"type":"layers",)"
                           R"("diff_ids":[")" +
                               digest_of(as_bytes(read_text(tar))).to_string() + "\"]}}",
                           "application/vnd.oci.image.config.v1+json");
    manifest.layers = {blob(layer, "application/vnd.oci.image.layer.v1.tar+gzip")};
    Index index;
    index.media_type = media_type::oci_index;
    index.manifests = {blob(encode(manifest), media_type::oci_manifest)};
    index.manifests[0].annotations[Layout::ref_name] = "v1";
    digest = index.manifests[0].digest;
    std::ofstream(path / "index.json") << encode(index);
    std::ofstream(path / "oci-layout") << R"({"imageLayoutVersion":"1.0.0"})";
  }

  Descriptor blob(std::string const& text, std::string_view type) const {
    Descriptor out;
    out.media_type = type;
    out.digest = digest_of(as_bytes(text));
    out.size = text.size();
    std::ofstream(path / "blobs/sha256" / out.digest.hex(), std::ios::binary) << text;
    return out;
  }

  void push(std::string const& to, std::string const& options) const {
    REQUIRE(run("skopeo copy --insecure-policy " + options + " oci:" + path.string() +
                ":v1 docker://" + to));
  }

  fs::path path;
  std::string layer;
  Digest digest;
};

Platform const amd64{"linux", "amd64", ""};

/// Resolves, then reads the layer in three ways and compares.
void check_image(Registry const& registry, SmallImage const& image) {
  auto const resolved = registry.resolve(amd64);
  INFO((resolved ? "" : resolved.error().message()));
  REQUIRE(resolved.has_value());
  CHECK(resolved->digest == image.digest);
  REQUIRE(resolved->manifest.layers.size() == 1);
  auto const blob = registry.blob(resolved->manifest.layers[0]);
  REQUIRE(blob.size() == image.layer.size());

  Bytes out(100'000);
  for (std::uint64_t const offset : {0U, 1U, 1'000'003U}) {
    REQUIRE(blob.read_at(offset, out) == out.size());
    REQUIRE(as_text(out) == std::string_view(image.layer).substr(offset, out.size()));
  }
  REQUIRE(blob.read_at(blob.size() - 10, out) == std::size_t{10});

  std::string all;
  REQUIRE(blob.stream(0, blob.size(), [&](std::span<std::byte const> bytes) {
    all += as_text(bytes);
    return true;
  }));
  CHECK(all == image.layer);
}

RegistryOptions plain() {
  RegistryOptions options;
  options.protocol = RegistryProtocol::http;
  return options;
}

TEST_CASE("A plain docker-registry serves what skopeo pushed", "[integration][oci]") {
  if (!tools_there()) return;
  test::Scratch const directory;
  SmallImage const image(directory);
  DockerRegistry const server(directory);
  image.push(server.host() + "/some/image:v1", "--dest-tls-verify=false");

  check_image(*Registry::make(*Reference::parse(server.host() + "/some/image:v1"), plain()), image);
  check_image(
      *Registry::make(*Reference::parse(server.host() + "/some/image@" + image.digest.to_string()),
                      plain()),
      image);

  auto const missing = Registry::make(*Reference::parse(server.host() + "/some/image:v2"), plain());
  CHECK(missing->resolve(amd64).error().code == Errc::not_found);
  Descriptor nothing;
  nothing.size = 10;
  Bytes out(10);
  CHECK(missing->blob(nothing).read_at(0, out).error().code == Errc::not_found);

  auto const layer = *Http::open("http://" + server.host() + "/v2/some/image/blobs/" +
                                 digest_of(as_bytes(image.layer)).to_string());
  CHECK(layer.size() == image.layer.size());
}

TEST_CASE("A docker-registry with passwords accepts those that skopeo login stored",
          "[integration][oci]") {
  if (!tools_there()) return;
  if (!run("command -v htpasswd")) {
    WARN("skipped: htpasswd is missing");
    return;
  }
  test::Scratch const directory;
  SmallImage const image(directory);
  auto const passwords = directory / "htpasswd";
  REQUIRE(std::system(("htpasswd -Bbn me 's3:cret' > " + passwords + " 2>/dev/null").c_str()) == 0);
  DockerRegistry const server(directory, "auth: {htpasswd: {realm: x, path: " + passwords + "}}\n");
  auto const stored = directory / "auth.json";
  REQUIRE(run("skopeo login --authfile " + stored + " --tls-verify=false -u me -p 's3:cret' " +
              server.host()));
  image.push(server.host() + "/some/image:v1", "--dest-tls-verify=false --authfile " + stored);
  auto const reference = *Reference::parse(server.host() + "/some/image:v1");

  auto options = plain();
  CHECK(Registry::make(reference, options)->resolve(amd64).error().code == Errc::unauthorized);
  options.credentials =
      credential_lookup({RegistryLogin{server.host(), {"me", "wrong", {}, {}}}, {}, 10s});
  CHECK(Registry::make(reference, options)->resolve(amd64).error().code == Errc::unauthorized);
  options.credentials = credential_lookup({{}, {stored}, 10s});
  check_image(*Registry::make(reference, options), image);
}

TEST_CASE("A docker-registry with a private CA is trusted only with that CA",
          "[integration][oci]") {
  if (!tools_there()) return;
  test::Scratch const directory;
  SmallImage const image(directory);
  auto const file = [&](char const* name) { return directory / name; };
  write_text(directory / "ext", "subjectAltName=IP:127.0.0.1");
  REQUIRE(
      run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
          "-subj /CN=test-ca -keyout " +
          file("ca.key") + " -out " + file("ca.crt")));
  REQUIRE(
      run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test "
          "-keyout " +
          file("s.key") + " -out " + file("s.csr")));
  REQUIRE(run("openssl x509 -req -days 2 -CAcreateserial -in " + file("s.csr") + " -CA " +
              file("ca.crt") + " -CAkey " + file("ca.key") + " -extfile " + file("ext") + " -out " +
              file("s.crt")));
  DockerRegistry const server(
      directory, "", "  tls: {certificate: " + file("s.crt") + ", key: " + file("s.key") + "}\n");
  image.push(server.host() + "/some/image:v1", "--dest-tls-verify=false");
  HttplibOptions trusting;
  trusting.ca_file = file("ca.crt");
  auto const registry = [&](std::string const& host, HttplibOptions const& options) {
    return *Registry::make(*Reference::parse(host + "/some/image:v1"), {},
                           HttplibTransport(options));
  };

  check_image(registry(server.host(), trusting), image);

  auto const distrusted = registry(server.host(), {}).resolve(amd64);
  REQUIRE_FALSE(distrusted.has_value());
  CHECK(distrusted.error().code == Errc::protocol);
  CHECK_THAT(distrusted.error().message(), Catch::Contains("certificate"));

  auto const renamed =
      registry("localhost:" + std::to_string(server.port()), trusting).resolve(amd64);
  REQUIRE_FALSE(renamed.has_value());
  CHECK_THAT(renamed.error().message(), Catch::Contains("another host"));

  HttplibOptions missing;
  missing.ca_file = file("not-there");
  CHECK(registry(server.host(), missing).resolve(amd64).error().code == Errc::protocol);
}

/// A registry whose tokens live a second, with its token server, over real sockets.
class TokenServer {
 public:
  explicit TokenServer(SmallImage const& image) : image_(image) {
    server_.Get("/token", [this](httplib::Request const& request, httplib::Response& response) {
      CHECK(request.get_param_value("service") == "the service");
      CHECK(request.get_param_value("scope") == "repository:some/image:pull");
      if (request.get_header_value("Authorization") != "Basic " + base64_encode("me:secret")) {
        response.status = 401;
        return;
      }
      std::lock_guard const lock(mutex_);
      expires_ = Steady::now() + 1s;
      response.set_content(
          R"({"access_token":"t)" + std::to_string(++issued_) + R"(","expires_in":300})",
          "application/json");
    });
    server_.Get(R"(/v2/some/image/(manifests|blobs)/(.*))",
                [this](httplib::Request const& request, httplib::Response& response) {
                  serve(request, response);
                });
    server_.set_tcp_nodelay(true);
    server_.set_keep_alive_timeout(1);  // stop() waits for it
    server_.set_keep_alive_max_count(1'000'000);
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::jthread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::sleep_for(1ms);
  }
  ~TokenServer() { server_.stop(); }

  std::string host() const { return "127.0.0.1:" + std::to_string(port_); }
  int issued() {
    std::lock_guard const lock(mutex_);
    return issued_;
  }

 private:
  void serve(httplib::Request const& request, httplib::Response& response) {
    {
      std::lock_guard const lock(mutex_);
      if (issued_ == 0 || Steady::now() > expires_ ||
          request.get_header_value("Authorization") != "Bearer t" + std::to_string(issued_)) {
        response.status = 401;
        response.set_header("WWW-Authenticate", "Basic realm=x");
        response.set_header("WWW-Authenticate",
                            "Bearer realm=\"http://" + host() + "/token\",service=\"the service\"");
        return;
      }
    }
    auto name = request.matches[2].str();
    if (name == "v1") name = image_.digest.to_string();
    auto const digest = Digest::parse(name);
    REQUIRE(digest.has_value());
    response.set_content(read_text(image_.path / "blobs/sha256" / digest->hex()),
                         "application/octet-stream");
  }

  SmallImage const& image_;
  httplib::Server server_;
  int port_ = 0;
  std::mutex mutex_;
  int issued_ = 0;
  Steady::time_point expires_{};
  std::jthread thread_;
};

TEST_CASE("Tokens that expire are renewed while eight threads read", "[integration][oci]") {
  test::Scratch const directory;
  SmallImage const image(directory);
  TokenServer server(image);
  auto options = plain();
  options.credentials =
      credential_lookup({RegistryLogin{server.host(), {"me", "secret", {}, {}}}, {}, 10s});
  auto const registry =
      *Registry::make(*Reference::parse(server.host() + "/some/image:v1"), options);
  check_image(registry, image);

  auto const before = server.issued();
  auto const blob = registry.blob(registry.resolve(amd64)->manifest.layers[0]);
  std::atomic<int> bad{0};
  auto const start = Steady::now();
  auto const end = start + 15s;
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] {
        Bytes out(20'000);
        for (std::uint64_t k = i; server.issued() < before + 2 && Steady::now() < end; k += 8) {
          auto const offset = k * 20'000 % 2'900'000;
          auto const n = blob.read_at(offset, out);
          bad += n && as_text(out) == std::string_view(image.layer).substr(offset, 20'000) ? 0 : 1;
        }
      });
    }
  }

  CHECK(bad == 0);
  CHECK(server.issued() >= before + 2);
  // One a second, not one a thread.
  CHECK(server.issued() - before <=
        std::chrono::ceil<std::chrono::seconds>(Steady::now() - start).count());
}

TEST_CASE("A token server that refuses the password is an error", "[integration][oci]") {
  test::Scratch const directory;
  SmallImage const image(directory);
  TokenServer server(image);
  auto const reference = *Reference::parse(server.host() + "/some/image:v1");
  auto options = plain();
  CHECK(Registry::make(reference, options)->resolve(amd64).error().code == Errc::unauthorized);
  options.credentials =
      credential_lookup({RegistryLogin{server.host(), {"me", "wrong", {}, {}}}, {}, 10s});
  CHECK(Registry::make(reference, options)->resolve(amd64).error().code == Errc::unauthorized);
}

}  // namespace registry_test
}  // namespace erofs_oci
