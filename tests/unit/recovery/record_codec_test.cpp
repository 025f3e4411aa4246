// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/record_codec.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <array>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include "support.hpp"

namespace erofs_oci {
namespace record_codec_test {

using testing::any_record;
using testing::some_record;

/// With a checksum that is right for whatever stands before it.
std::string sealed(std::string body) {
  body += "sha256=64:" + digest_of(as_bytes(body)).hex() + "\n";
  return body;
}

std::string without_seal(std::string const& bytes) {
  return bytes.substr(0, bytes.rfind("sha256=64:"));
}

std::string encoded(Record const& record) {
  auto bytes = encode_record(record);
  if (!bytes) FAIL(bytes.error().message());
  return *std::move(bytes);
}

/// Where each field begins in a record's bytes, and behind the last one its end; the header is no
/// field. Reads lengths, so that newlines in values do no harm.
std::vector<std::size_t> field_starts(std::string const& bytes) {
  std::vector<std::size_t> starts;
  for (auto at = bytes.find('\n') + 1;;) {
    starts.push_back(at);
    if (at == bytes.size()) return starts;
    auto const equals = bytes.find('=', at);
    auto const colon = bytes.find(':', equals);
    at = colon + 2 + std::stoul(bytes.substr(equals + 1, colon - equals - 1));
  }
}

TEST_CASE("A record reads back as it was written", "[recovery][record][property]") {
  rc::prop("for all records, paths with any bytes in them included", [] {
    auto const record = *any_record();

    auto const bytes = encode_record(record);
    RC_ASSERT(bytes.has_value());
    auto const again = parse_record(*bytes);

    RC_ASSERT(again.has_value());
    RC_ASSERT(*again == record);
    RC_ASSERT(encode_record(*again).value() == *bytes);
  });
}

TEST_CASE("Paths with spaces, newlines, quotes, invalid UTF-8 and 4 KiB come back whole",
          "[recovery][record]") {
  for (auto const& name : testing::awkward_names()) {
    auto record = some_record();
    record.mount_point = "/mnt/" + name;
    record.image.tarindex->path = "/i/" + name + "/x";
    record.image.layers[0].zinfo->path = "/z" + name;

    CHECK(parse_record(encoded(record)).value() == record);
  }
  auto record = some_record();
  record.mount_point = "/" + std::string(4094, ' ');
  CHECK(parse_record(encoded(record)).value() == record);
  record.mount_point += ' ';
  CHECK_FALSE(encode_record(record).has_value());
}

TEST_CASE("Every truncation of a record is an error", "[recovery][record][error]") {
  auto const bytes = encoded(some_record());

  for (std::size_t size = 0; size < bytes.size(); ++size) {
    INFO("cut to " << size << " bytes");
    CHECK_FALSE(parse_record(std::string_view(bytes).substr(0, size)).has_value());
  }
}

TEST_CASE("Every flipped bit of a record is an error", "[recovery][record][error]") {
  auto const bytes = encoded(some_record());

  std::size_t accepted = 0;
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    auto damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    if (parse_record(damaged)) ++accepted;
  }

