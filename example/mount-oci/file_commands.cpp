// SPDX-License-Identifier: Apache-2.0
// cat and stat.
#include <cstdint>
#include <string>

#include <erofs_oci/oci/encoding.hpp>

#include "entry.hpp"
#include "reading.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::erofs::Follow;
using erofs_oci::erofs::Inode;

/// @name One path
/// @{

Result<void> cat_json(Reading const& reading, ImageReader const& reader, std::string const& path,
                      Inode const& inode) {
  constexpr std::uint64_t most = std::uint64_t{1} << 30;
  if (inode.size() > most) {
    return fail(Errc::unsupported, path + ": more than 1 GiB; use cat without --json");
  }
  EROFS_OCI_TRY_ASSIGN(auto object, entry_json(reader, path, inode));
  std::string content;
  auto const add = [&](auto piece) {
    content += erofs_oci::as_text(piece);
    return true;
  };
  EROFS_OCI_TRY(reader.stream_file(inode, 0, inode.size(), add), path);
  object["content_base64"] = erofs_oci::base64_encode(content);
  return reading.output.put_json(object);
}

Result<void> cat_one(Reading const& reading, ImageReader const& reader, std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto const inode, find_path(reader, path, Follow::all));
  if (inode.is_directory()) return fail(std::make_error_code(std::errc::is_a_directory), path);
  if (!inode.is_regular()) {
    return fail(std::make_error_code(std::errc::invalid_argument),
                path + ": a " + std::string(type_text(inode.mode())));
  }
  if (reading.options.read.json) return cat_json(reading, reader, path_in_image(path), inode);
  Result<void> written;
  auto const ok = reader.stream_file(inode, 0, inode.size(), [&](auto piece) {
    written = reading.output.put(erofs_oci::as_text(piece));
    return written.has_value();
  });
  if (!written) return written;
  if (!ok) return fail(ok.error(), path);
  return {};
}

std::string stat_text(Output const& output, std::string const& path, Inode const& inode,
                      std::string const& target, erofs_oci::json::Value const& details) {
  auto text = "  File: " + output.shown(path) + target +
              "\n  Type: " + std::string(type_text(inode.mode())) +
              "\n  Size: " + std::to_string(inode.size()) +
              "\n  Mode: " + details.at("mode").get<std::string>() + " (" +
              mode_text(inode.mode()) + ")\n Owner: " + std::to_string(inode.record.uid) + ":" +
              std::to_string(inode.record.gid) + "\n Links: " + std::to_string(inode.record.links) +
              "\n Inode: " + std::to_string(inode.nid) +
              "\nModify: " + time_text(inode.mtime, true) + "\n";
  if (inode.is_device()) {
    text += "Device: " + std::to_string(inode.device().major) + ", " +
            std::to_string(inode.device().minor) + "\n";
  }
  for (auto const& xattr : details.at("xattrs")) {
    text += " Xattr: " + output.shown(xattr.at("name").get<std::string>()) + " (base64) " +
            xattr.at("value_base64").get<std::string>() + "\n";
  }
  return text;
}

Result<void> stat_one(Reading const& reading, ImageReader const& reader, std::string const& path) {
  EROFS_OCI_TRY_ASSIGN(auto const inode, find_path(reader, path, Follow::parents));
  auto const name = path_in_image(path);
  EROFS_OCI_TRY_ASSIGN(auto object, entry_json(reader, name, inode));
  EROFS_OCI_TRY(add_details(reader, inode, object), name);
  if (reading.options.read.json) return reading.output.put_json(object);
  EROFS_OCI_TRY_ASSIGN(auto const target, link_text(reader, inode, reading.output), name);
  return reading.output.put(stat_text(reading.output, name, inode, target, object));
}
/// @}

/// @param one  `(Reading const&, ImageReader const&, std::string const& path) -> Result<void>`
template <class Do>
Result<Status> for_each_file(Reading const& reading, Do const& one) {
  EROFS_OCI_TRY_ASSIGN(auto const reader, reading.open());
  return for_each_path(reading, reader, [&](std::string const& path) -> Result<Status> {
    EROFS_OCI_TRY(one(reading, reader, path));
    return 0;
  });
}

}  // namespace

Result<Status> run_cat(Reading const& reading) {
  return for_each_file(reading, cat_one);
}

Result<Status> run_stat(Reading const& reading) {
  return for_each_file(reading, stat_one);
}

}  // namespace mount_oci
