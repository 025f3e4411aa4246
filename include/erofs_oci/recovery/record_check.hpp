// SPDX-License-Identifier: Apache-2.0
/// @file
/// check(Record): refuses a record that makes no sense.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/posix/path.hpp>
#include <erofs_oci/recovery/record.hpp>

namespace erofs_oci {

/// @name Limits of a record
/// @{
inline constexpr std::size_t most_record_layers = 1024;
inline constexpr std::size_t most_record_mirrors = 64;
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

/// The text of the first row that holds.
inline Objection first_objection(std::initializer_list<std::pair<bool, char const*>> rows) {
  auto const found = std::ranges::find(rows, true, &std::pair<bool, char const*>::first);
  return found == rows.end() ? std::nullopt : Objection(found->second);
}

inline bool is_printable(std::string_view text, std::size_t most) noexcept {
  return text.size() <= most &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
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
  auto const in_layout = image.source == RecordSource::layout;
  return first_objection({
      {in_registry == image.registry.empty(), "image.registry: does not go with the source"},
      {in_registry == image.repository.empty(), "image.repository: does not go with the source"},
      {image.registry.size() > 255 || !is_made_of(image.registry, ".-:[]_"),
       "image.registry: not a host and port"},
      {in_registry && !is_repository_like(image.repository), "image.repository: not a repository"},
      {image.tag.size() > 128 || !is_made_of(image.tag, "._-"), "image.tag: not a tag"},
      {in_layout ? !is_absolute_path(image.directory) : !image.directory.empty(),
       "image.directory: does not go with the source, or is not an absolute path"},
      {image.platform.size() > 64 || !is_made_of(image.platform, "._-/"),
       "image.platform: not a platform"},
  });
}

inline Objection check_image(RecordImage const& image) {
  if (auto objection = check_place(image)) return objection;
  auto const least = image.source == RecordSource::files ? 1U : 0U;  // an image may have no layer
  if (image.layers.size() < least || image.layers.size() > most_record_layers) {
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
  auto const has_tree = image.verity != Digest();
  if (image.verity.algorithm() != DigestAlgorithm::sha256 || image.verity_data % 4096 != 0 ||
      has_tree != (image.verity_data != 0) || image.verity_data >= image.device_size) {
    return "image.verity: no Merkle tree behind the data";
  }
  auto const is_text = [](char c) { return c >= ' ' && c <= '~'; };
  if (image.mismatch.size() > 1000 || !std::ranges::all_of(image.mismatch, is_text)) {
    return "image.mismatch: not a message";
  }
  return std::nullopt;
}

/// `none`, nothing, or absolute paths joined by colons.
inline bool is_path_list(std::string_view text) noexcept {
  return text.empty() || text == "none" || are_parts_good(text, ':', is_absolute_path);
}

inline Objection check_reach(RecordReach const& reach) {
  if (!reach.ca.empty() && !is_absolute_path(reach.ca)) return "reach.ca: not an absolute path";
  if (reach.mirrors.size() > most_record_mirrors) return "reach.mirrors: too many";
  for (auto const& mirror : reach.mirrors) {
    // These could be a user name with a password, or a signature.
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
  if (!reach.verify.empty() && reach.verify != "off" && reach.verify != "background" &&
      reach.verify != "before") {
    return "reach.verify: unknown word";
  }
  if (!is_path_list(reach.hosts)) return "reach.hosts: not absolute paths";
  if (!reach.config.empty() && !is_absolute_path(reach.config)) {
    return "reach.config: not an absolute path";
  }
  return std::nullopt;
}

inline Objection check_credentials(CredentialSource const& credentials) {
  using enum CredentialSource::Kind;
  auto const& [kind, where, username] = credentials;
  auto const by_path = kind == docker_config || kind == file;
  return first_objection({
      {by_path && !is_absolute_path(where), "credentials.where: not an absolute path"},
      {kind == helper && !is_plain_name(where), "credentials.where: not a helper's name"},
      {!by_path && kind != helper && !where.empty(),
       "credentials.where: does not go with the kind"},
      {kind != file && !username.empty(), "credentials.username: does not go with the kind"},
      {!is_printable(username, 255) || username.find(':') != username.npos,
       "credentials.username: not a user name"},
  });
}

inline Objection check_attach(RecordAttach const& attach) {
  using enum RecordFrontEnd;
  auto const way = attach.front_end;
  // What another tool has set up keeps the path that it was given.
  auto const taken_over = way == netlink && attach.index.has_value();
  return first_objection({
      {!attach.backend.empty() && !is_plain_name(attach.backend) &&
           !(taken_over && is_absolute_path(attach.backend)),
       "attach.backend: not a plain name, nor the path of a device of another tool"},
      {way == netlink && !attach.index && attach.backend.empty(),
       "attach.index: neither it nor a backend names the device"},
      {way == ioctl && !attach.index, "attach.index: missing"},
      {way == unix_socket && !is_absolute_path(attach.address),
       "attach.address: not an absolute path"},
      {way == tcp && (attach.address.empty() || !is_printable(attach.address, 300)),
       "attach.address: not a host and port"},
      {way != unix_socket && way != tcp && !attach.address.empty(),
       "attach.address: does not go with the front end"},
      {attach.index && way != netlink && way != ioctl,
       "attach.index: does not go with the front end"},
      {attach.index && *attach.index > 999'999, "attach.index: no device has it"},
      {attach.sockets == 0, "attach.sockets: 0"},
      {attach.request_timeout.count() < 0, "attach.request_timeout: negative"},
      {attach.dead_connection_timeout.count() < 0, "attach.dead_connection_timeout: negative"},
  });
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
  if (!objection) return {};
  return fail(Errc::invalid_argument, "record: " + *std::move(objection));
}

}  // namespace erofs_oci