  CHECK(accepted == 0);
}

TEST_CASE("Bytes behind, before or inside a record are an error", "[recovery][record][property]") {
  rc::prop("for all records and all insertions", [] {
    auto bytes = encode_record(*any_record()).value();
    auto const extra = *rc::gen::nonEmpty<std::string>();
    auto const at = *rc::gen::weightedOneOf<std::size_t>(
        {{1, rc::gen::just(bytes.size())},
         {3, rc::gen::inRange<std::size_t>(0, bytes.size() + 1)}});

    bytes.insert(at, extra);

    RC_ASSERT_FALSE(parse_record(bytes).has_value());
  });
}

TEST_CASE("A field that is missing shifts no other, even under a right checksum",
          "[recovery][record][property]") {
  rc::prop("for all records and all fields that are cut out, doubled or swapped", [] {
    auto const record = *any_record();
    auto const bytes = without_seal(encode_record(record).value());
    auto const starts = field_starts(bytes);
    auto const i = *rc::gen::inRange<std::size_t>(0, starts.size() - 1);
    auto const field = bytes.substr(starts[i], starts[i + 1] - starts[i]);

    auto cut = bytes;
    cut.erase(starts[i], field.size());
    auto doubled = bytes;
    doubled.insert(starts[i], field);
    auto swapped = cut;
    swapped.insert(i == 0 ? cut.size() : starts[0], field);

    auto const name = field.substr(0, field.find('='));
    constexpr std::array later{"image.rewritten", "image.mismatch", "reach.verify",  "reach.hosts",
                               "reach.config",    "reach.inward",   "reach.unhedged"};
    auto const may_be_missing = std::ranges::find(later, name) != later.end();

    RC_ASSERT(parse_record(sealed(cut)).has_value() == may_be_missing);
    RC_ASSERT_FALSE(parse_record(sealed(doubled)).has_value());
    RC_ASSERT_FALSE(parse_record(sealed(swapped)).has_value());
    RC_ASSERT(parse_record(sealed(bytes)).value() == record);
  });
}

TEST_CASE("Fields behind the last one are an error", "[recovery][record][error]") {
  auto const body = without_seal(encoded(some_record()));
  for (auto const* more : {"x=0:\n", "daemon.boot_id=0:\n", "\n", "x"}) {
    CHECK(parse_record(sealed(body + more)).error().code == Errc::corrupt);
  }
}

TEST_CASE("A value cannot end its field and begin another", "[recovery][record]") {
  auto record = some_record();
  record.image.tarindex->path = "/a\nimage.device_size=4:1024\nsha256=64:";
  auto const bytes = encoded(record);

  auto const again = parse_record(bytes);

  REQUIRE(again.has_value());
  CHECK(*again == record);
  CHECK(again->image.device_size == 1 << 20);
}

TEST_CASE("Numbers and words have one spelling", "[recovery][record][error]") {
  auto const good = without_seal(encoded(some_record()));
  auto const replaced = [&](std::string const& from, std::string const& to) {
    auto body = good;
    auto const at = body.find(from);
    REQUIRE(at != body.npos);
    body.replace(at, from.size(), to);
    return parse_record(sealed(body));
  };
  REQUIRE(replaced("", "").has_value());

  CHECK_FALSE(replaced("image.block_size=3:512", "image.block_size=4:0512").has_value());
  CHECK_FALSE(replaced("image.block_size=3:512", "image.block_size=03:512").has_value());
  CHECK_FALSE(replaced("image.block_size=3:512", "image.block_size=4:+512").has_value());
  CHECK_FALSE(replaced("image.block_size=3:512", "image.block_size=4:512 ").has_value());
  CHECK_FALSE(replaced("image.block_size=3:512", "image.block_size=0:").has_value());
  CHECK_FALSE(replaced("image.block_size=3:512", "image.block_size=10:4294967808").has_value());
  CHECK_FALSE(replaced("image.block_size=3:512", "image.block_size=4294967299:512").has_value());
  CHECK_FALSE(replaced("image.block_size=3:512", "image.block_size=-1:512").has_value());
  CHECK_FALSE(replaced("image.block_size", "image.block_sise").has_value());
  CHECK_FALSE(replaced("image.source=8:registry", "image.source=8:Registry").has_value());
  CHECK_FALSE(replaced("reach.insecure=2:no", "reach.insecure=1:0").has_value());
  CHECK_FALSE(replaced("image.layers=1:1", "image.layers=10:4000000000").has_value());
  // A field that is written only with another value than its type's own has no line with that.
  CHECK(replaced("reach.insecure", "image.mismatch=1:x\nreach.insecure").has_value());
  CHECK_FALSE(replaced("reach.insecure", "image.mismatch=0:\nreach.insecure").has_value());
  CHECK_FALSE(replaced("image.manifest=71:sha256", "image.manifest=71:SHA256").has_value());
}

TEST_CASE("A record of another version is not guessed at", "[recovery][record][error]") {
  auto body = without_seal(encoded(some_record()));
  body.replace(body.find(" 1\n"), 3, " 2\n");

  auto const record = parse_record(sealed(body));

  REQUIRE_FALSE(record.has_value());
  CHECK(record.error().code == Errc::unsupported);
}

TEST_CASE("Nothing, and what is not a record, says which it is", "[recovery][record][error]") {
  CHECK(parse_record("").error().code == Errc::truncated);
  CHECK(parse_record("erofs_oci record 1\n").error().code == Errc::truncated);
  CHECK(parse_record("LOCAL /dev/sda and more bytes\n").error().code == Errc::corrupt);
  CHECK(parse_record(std::string(4096, '\0')).error().code == Errc::corrupt);
}

TEST_CASE("A whole record that makes no sense is not used", "[recovery][record][error]") {
  auto body = without_seal(encoded(some_record()));
  auto const from = std::string("image.repository=14:library/alpine");
  body.replace(body.find(from), from.size(), "image.repository=12:library/a\nxy");

  auto const record = parse_record(sealed(body));

  REQUIRE_FALSE(record.has_value());
  CHECK(record.error().code == Errc::invalid_argument);
  CHECK_THAT(record.error().message(), Catch::Contains("image.repository"));
}

// A secret that is given by hand, in every way that a caller may have got it.
TEST_CASE("No secret reaches a record", "[recovery][record][property]") {
  rc::prop("for all credentials and all records", [] {
    auto const secret =
        "s3cr3t-" +
        *rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::inRange('0', char('z' + 1))));
    GivenCredentials const options{
        .username = *rc::gen::element<std::string>("", "me"),
        .password = *rc::gen::element<std::string>("", secret),
        .password_file = *rc::gen::element<std::string>("", "/run/secrets/registry"),
        .helper = *rc::gen::element<std::string>("", "pass"),
        .docker_config = *rc::gen::element<std::string>("", "/root/.docker/config.json")};
    auto record = *any_record();
    record.credentials = credential_source(options);

    auto const bytes = encode_record(record);

    RC_ASSERT(bytes.has_value());
    for (auto const& shape : {secret, hex(as_bytes(secret)), std::string("s3cr3t")}) {
      RC_ASSERT(bytes->find(shape) == std::string::npos);
    }
    RC_ASSERT((record.credentials.kind == CredentialSource::Kind::given) ==
              !options.password.empty());
  });
}

