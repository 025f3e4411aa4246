// SPDX-License-Identifier: Apache-2.0
/// @file
/// check(Record): refuses a record that no daemon could have meant.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/recovery/record_fields.hpp>

namespace erofs_oci {

/// @name Limits of a record
/// @{
inline constexpr std::size_t most_record_layers = 1024;
inline constexpr std::size_t most_record_mirrors = 64;
inline constexpr std::size_t most_record_path = 4095;        ///< bytes, as PATH_MAX without its NUL
inline constexpr std::size_t most_record_bytes = 16u << 20;  ///< of the whole record
/// @}

/// Checks every field before the record is written and before it is used. Texts that go into
/// requests or messages cannot hold spaces or control characters; paths can hold anything but NUL.
///
/// @error{Errc::invalid_argument, a field that means nothing or contradicts another; the message
/// names it}
[[nodiscard]] Result<void> check(Record const& record);

namespace detail {

/// An empty optional if all is well, else what is wrong.
using Objection = std::optional<std::string>;

inline bool is_printable(std::string_view text, std::size_t most) noexcept {
  return text.size() <= most &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

/// Of letters, digits and `others`.
inline bool is_made_of(std::string_view text, std::string_view others) noexcept {
  return std::ranges::all_of(text, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           others.find(c) != others.npos;
  });
}

/// Absolute and free of ".", ".." and empty parts, so that it means the same from everywhere.
inline bool is_absolute_path(std::string_view path) noexcept {
  if (path.empty() || path.size() > most_record_path || path.front() != '/') return false;
  if (path.find('\0') != path.npos) return false;
  if (path == "/") return true;
  for (auto rest = path.substr(1);;) {
    auto const end = std::min(rest.find('/'), rest.size());
    auto const part = rest.substr(0, end);
    if (part.empty() || part == "." || part == "..") return false;
    if (end == rest.size()) return true;
    rest.remove_prefix(end + 1);
  }
}

/// Parts of lower-case letters, digits and ._- between single slashes, none of them dots alone.
inline bool is_repository_like(std::string_view text) noexcept {
  if (text.size() > 255 || !is_absolute_path("/" + std::string(text))) return false;
  return std::ranges::none_of(text, [](char c) { return c >= 'A' && c <= 'Z'; }) &&
         is_made_of(text, "._-/");
}

inline Objection check_file(std::string const& name, std::optional<LocalFile> const& file,
                            bool by_content) {
  if (!file) return std::nullopt;
  if (!is_absolute_path(file->path)) return name + ".path: not an absolute path";
  if (file->size == 0) return name + ".size: 0";
  if (by_content && !file->digest) return name + ".digest: missing";
  return std::nullopt;
}

inline Objection check_layer(RecordLayer const& layer, RecordSource source,
                             std::string const& name) {
  if (layer.size == 0) return name + ".size: 0";
  if (!is_printable(layer.media_type, 255)) return name + ".media_type: not a media type";
  auto const by_file = source == RecordSource::files;
  if (by_file != layer.file.has_value()) return name + ".file: does not go with image.source";
  if (!by_file && !layer.digest) return name + ".digest: missing";
  if (by_file && layer.file->size != layer.size) return name + ".file.size: not the blob's";
  for (auto const& [part, file, by_content] :
       {std::tuple(".file", &layer.file, false), std::tuple(".zinfo", &layer.zinfo, true),
        std::tuple(".index", &layer.index, true), std::tuple(".chunks", &layer.chunks, true)}) {
    if (auto objection = check_file(name + part, *file, by_content)) return objection;
  }
  return std::nullopt;
}

inline Objection check_place(RecordImage const& image) {
  auto const in_registry = image.source == RecordSource::registry;
  if (in_registry == image.registry.empty()) return "image.registry: does not go with the source";
  if (in_registry == image.repository.empty()) {
    return "image.repository: does not go with the source";
  }
  if (image.registry.size() > 255 || !is_made_of(image.registry, ".-:[]_")) {
    return "image.registry: not a host and port";
  }
  if (in_registry && !is_repository_like(image.repository)) {
    return "image.repository: not a repository";
  }
  if (image.tag.size() > 128 || !is_made_of(image.tag, "._-")) return "image.tag: not a tag";
  auto const in_layout = image.source == RecordSource::layout;
  if (in_layout ? !is_absolute_path(image.directory) : !image.directory.empty()) {
    return "image.directory: does not go with the source, or is not an absolute path";
  }
  if (image.platform.size() > 64 || !is_made_of(image.platform, "._-/")) {
    return "image.platform: not a platform";
  }
  return std::nullopt;
}

inline Objection check_image(RecordImage const& image) {
  if (auto objection = check_place(image)) return objection;
  if (image.layers.empty() || image.layers.size() > most_record_layers) {
    return "image.layers: " + std::to_string(image.layers.size());
  }
  for (std::size_t i = 0; i < image.layers.size(); ++i) {
    auto const name = "image.layer." + std::to_string(i);
    if (auto objection = check_layer(image.layers[i], image.source, name)) return objection;
  }
  if (auto objection = check_file("image.tarindex", image.tarindex, true)) return objection;
  auto const block = image.block_size;
  if (block < 512 || block > 65536 || (block & (block - 1)) != 0) {
    return "image.block_size: " + std::to_string(block);
  }
  if (image.device_size == 0 || image.device_size % block != 0) {
    return "image.device_size: " + std::to_string(image.device_size);
  }
  return std::nullopt;
}

inline Objection check_reach(RecordReach const& reach) {
  if (!reach.ca.empty() && !is_absolute_path(reach.ca)) return "reach.ca: not an absolute path";
  if (reach.mirrors.size() > most_record_mirrors) return "reach.mirrors: too many";
  for (auto const& mirror : reach.mirrors) {
    // What would be a user name with a password, or a signature.
    if (mirror.empty() || !is_printable(mirror, 1024) ||
        mirror.find_first_of("@?#") != mirror.npos) {
      return "reach.mirror: not a host, or one with more than a path behind it";
    }
  }
  if (reach.timeout.count() <= 0) return "reach.timeout: not positive";
  if (reach.retry && reach.retry->count() < 0) return "reach.retry: negative";
  if (reach.connections == 0) return "reach.connections: 0";
  if (!reach.cache_directory.empty() && !is_absolute_path(reach.cache_directory)) {
    return "reach.cache_directory: not an absolute path";
  }
  return std::nullopt;
}

inline Objection check_credentials(CredentialSource const& credentials) {
  using Kind = CredentialSource::Kind;
  auto const by_path = credentials.kind == Kind::docker_config || credentials.kind == Kind::file;
  if (by_path && !is_absolute_path(credentials.where)) {
    return "credentials.where: not an absolute path";
  }
  if (credentials.kind == Kind::helper && !is_plain_name(credentials.where)) {
    return "credentials.where: not a helper's name";
  }
  if (!by_path && credentials.kind != Kind::helper && !credentials.where.empty()) {
    return "credentials.where: does not go with the kind";
  }
  if (credentials.kind != Kind::file && !credentials.username.empty()) {
    return "credentials.username: does not go with the kind";
  }
  if (!is_printable(credentials.username, 255) ||
      credentials.username.find(':') != std::string::npos) {
    return "credentials.username: not a user name";
  }
  return std::nullopt;
}

inline Objection check_attach(RecordAttach const& attach) {
  using enum RecordFrontEnd;
  // What another tool has set up keeps the path that it was given.
  auto const taken_over = attach.front_end == netlink && attach.index.has_value();
  if (!attach.backend.empty() && !is_plain_name(attach.backend) &&
      !(taken_over && is_absolute_path(attach.backend))) {
    return "attach.backend: not a plain name, nor the path of a device of another tool";
  }
  switch (attach.front_end) {
    case netlink:
      if (!attach.index && attach.backend.empty()) {
        return "attach.index: neither it nor a backend names the device";
      }
      break;
    case ioctl:
      if (!attach.index) return "attach.index: missing";
      break;
    case unix_socket:
      if (!is_absolute_path(attach.address)) return "attach.address: not an absolute path";
      break;
    case tcp:
      if (attach.address.empty() || !is_printable(attach.address, 300)) {
        return "attach.address: not a host and port";
      }
      break;
    case fuse: break;
  }
  auto const has_address = attach.front_end == unix_socket || attach.front_end == tcp;
  if (!has_address && !attach.address.empty()) {
    return "attach.address: does not go with the front end";
  }
  if (attach.index && attach.front_end != netlink && attach.front_end != ioctl) {
    return "attach.index: does not go with the front end";
  }
  if (attach.index && *attach.index > 999'999) return "attach.index: no device has it";
  if (attach.sockets == 0) return "attach.sockets: 0";
  if (attach.request_timeout.count() < 0) return "attach.request_timeout: negative";
  if (attach.dead_connection_timeout.count() < 0) {
    return "attach.dead_connection_timeout: negative";
  }
  return std::nullopt;
}

inline Objection check_rest(Record const& record) {
  if (record.known) {
    auto const end = checked_add(record.known->offset, record.known->length);
    if (record.known->length == 0 || !end || *end > record.image.device_size) {
      return "known: not inside the device";
    }
  }
  if (!record.mount_point.empty() && !is_absolute_path(record.mount_point)) {
    return "mount_point: not an absolute path";
  }
  if (record.daemon.boot_id.size() > 64 || !is_made_of(record.daemon.boot_id, "-")) {
    return "daemon.boot_id: not an identifier";
  }
  return std::nullopt;
}

}  // namespace detail

inline Result<void> check(Record const& record) {
  auto objection = detail::check_image(record.image);
  if (!objection) objection = detail::check_reach(record.reach);
  if (!objection) objection = detail::check_credentials(record.credentials);
  if (!objection) objection = detail::check_attach(record.attach);
  if (!objection) objection = detail::check_rest(record);
  if (objection) return fail(Errc::invalid_argument, "record: " + *std::move(objection));
  return {};
}

}  // namespace erofs_oci
