// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/record_check.hpp>  // first: proves that the header stands alone

#include <functional>
#include <utility>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include "support.hpp"

namespace erofs_oci {
namespace record_check_test {

using testing::some_record;

TEST_CASE("Records of every kind pass", "[recovery][record][property]") {
  rc::prop("for all records", [] { RC_ASSERT(check(*testing::any_record()).has_value()); });
}

TEST_CASE("An image may have no layer", "[recovery][record]") {
  auto record = some_record();
  record.image.layers.clear();
  CHECK(check(record).has_value());
}

TEST_CASE("What no daemon could have meant is refused by its field's name",
          "[recovery][record][error]") {
  using Change = std::function<void(Record&)>;
  LocalFile const file{"/f", 4711, digest_of(as_bytes("x")), 0, 0, 0};
  std::pair<std::string, Change> const changes[] = {
      {"image.registry", [](Record& r) { r.image.registry = ""; }},
      {"image.registry", [](Record& r) { r.image.registry = "host\nrepository=x"; }},
      {"image.registry", [](Record& r) { r.image.registry = "host/path"; }},
      {"image.registry", [](Record& r) { r.image.registry = std::string(256, 'a'); }},
      {"image.repository", [](Record& r) { r.image.repository = ""; }},
      {"image.repository", [](Record& r) { r.image.repository = "library/../../v2"; }},
      {"image.repository", [](Record& r) { r.image.repository = "a b"; }},
      {"image.repository", [](Record& r) { r.image.repository = "a//b"; }},
      {"image.repository", [](Record& r) { r.image.repository = "a/"; }},
      {"image.repository", [](Record& r) { r.image.repository = "Upper"; }},
      {"image.repository", [](Record& r) { r.image.repository = "a?b=c"; }},
      {"image.tag", [](Record& r) { r.image.tag = "a\nb"; }},
      {"image.directory", [](Record& r) { r.image.directory = "/layout"; }},
      {"image.platform", [](Record& r) { r.image.platform = "linux amd64"; }},
      {"image.layers", [](Record& r) { r.image.layers.resize(1025, r.image.layers[0]); }},
      {"image.layer.0.digest", [](Record& r) { r.image.layers[0].digest.reset(); }},
      {"image.layer.0.size", [](Record& r) { r.image.layers[0].size = 0; }},
      {"image.layer.0.media_type", [](Record& r) { r.image.layers[0].media_type = "a\r\nb"; }},
      {"image.layer.0.file", [&](Record& r) { r.image.layers[0].file = file; }},
      {"image.layer.0.zinfo.digest", [](Record& r) { r.image.layers[0].zinfo->digest.reset(); }},
      {"image.layer.0.zinfo.path", [](Record& r) { r.image.layers[0].zinfo->path = "rel"; }},
      {"image.tarindex.path", [](Record& r) { r.image.tarindex->path = "layer.erofs"; }},
      {"image.tarindex.path", [](Record& r) { r.image.tarindex->path = "/a/../b"; }},
      {"image.tarindex.path", [](Record& r) { r.image.tarindex->path = "/a//b"; }},
      {"image.tarindex.path",
       [](Record& r) { r.image.tarindex->path = std::string("/a\0b", 4); }},
      {"image.tarindex.path", [](Record& r) { r.image.tarindex->path = ""; }},
      {"image.tarindex.size", [](Record& r) { r.image.tarindex->size = 0; }},
      {"image.tarindex.digest", [](Record& r) { r.image.tarindex->digest.reset(); }},
      {"image.device_size", [](Record& r) { r.image.device_size = 0; }},
      {"image.device_size", [](Record& r) { r.image.device_size = 513; }},
      {"image.block_size", [](Record& r) { r.image.block_size = 0; }},
      {"image.block_size", [](Record& r) { r.image.block_size = 768; }},
      {"image.block_size", [](Record& r) { r.image.block_size = 256; }},
      {"image.block_size", [](Record& r) { r.image.block_size = 131072; }},
      {"reach.ca", [](Record& r) { r.reach.ca = "ca.pem"; }},
      {"reach.mirror", [](Record& r) { r.reach.mirrors = {""}; }},
      {"reach.mirror", [](Record& r) { r.reach.mirrors = {"a\nb"}; }},
      {"reach.mirror", [](Record& r) { r.reach.mirrors = {"me:secret@host"}; }},
      {"reach.mirror", [](Record& r) { r.reach.mirrors = {"host?signature"}; }},
      {"reach.mirror", [](Record& r) { r.reach.mirrors = {"host#signature"}; }},
      {"reach.mirrors", [](Record& r) { r.reach.mirrors.resize(65, "m"); }},
      {"reach.timeout", [](Record& r) { r.reach.timeout = std::chrono::milliseconds(0); }},
      {"reach.retry", [](Record& r) { r.reach.retry = std::chrono::milliseconds(-1); }},
      {"reach.connections", [](Record& r) { r.reach.connections = 0; }},
      {"reach.cache_directory", [](Record& r) { r.reach.cache_directory = "cache"; }},
      {"reach.verify", [](Record& r) { r.reach.verify = "lazy"; }},
      {"reach.hosts", [](Record& r) { r.reach.hosts = "certs.d"; }},
      {"reach.hosts", [](Record& r) { r.reach.hosts = "/etc/certs.d:"; }},
      {"reach.hosts", [](Record& r) { r.reach.hosts = "/etc/certs.d:none"; }},
      {"reach.config", [](Record& r) { r.reach.config = "mount-oci.conf"; }},
      {"image.verity", [](Record& r) { r.image.verity = digest_of({}); }},
      {"image.verity", [](Record& r) { r.image.verity_data = 4096; }},
      {"image.verity",
       [](Record& r) {
         r.image.verity = digest_of({});
         r.image.verity_data = 4097;
       }},
      {"image.verity",
       [](Record& r) {
         r.image.verity = digest_of({});
         r.image.verity_data = r.image.device_size = 1 << 20;
       }},
      {"image.verity",
       [](Record& r) {
         r.image.verity = digest_of({}, DigestAlgorithm::sha512);
         r.image.verity_data = 4096;
       }},
      {"image.mismatch", [](Record& r) { r.image.mismatch = "two\nlines"; }},
      {"image.mismatch", [](Record& r) { r.image.mismatch = std::string(1001, 'x'); }},
      {"credentials.where",
       [](Record& r) { r.credentials = {CredentialSource::Kind::file, "secret", {}}; }},
      {"credentials.where",
       [](Record& r) { r.credentials = {CredentialSource::Kind::helper, "../x", {}}; }},
      {"credentials.username", [](Record& r) { r.credentials.username = "me"; }},
      {"attach.backend", [](Record& r) { r.attach.backend = "erofsmount/nbd/mountnbd_x"; }},
      {"attach.backend", [](Record& r) { r.attach.backend = "/run/erofsmount/../mountnbd_x"; }},
      {"attach.backend",
       [](Record& r) {
         r.attach.backend = "/run/erofsmount/nbd/mountnbd_x";
         r.attach.index.reset();
       }},
      {"attach.index",
       [](Record& r) {
         r.attach.index.reset();
         r.attach.backend.clear();
       }},
      {"attach.index", [](Record& r) { r.attach.index = 1'000'000; }},
      {"attach.index",
       [](Record& r) {
         r.attach.front_end = RecordFrontEnd::ioctl;
         r.attach.index.reset();
       }},
      {"attach.index", [](Record& r) { r.attach.front_end = RecordFrontEnd::fuse; }},
      {"attach.address", [](Record& r) { r.attach.address = "/s"; }},
      {"attach.address",
       [](Record& r) {
         r.attach = {};
         r.attach.front_end = RecordFrontEnd::unix_socket;
         r.attach.address = "s";
       }},
      {"attach.sockets", [](Record& r) { r.attach.sockets = 0; }},
      {"attach.request_timeout",
       [](Record& r) { r.attach.request_timeout = std::chrono::seconds(-1); }},
      {"attach.dead_connection_timeout",
       [](Record& r) { r.attach.dead_connection_timeout = std::chrono::seconds(-1); }},
      {"known", [](Record& r) { r.known->length = 0; }},
      {"known", [](Record& r) { r.known->length = (1 << 20) + 1; }},
      {"known", [](Record& r) { r.known->offset = std::uint64_t(-1); }},
      {"known",
       [](Record& r) { r.known->offset = r.image.device_size - r.known->length + 1; }},
      {"mount_point", [](Record& r) { r.mount_point = "mnt"; }},
      {"daemon.boot_id", [](Record& r) { r.daemon.boot_id = "a b"; }},
  };
  REQUIRE(check(some_record()).has_value());

  for (auto const& [field, change] : changes) {
    auto record = some_record();
    change(record);

    auto const checked = check(record);

    INFO(field);
    REQUIRE_FALSE(checked.has_value());
    CHECK(checked.error().code == Errc::invalid_argument);
    CHECK_THAT(checked.error().context, Catch::StartsWith("record: " + field));
  }
}

TEST_CASE("Plain names are those that no path and no option can be", "[recovery][record]") {
  for (auto const* name : {"nbd0", "nbd15", "A", "erofs_oci-0123456789abcdef"}) {
    CHECK(is_plain_name(name));
  }
  for (auto const* name : {"", ".", "..", "a/b", "/nbd0", "-x", "_x", "nbd0.record", "a b", "a\n",
                           "\xc3\xa4", "mountnbd_X.Y"}) {
    CHECK_FALSE(is_plain_name(name));
  }
  CHECK(is_plain_name(std::string(64, 'a')));
  CHECK_FALSE(is_plain_name(std::string(65, 'a')));
  CHECK_FALSE(is_plain_name(std::string_view("nbd0\0", 5)));
}

TEST_CASE("A device that was taken over keeps the identifier of its first tool",
          "[recovery][record_check]") {
  auto record = some_record();
  record.attach.front_end = RecordFrontEnd::netlink;
  record.attach.index = 3;
  record.attach.backend = "/var/run/erofsmount/nbd/mountnbd_aB3xY9";
  CHECK(check(record).has_value());

  record.attach.front_end = RecordFrontEnd::ioctl;  // such a device has none
  CHECK_FALSE(check(record).has_value());
}

}  // namespace record_check_test
}  // namespace erofs_oci