TEST_CASE("Fields that could carry a secret refuse one", "[recovery][record][error]") {
  auto record = some_record();

  SECTION("a mirror's user name and password") {
    record.reach.mirrors = {"https://me:s3cr3t@mirror"};
  }
  SECTION("a mirror's signature") {
    record.reach.mirrors = {"https://mirror/x?X-Amz-Signature=s3cr3t"};
  }
  SECTION("a user name with a password behind it") {
    record.credentials = {CredentialSource::Kind::file, "/f", "me:s3cr3t"};
  }
  SECTION("a helper with an argument") {
    record.credentials = {CredentialSource::Kind::helper, "pass --secret=s3cr3t", {}};
  }
  SECTION("what was given by hand") {
    record.credentials = {CredentialSource::Kind::given, "s3cr3t", {}};
  }
  SECTION("a registry with a user name") {
    record.image.registry = "me:s3cr3t@host";
  }

  auto const bytes = encode_record(record);

  REQUIRE_FALSE(bytes.has_value());
  CHECK_THAT(bytes.error().message(), !Catch::Contains("s3cr3t"));
}

TEST_CASE("Credentials are recorded by the first place that was named", "[recovery][record]") {
  using Kind = CredentialSource::Kind;
  GivenCredentials options{.username = "me",
                           .password = "p",
                           .password_file = "/f",
                           .helper = "h",
                           .docker_config = "/c"};

  CHECK(credential_source(options) == CredentialSource{Kind::given, "", ""});
  options.password.clear();
  CHECK(credential_source(options) == CredentialSource{Kind::helper, "h", ""});
  options.helper.clear();
  CHECK(credential_source(options) == CredentialSource{Kind::file, "/f", "me"});
  options.password_file.clear();
  CHECK(credential_source(options) == CredentialSource{Kind::docker_config, "/c", ""});
  options.docker_config.clear();
  CHECK(credential_source(options) == CredentialSource{});
}

}  // namespace record_codec_test
}  // namespace erofs_oci
