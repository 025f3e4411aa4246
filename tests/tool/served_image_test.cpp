// SPDX-License-Identifier: Apache-2.0
#include "served_image.hpp"  // first: proves that the header stands alone

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <catch.hpp>
#include <erofs_oci/recovery/record_codec.hpp>
#include <scratch.hpp>

#include "data_path.hpp"

namespace mount_oci {
namespace served_image_test {

using erofs_oci::CredentialSource;
using erofs_oci::Record;
using erofs_oci::test::Scratch;

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
  record.reach.verify = "background";
  record.reach.hosts = "/srv/hosts";
  record.reach.config = "/srv/mount-oci.conf";
  record.reach.inward = true;
  record.reach.unhedged = true;
  record.image.rewritten = true;
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
  CHECK(options->budget().bytes == 1ull << 40);  // it was enough when it was mounted
  CHECK(options->store == "/var/store");
  CHECK(options->readahead == 4096);
  CHECK(options->verify == Verify::background);
  CHECK(options->hosts == "/srv/hosts");
  CHECK(options->config == "/srv/mount-oci.conf");
  CHECK(options->allow_private);
  CHECK_FALSE(options->hedge);
  CHECK_FALSE(options->native);
  // What was mounted before there was the choice was mounted as it is.
  CHECK(options_of(Record{}, {})->native);
  CHECK(options_of(Record{}, {})->verify == Verify::lazy);
  CHECK(options->verity == VerityUse::off);  // so it was mounted, whatever is in the store by now
  auto proved = remote_record();
  proved.reach.verify = "before";
  CHECK(options_of(proved, {})->verify == Verify::before);  // no lie of an index was served
  auto checked = remote_record();
  checked.image.verity = erofs_oci::digest_of({});
  CHECK(options_of(checked, {})->verity == VerityUse::require);
  CHECK(options_of(checked, {})->verity_root == checked.image.verity);
  CHECK(options->index == IndexUse::bound);
  CHECK(options->username.empty());
}

TEST_CASE("Hosts are looked for where they were, not where this environment has them",
          "[tool][served_image]") {
  ImageOptions elsewhere;
  elsewhere.hosts = "/home/me/hosts";
  elsewhere.config = "/home/me/mount-oci.conf";

  auto const again = options_of(remote_record(), elsewhere);
  REQUIRE(again);
  CHECK(again->hosts == "/srv/hosts");
  CHECK(again->config == "/srv/mount-oci.conf");
  // A record that says nothing of it.
  auto const old = options_of(Record{}, elsewhere);
  REQUIRE(old);
  CHECK(old->hosts == "/home/me/hosts");
  CHECK(old->hedge);
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
    record.reach.config.clear();
    auto const options = options_of(record, given);
    REQUIRE_FALSE(options);
    CHECK(options.error().code == Errc::unauthorized);
    CHECK(options.error().message().find("given by hand") != std::string::npos);
  }
  SECTION("by hand, in the configuration file") {
    Scratch const scratch;
    auto const path = scratch / "mount-oci.conf";
    std::ofstream(path) << "[registry.\"registry.example.com:5000\"]\n"
                           "oci.username = \"me\"\noci.password = \"secret\"\n";
    std::filesystem::permissions(path, std::filesystem::perms(0600));
    record.credentials = {Kind::given, {}, {}};
    record.reach.config = path;
    auto const options = options_of(record, given);
    REQUIRE(options);
    CHECK(options->username == "me");
    CHECK(options->password == "secret");
    record.image.registry = "another.example.com";
    CHECK(options_of(record, given).error().code == Errc::unauthorized);
    std::filesystem::remove(path);
    CHECK(options_of(record, given).error().code == Errc::invalid_argument);
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

erofs_oci::Bytes bytes_of(erofs_oci::AnySource const& source) {
  erofs_oci::Bytes bytes(source.size());
  REQUIRE(read_exact(source, 0, bytes));
  return bytes;
}

TEST_CASE("What was served is served again, or nothing", "[tool][served_image]") {
  Scratch const scratch;
  auto const data = std::filesystem::path(erofs_oci::test_data("/oci"));
  for (auto const* name : {"ckpt.tar.gz", "gz-ckpt.erofs", "gz-ckpt.zinfo"}) {
    std::filesystem::copy(data / name, scratch / name);
  }
  Log const log(0);
  ImageOptions options;
  options.image = "file:" + (scratch / "ckpt.tar.gz");
  options.tarindex = scratch / "gz-ckpt.erofs";
  options.zinfo = scratch / "gz-ckpt.zinfo";
  options.store = "none";
  options.password = "secret";
  options.username = "me";
  options.hosts = "/srv/hosts:/etc/hosts.d";
  options.config = scratch / "./mount-oci.conf";
  options.allow_private = true;
  options.hedge = false;
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

  SECTION("by the same paths") {
    CHECK(again->hosts == options.hosts);
    CHECK(again->config == scratch / "mount-oci.conf");
    CHECK(again->allow_private);
    CHECK_FALSE(again->hedge);
  }
  SECTION("the same bytes") {
    auto const second = serve_again(*record, *again, log, nullptr);
    REQUIRE(second);
    CHECK(bytes_of(second->device.source) == wanted);
    CHECK(second->device.zeros_from == first->device.zeros_from);
  }
  SECTION("no bytes that an earlier worker found to be wrong") {
    auto refuted = *record;
    refuted.image.mismatch = "blob x: its bytes are others";
    auto const second = serve_again(refuted, *again, log, nullptr);
    REQUIRE(second);
    erofs_oci::Bytes out(1);
    auto const read = second->device.source.read_at(wanted.size() - 512, out);
    REQUIRE_FALSE(read);
    CHECK(read.error().code == Errc::digest_mismatch);
    CHECK(read.error().message().find("blob x: its bytes are others") != std::string::npos);
  }
  SECTION("with zeros at the end, where others look for headers of RAID") {
    REQUIRE(wanted.size() > quiet_end);
    CHECK(record->image.device_size == wanted.size());
    CHECK(first->device.zeros_from <= wanted.size() - quiet_end);
    CHECK(std::ranges::all_of(std::span(wanted).last(quiet_end),
                              [](auto byte) { return byte == std::byte{}; }));
  }
  SECTION("a device of an older version stays as large as it is") {
    auto older = *record;
    older.image.device_size -= quiet_end;
    auto const second = serve_again(older, *again, log, nullptr);
    REQUIRE(second);
    CHECK(std::ranges::equal(bytes_of(second->device.source),
                             std::span(wanted).first(wanted.size() - quiet_end)));
    older.image.device_size -= 512;
    CHECK(serve_again(older, *again, log, nullptr).error().code == Errc::mismatch);
  }
  auto const name = GENERATE("ckpt.tar.gz", "gz-ckpt.erofs", "gz-ckpt.zinfo");
  SECTION(std::string("not with another ") + name) {
    auto const file = scratch / name;
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
    std::filesystem::remove(scratch / name);
    CHECK_FALSE(serve_again(*record, *again, log, nullptr));
  }
}

}  // namespace served_image_test
}  // namespace mount_oci
