// SPDX-License-Identifier: Apache-2.0
#include "upstream_record.hpp"  // first: proves that the header stands alone

#include <string>
#include <string_view>

#include <catch.hpp>
#include <rapidcheck/catch.h>

namespace mount_oci {
namespace upstream_record_test {

using Kind = UpstreamRecord::Kind;

std::string const digest = "sha256:" + std::string(64, 'a');
constexpr auto credentials = "dXNlcjpwYXNzd29yZA==";  // user:password

UpstreamRecord parse(std::string const& text) {
  auto record = parse_upstream_record(text);
  if (!record) FAIL(record.error().message());
  return *std::move(record);
}

std::error_code refusal(std::string const& text) {
  auto const record = parse_upstream_record(text);
  INFO(text);
  REQUIRE_FALSE(record.has_value());
  CHECK_THAT(record.error().message(), !Catch::Contains(credentials));
  return record.error().code;
}

TEST_CASE("Each of upstream's five records is read", "[tool][upstream_record]") {
  auto const local = parse("LOCAL /srv/image.erofs\n");
  CHECK(local.kind == Kind::local);
  CHECK(local.path == "/srv/image.erofs");

  auto const layer = parse("OCI_LAYER docker.io/library/alpine:3 linux/amd64 2 \n");
  CHECK(layer.kind == Kind::oci_layer);
  CHECK(layer.image == "docker.io/library/alpine:3");
  CHECK(layer.platform == "linux/amd64");
  CHECK(layer.layer == 2U);
  CHECK_FALSE(layer.had_credentials);

  auto const native = parse("OCI_NATIVE_BLOB h:5000/a@" + digest + " linux/arm/v7 " + digest + " " +
                            credentials + "\n");
  CHECK(native.kind == Kind::native_blob);
  CHECK(native.blob->to_string() == digest);
  CHECK(native.had_credentials);

  auto const tarindex =
      parse("TARINDEX_OCI_BLOB alpine linux/amd64 " + digest + "  /i/l.erofs /i/l.zinfo\n");
  CHECK(tarindex.kind == Kind::tarindex_blob);
  CHECK(tarindex.tarindex == "/i/l.erofs");
  CHECK(tarindex.zinfo == "/i/l.zinfo");
  CHECK_FALSE(tarindex.had_credentials);

  auto const s3 = parse("S3_OBJECT bucket/a/key s3.example.com:9000 1 0 (nil) \n");
  CHECK(s3.kind == Kind::s3_object);
  CHECK(s3.object == "bucket/a/key");
  CHECK(s3.endpoint == "s3.example.com:9000");
  CHECK(parse("S3_OBJECT b/k http://e 0 1 eu-1\n").object == "b/k");
}

TEST_CASE("An empty field is empty and shifts nothing", "[tool][upstream_record]") {
  auto const layer = parse("OCI_LAYER alpine  0 \n");
  CHECK(layer.platform.empty());
  CHECK(layer.layer == 0U);

  auto const blob = parse("TARINDEX_OCI_BLOB alpine  " + digest + "  /l.erofs \n");
  CHECK(blob.platform.empty());
  CHECK(blob.blob->to_string() == digest);
  CHECK(blob.tarindex == "/l.erofs");
  CHECK(blob.zinfo.empty());

  CHECK(refusal("OCI_LAYER  linux/amd64 0 \n") == Errc::invalid_argument);
  CHECK(refusal("OCI_LAYER alpine linux/amd64  \n") == Errc::invalid_argument);
  CHECK(refusal("OCI_NATIVE_BLOB alpine linux/amd64  \n") == Errc::invalid_argument);
}

TEST_CASE("A space in a path is kept where it is clear, refused where it is not",
          "[tool][upstream_record]") {
  CHECK(parse("LOCAL /srv/my image \n").path == "/srv/my image ");
  CHECK(refusal("TARINDEX_OCI_BLOB a linux/amd64 " + digest + "  /my index /z\n") == Errc::corrupt);
  CHECK(refusal("TARINDEX_OCI_BLOB a b linux/amd64 " + digest + "  /i /z\n") == Errc::corrupt);
  CHECK(refusal("OCI_LAYER a b linux/amd64 0 \n") == Errc::corrupt);
}

TEST_CASE("Relative paths, which depend on a directory that is gone, are refused",
          "[tool][upstream_record][error]") {
  CHECK(refusal("LOCAL image.erofs\n") == Errc::invalid_argument);
  CHECK(refusal("LOCAL /a/../b\n") == Errc::invalid_argument);
  CHECK(refusal("LOCAL \n") == Errc::invalid_argument);
  CHECK(refusal("TARINDEX_OCI_BLOB a  " + digest + "  l.erofs /z\n") == Errc::invalid_argument);
  CHECK(refusal("TARINDEX_OCI_BLOB a  " + digest + "  /l.erofs z\n") == Errc::invalid_argument);
}

TEST_CASE("A zinfo without a tarindex is no file system", "[tool][upstream_record][error]") {
  CHECK(refusal("TARINDEX_OCI_BLOB a  " + digest + "   /z\n") == Errc::unsupported);
}

TEST_CASE("A file without its end, with more lines or with nothing is refused",
          "[tool][upstream_record][error]") {
  CHECK(refusal("") == Errc::truncated);
  CHECK(refusal("LOCAL /srv/image") == Errc::truncated);
  CHECK(refusal("LOCAL /srv/image\nLOCAL /etc/shadow\n") == Errc::corrupt);
  CHECK(refusal("LOCAL /srv/image\n\n") == Errc::corrupt);
  CHECK(refusal("\n") == Errc::unsupported);
  CHECK(refusal("LOCAL\n") == Errc::unsupported);
  CHECK(refusal("local /srv/image\n") == Errc::unsupported);
  CHECK(refusal(std::string("LOCAL /a\0b\n", 11)) == Errc::corrupt);
  CHECK(refusal("LOCAL /" + std::string(100'000, 'a') + "\n") == Errc::corrupt);
}

TEST_CASE("Fields that mean nothing are refused", "[tool][upstream_record][error]") {
  for (auto const* layer : {"-1", "x", "1x", "01", "+1", "4294967296", "2147483648"}) {
    CHECK(refusal("OCI_LAYER a linux/amd64 " + std::string(layer) + " \n") ==
          Errc::invalid_argument);
  }
  CHECK(refusal("OCI_LAYER a linux 0 \n") == Errc::invalid_argument);
  CHECK(refusal("OCI_LAYER a linux/../x 0 \n") == Errc::invalid_argument);
  CHECK(refusal("OCI_LAYER a?b linux/amd64 0 \n") == Errc::invalid_argument);
  CHECK(refusal("OCI_LAYER a\tb linux/amd64 0 \n") == Errc::invalid_argument);
  CHECK(refusal("OCI_NATIVE_BLOB a linux/amd64 " + std::string(64, 'a') + " \n") ==
        Errc::invalid_argument);
  CHECK(refusal("S3_OBJECT bucket e 0 1 r\n") == Errc::invalid_argument);
  CHECK(refusal("S3_OBJECT b/k e 2 1 r\n") == Errc::invalid_argument);
  CHECK(refusal("S3_OBJECT b/k e 0 4 r\n") == Errc::invalid_argument);
  CHECK(refusal("S3_OBJECT b/k  0 1 r\n") == Errc::invalid_argument);
  CHECK(refusal("S3_OBJECT b/k e 0 1 r x y\n") == Errc::corrupt);
}

TEST_CASE("Credentials are reported, never kept nor quoted", "[tool][upstream_record]") {
  auto const record = parse("OCI_LAYER a linux/amd64 0 " + std::string(credentials) + "\n");
  CHECK(record.had_credentials);
  for (auto const* text : {&record.image, &record.platform, &record.path, &record.object}) {
    CHECK(text->find("dXNl") == std::string::npos);
  }
  for (auto const* bad : {"dXNlcjpwYXNz?", "dXN", "dXNlcg=a", "====", "=", "dXNl cg=="}) {
    auto const text = "OCI_LAYER a linux/amd64 0 " + std::string(bad) + "\n";
    CHECK_FALSE(parse_upstream_record(text).has_value());
  }
}

TEST_CASE("Every truncation of an upstream record is an error", "[tool][upstream_record]") {
  auto const text = "TARINDEX_OCI_BLOB alpine linux/amd64 " + digest + " " + credentials +
                    " /i/l.erofs /i/l.zinfo\n";
  REQUIRE(parse_upstream_record(text).has_value());

  for (std::size_t size = 0; size < text.size(); ++size) {
    CHECK_FALSE(parse_upstream_record(text.substr(0, size)).has_value());
  }
}

TEST_CASE("Any bytes are an upstream record or an error", "[tool][upstream_record][property]") {
  rc::prop("for all texts of few words", [] {
    auto const words = *rc::gen::container<std::vector<std::string>>(rc::gen::oneOf(
        rc::gen::element<std::string>("LOCAL", "OCI_LAYER", "OCI_NATIVE_BLOB", "S3_OBJECT",
                                      "TARINDEX_OCI_BLOB", "a", "linux/amd64", "0", "1", "", "/i",
                                      digest, "dXNlcg==", "b/k"),
        rc::gen::arbitrary<std::string>()));
    std::string text;
    for (auto const& word : words) text += word + " ";
    if (!text.empty()) text.back() = '\n';

    auto const record = parse_upstream_record(text);

    if (!record) return;
    for (auto const* path : {&record->path, &record->tarindex, &record->zinfo}) {
      RC_ASSERT(path->empty() || path->starts_with('/'));
    }
    RC_ASSERT(record->image.find_first_of(" \n\r\t\"'\\") == std::string::npos);
  });
}

}  // namespace upstream_record_test
}  // namespace mount_oci
