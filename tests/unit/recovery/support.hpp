// SPDX-License-Identifier: Apache-2.0
/// @file
/// Files of a test, and records of every kind.
#pragma once

#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <rapidcheck.h>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/recovery/record.hpp>

namespace erofs_oci::testing {

inline void write_file(std::string const& path, std::string_view content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(content.data(), std::ssize(content));
}

inline std::string read_file(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Texts that have split, ended or shifted fields of a format before.
inline std::vector<std::string> awkward_names() {
  return {"a",
          " ",
          "two words",
          "line\nbreak",
          "=5:x\n",
          "quote\"'`",
          "\x80\xff\xc3",
          "a,b=c",
          "\xc3\xa4\xe2",
          "%s%n",
          "\\",
          "...",
          "\r\t\x01",
          "*"};
}

/// An absolute path of any bytes but NUL; now and then the longest there is.
inline rc::Gen<std::string> any_path() {
  return rc::gen::exec([] {
    if (*rc::gen::inRange(0, 20) == 0) {
      std::string longest = "/";
      while (longest.size() < 4095) longest += *rc::gen::elementOf(awkward_names());
      longest.resize(4095);
      return longest;
    }
    auto const parts = *rc::gen::container<std::vector<std::string>>(
        3, rc::gen::oneOf(rc::gen::elementOf(awkward_names()),
                          rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::map(
                              rc::gen::inRange(1, 256),
                              [](int c) { return c == '/' || c == '.' ? '_' : char(c); })))));
    std::string path;
    for (auto const& part : parts) path += "/" + part;
    return path;
  });
}

inline rc::Gen<Digest> any_digest() {
  return rc::gen::map(rc::gen::arbitrary<std::string>(), [](std::string const& text) {
    return digest_of(as_bytes(text),
                     text.size() % 4 == 0 ? DigestAlgorithm::sha512 : DigestAlgorithm::sha256);
  });
}

inline rc::Gen<LocalFile> any_file() {
  return rc::gen::exec([] {
    return LocalFile{*any_path(),
                     *rc::gen::inRange<std::uint64_t>(1, std::uint64_t(-1)),
                     *any_digest(),
                     *rc::gen::arbitrary<std::uint64_t>(),
                     *rc::gen::arbitrary<std::uint64_t>(),
                     *rc::gen::arbitrary<std::int64_t>()};
  });
}

template <class T>
std::optional<T> maybe(rc::Gen<T> const& some) {
  if (*rc::gen::arbitrary<bool>()) return *some;
  return std::nullopt;
}

inline RecordLayer any_layer(RecordSource source) {
  RecordLayer layer;
  layer.size = *rc::gen::inRange<std::uint64_t>(1, std::uint64_t(-1));
  layer.media_type =
      *rc::gen::element<std::string>("", "application/vnd.oci.image.layer.v1.tar+gzip", "a/b");
  if (source == RecordSource::files) {
    layer.file = *any_file();
    layer.file->size = layer.size;
    if (*rc::gen::arbitrary<bool>()) layer.file->digest.reset();
  } else {
    layer.digest = *any_digest();
  }
  layer.zinfo = maybe(any_file());
  layer.index = maybe(any_file());
  layer.chunks = maybe(any_file());
  return layer;
}

inline RecordImage any_image() {
  RecordImage image;
  image.source =
      *rc::gen::element(RecordSource::registry, RecordSource::layout, RecordSource::files);
  if (image.source == RecordSource::registry) {
    image.registry = *rc::gen::element<std::string>("registry-1.docker.io", "[::1]:5000", "h:1");
    image.repository = *rc::gen::element<std::string>("library/alpine", "a", "x/y-z/w_1.2");
  }
  if (image.source == RecordSource::layout) image.directory = *any_path();
  image.tag = *rc::gen::element<std::string>("", "latest", "V1.2_rc-3");
  image.manifest = maybe(any_digest());
  image.platform = *rc::gen::element<std::string>("", "linux/amd64", "linux/arm/v7");
  image.layers.resize(*rc::gen::inRange<std::size_t>(1, 4));
  for (auto& layer : image.layers) layer = any_layer(image.source);
  image.tarindex = maybe(any_file());
  image.block_size = *rc::gen::element(512U, 4096U, 65536U);
  image.device_size = image.block_size * *rc::gen::inRange<std::uint64_t>(1, 1ull << 47);
  image.rewritten = *rc::gen::arbitrary<bool>();
  if (image.device_size > 4096 && *rc::gen::arbitrary<bool>()) {
    image.verity = digest_of(as_bytes(image.platform));
    image.verity_data = (image.device_size - 1) / 4096 * 4096;
  }
  image.mismatch = *rc::gen::element<std::string>("", "blob: its bytes are sha256:12, not 34");
  return image;
}

