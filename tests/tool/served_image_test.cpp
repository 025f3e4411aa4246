// SPDX-License-Identifier: Apache-2.0
#include "served_image.hpp"  // first: proves that the header stands alone

#include <filesystem>
#include <fstream>

#include <catch2/catch.hpp>
#include <erofs_oci/recovery/record.hpp>

namespace mount_oci {
namespace {

using erofs_oci::CredentialSource;
using erofs_oci::Record;

Record remote_record() {
  Record record;
  record.image.registry = "registry.example.com:5000";
  record.image.repository = "app";
  record.image.tag = "moves";
  record.reach.insecure = true;
  record.reach.ca = "/etc/ca.pem";
  record.reach.mirrors = {"https://mirror.example.com"};
  record.reach.timeout = std::chrono::seconds(7);
  record.reach.retry = std::chrono::seconds(3);
  record.reach.connections = 9;
  record.reach.cache_bytes = 1 << 20;
  record.reach.cache_directory = "/var/store";
  record.attach.read_ahead = 4096;
  return record;
}

TEST_CASE("What changes how an image is reached is remembered", "[tool][served_image]") {
  auto const options = options_of(remote_record(), {});
  REQUIRE(options);
  CHECK(options->image == "registry.example.com:5000/app");
  CHECK(options->insecure);
  CHECK(options->ca == "/etc/ca.pem");
  CHECK(options->mirrors == std::vector<std::string>{"https://mirror.example.com"});
  CHECK(options->timeout == std::chrono::seconds(7));
  CHECK(options->retry == std::chrono::seconds(3));
  CHECK(options->connections == 9);
  CHECK(options->cache == 1u << 20);
  CHECK(options->store == "/var/store");
  CHECK(options->readahead == 4096);
  CHECK(options->soci == SociUse::none);
  CHECK(options->username.empty());
}

TEST_CASE("Credentials are read again from where they came from", "[tool][served_image]") {
  using Kind = CredentialSource::Kind;
  auto record = remote_record();
  ImageOptions given;
  SECTION("a file") {
    record.credentials = {Kind::file, "/etc/password", "me"};
    auto const options = options_of(record, given);
    REQUIRE(options);
    CHECK(options->username == "me");
    CHECK(options->password_file == "/etc/password");
  }
  SECTION("docker's configuration") {
    record.credentials = {Kind::docker_config, "/root/.docker/config.json", {}};
    auto const options = options_of(record, given);
    REQUIRE(options);
    CHECK(options->config_files == std::vector<std::string>{"/root/.docker/config.json"});
  }
  SECTION("by hand: gone") {
    record.credentials = {Kind::given, {}, {}};
    auto const options = options_of(record, given);
    REQUIRE_FALSE(options);
    CHECK(options.error().code == Errc::unauthorized);
    CHECK(options.error().message().find("given by hand") != std::string::npos);
  }
  SECTION("by hand, and given again") {
    record.credentials = {Kind::given, {}, {}};
    given.username = "me";
    given.password = "secret";
    auto const options = options_of(record, given);
    REQUIRE(options);
    CHECK(options->username == "me");
    CHECK(options->password == "secret");
  }
}

/// A directory that goes with its test.
struct Scratch {
  std::filesystem::path path;
  Scratch() {
    auto name = (std::filesystem::temp_directory_path() / "served-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;
  ~Scratch() { std::filesystem::remove_all(path); }
};

erofs_oci::Bytes bytes_of(erofs_oci::AnySource const& source) {
  erofs_oci::Bytes bytes(source.size());
  REQUIRE(read_exact(source, 0, bytes));
  return bytes;
}

TEST_CASE("What was served is served again, or nothing", "[tool][served_image]") {
  Scratch const scratch;
  auto const data = std::filesystem::path(EROFS_OCI_TEST_DATA) / "oci";
  for (auto const* name : {"ckpt.tar.gz", "gz-ckpt.erofs", "gz-ckpt.zinfo"}) {
    std::filesystem::copy(data / name, scratch.path / name);
  }
  Log const log(0);
  ImageOptions options;
  options.image = "file:" + (scratch.path / "ckpt.tar.gz").string();
  options.tarindex = (scratch.path / "gz-ckpt.erofs").string();
  options.zinfo = (scratch.path / "gz-ckpt.zinfo").string();
  options.store = "none";
  options.password = "secret";
  options.username = "me";
  auto first = serve_first(options, log, nullptr);
  REQUIRE(first);
  first->record.attach.backend = "m1";
  auto const wanted = bytes_of(first->device.source);
  auto const encoded = erofs_oci::encode_record(first->record);
  REQUIRE(encoded);
  CHECK(encoded->find("secret") == std::string::npos);
  auto const record = erofs_oci::parse_record(*encoded);
  REQUIRE(record);
  auto const again = options_of(*record, {});
  REQUIRE(again);

  SECTION("the same bytes") {
    auto const second = serve_again(*record, *again, log, nullptr);
    REQUIRE(second);
    CHECK(bytes_of(second->device.source) == wanted);
    CHECK(second->device.zeros_from == first->device.zeros_from);
  }
  auto const name = GENERATE("ckpt.tar.gz", "gz-ckpt.erofs", "gz-ckpt.zinfo");
  SECTION(std::string("not with another ") + name) {
    auto const file = scratch.path / name;
    {
      std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
      stream.seekp(100);
      auto const old = stream.get();
      stream.seekp(100);
      stream.put(static_cast<char>(old ^ 1));
    }
    std::filesystem::last_write_time(
        file, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
    auto const second = serve_again(*record, *again, log, nullptr);
    REQUIRE_FALSE(second);
    CHECK(second.error().message().find(name) != std::string::npos);
  }
  SECTION(std::string("not without ") + name) {
    std::filesystem::remove(scratch.path / name);
    CHECK_FALSE(serve_again(*record, *again, log, nullptr));
  }
}

}  // namespace
}  // namespace mount_oci
