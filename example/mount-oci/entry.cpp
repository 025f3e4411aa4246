// SPDX-License-Identifier: Apache-2.0
#include "entry.hpp"

#include <array>
#include <cstdio>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/encoding.hpp>

namespace mount_oci {

using erofs_oci::fail;
using erofs_oci::erofs::Inode;
using erofs_oci::erofs::Run;
using erofs_oci::json::Value;

Result<Value> entry_json(ImageReader const& reader, std::string_view path, Inode const& inode) {
  Value object;
  put_name(object, "path", path);
  object["type"] = std::string(1, type_letter(inode.mode()));
  std::array<char, 8> octal{};
  std::snprintf(octal.data(), octal.size(), "%04o", inode.mode() & 07777u);
  object["mode"] = octal.data();
  object["uid"] = inode.record.uid;
  object["gid"] = inode.record.gid;
  object["size"] = inode.size();
  object["mtime"] = inode.mtime.seconds;
  object["mtime_nsec"] = inode.mtime.nanoseconds;
  object["links"] = inode.record.links;
  object["inode"] = inode.nid;
  if (inode.is_device()) {
    object["major"] = inode.device().major;
    object["minor"] = inode.device().minor;
  }
  if (inode.is_symlink()) {
    EROFS_OCI_TRY_ASSIGN(auto const target, reader.read_link(inode), std::string(path));
    put_name(object, "target", target);
  }
  return object;
}

Result<void> add_details(ImageReader const& reader, Inode const& inode, Value& object) {
  EROFS_OCI_TRY_ASSIGN(auto const xattrs, reader.xattrs(inode));
  object["xattrs"] = Value::array();
  for (auto const& xattr : xattrs) {
    Value one;
    put_name(one, "name", xattr.name);
    one["value_base64"] = erofs_oci::base64_encode(erofs_oci::as_text(xattr.value));
    object["xattrs"].push_back(std::move(one));
  }
  if (!inode.is_regular()) return {};
  object["data"] = Value::array();
  auto const& slots = reader.frame().slots();
  return reader.runs(inode, 0, inode.size(), [&](Run const& run) -> Result<bool> {
    if (!run.place) return true;
    Value one{
        {"file_offset", run.file_offset}, {"length", run.length}, {"offset", run.place->offset}};
    if (auto const device = run.place->device; device > 0) {
      auto const tag = erofs_oci::as_text(slots[device - 1].tag);
      put_name(one, "layer", tag.substr(0, tag.find('\0')));
    }
    object["data"].push_back(std::move(one));
    return true;
  });
}

Result<std::string> link_text(ImageReader const& reader, Inode const& inode, Output const& output) {
  if (!inode.is_symlink()) return std::string();
  EROFS_OCI_TRY_ASSIGN(auto const target, reader.read_link(inode));
  return " -> " + output.shown(target);
}

Result<Inode> find_path(ImageReader const& reader, std::string const& path,
                        erofs_oci::erofs::Follow last) {
  if (path.ends_with('/')) last = erofs_oci::erofs::Follow::all;
  auto found = erofs_oci::erofs::find(reader, path, last);
  if (found && path.ends_with('/') && !found->is_directory()) {
    return fail(std::make_error_code(std::errc::not_a_directory), path);
  }
  return found;
}

std::string path_in_image(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  return path.starts_with('/') ? std::string(path) : "/" + std::string(path);
}

}  // namespace mount_oci