inline RecordReach any_reach() {
  RecordReach reach;
  reach.insecure = *rc::gen::arbitrary<bool>();
  reach.ca = maybe(any_path()).value_or("");
  reach.mirrors.resize(*rc::gen::inRange<std::size_t>(0, 4));
  for (auto& mirror : reach.mirrors) {
    mirror = *rc::gen::element<std::string>("mirror", "https://[::1]:5/p/q", "http://m:80");
  }
  reach.timeout = std::chrono::milliseconds(*rc::gen::inRange<std::int64_t>(1, 1ll << 40));
  if (*rc::gen::arbitrary<bool>()) {
    reach.retry = std::chrono::milliseconds(*rc::gen::inRange<std::int64_t>(0, 1ll << 40));
  }
  reach.connections = *rc::gen::inRange(1U, 100U);
  reach.cache_bytes = *rc::gen::arbitrary<std::uint64_t>();
  reach.cache_directory = maybe(any_path()).value_or("");
  reach.verify = *rc::gen::element<std::string>("", "off", "background", "before");
  reach.hosts = *rc::gen::element<std::string>("", "none", "/etc/certs.d", "/a b:/c\nd:/");
  reach.config = maybe(any_path()).value_or("");
  reach.inward = *rc::gen::arbitrary<bool>();
  reach.unhedged = *rc::gen::arbitrary<bool>();
  return reach;
}

inline CredentialSource any_credentials() {
  using Kind = CredentialSource::Kind;
  auto const kind = *rc::gen::element(Kind::anonymous, Kind::docker_config, Kind::file,
                                      Kind::helper, Kind::given);
  if (kind == Kind::docker_config) return {kind, *any_path(), {}};
  if (kind == Kind::file) return {kind, *any_path(), *rc::gen::element<std::string>("", "me@x")};
  if (kind == Kind::helper) return {kind, "ecr-login", {}};
  return {kind, {}, {}};
}

inline RecordAttach any_attach() {
  using enum RecordFrontEnd;
  RecordAttach attach;
  attach.front_end = *rc::gen::element(netlink, ioctl, unix_socket, tcp, fuse);
  auto const device = attach.front_end == netlink || attach.front_end == ioctl;
  attach.backend = maybe(rc::gen::element<std::string>("a", "erofs_oci-0123abcd")).value_or("");
  if (attach.front_end == ioctl || (device && attach.backend.empty())) {
    attach.index = *rc::gen::inRange(0U, 1000U);
  }
  if (attach.front_end == netlink && attach.index && *rc::gen::arbitrary<bool>()) {
    attach.backend = *any_path();
  }
  if (attach.front_end == unix_socket) attach.address = *any_path();
  if (attach.front_end == tcp) attach.address = "127.0.0.1:10809";
  attach.sockets = *rc::gen::inRange(1U, 9U);
  attach.request_timeout = std::chrono::seconds(*rc::gen::inRange(0, 1000));
  attach.dead_connection_timeout = std::chrono::seconds(*rc::gen::inRange(0, 1000));
  attach.read_ahead = *rc::gen::arbitrary<std::uint64_t>();
  return attach;
}

/// Any record that check() accepts.
inline rc::Gen<Record> any_record() {
  return rc::gen::exec([] {
    Record record;
    record.image = any_image();
    record.reach = any_reach();
    record.credentials = any_credentials();
    record.attach = any_attach();
    if (*rc::gen::arbitrary<bool>()) {
      auto const length = *rc::gen::inRange<std::uint64_t>(1, record.image.device_size + 1);
      auto const offset =
          *rc::gen::inRange<std::uint64_t>(0, record.image.device_size - length + 1);
      record.known = KnownSpan{offset, length, *any_digest()};
    }
    record.mount_point = maybe(any_path()).value_or("");
    record.daemon = {*rc::gen::arbitrary<std::uint32_t>(), *rc::gen::arbitrary<std::uint64_t>(),
                     *rc::gen::element<std::string>("", "b1946ac9-2f3b-4a0e-9f44-1d2a3c4b5d6e")};
    return record;
  });
}

/// A small record of a mounted layer, to be changed by tests.
inline Record some_record() {
  Record record;
  record.image.registry = "registry-1.docker.io";
  record.image.repository = "library/alpine";
  record.image.tag = "latest";
  record.image.manifest = digest_of(as_bytes("manifest"));
  record.image.platform = "linux/amd64";
  auto const file = [](std::string path) {
    return LocalFile{std::move(path), 1000, digest_of(as_bytes("file")), 1, 2, 3};
  };
  record.image.layers = {{digest_of(as_bytes("blob")),
                          4711,
                          "application/vnd.oci.image.layer.v1.tar+gzip",
                          {},
                          file("/var/lib/layer.zinfo"),
                          {},
                          {}}};
  record.image.tarindex = file("/var/lib/layer.erofs");
  record.image.device_size = 1 << 20;
  record.attach.index = 0;
  record.attach.backend = "erofs_oci-1";
  record.mount_point = "/mnt";
  record.known = KnownSpan{0, 4096, digest_of(as_bytes("superblock"))};
  return record;
}

}  // namespace erofs_oci::testing
