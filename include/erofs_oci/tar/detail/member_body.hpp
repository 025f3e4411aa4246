// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tar/member.hpp only declares.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>
#include <erofs_oci/tar/member.hpp>
#include <erofs_oci/tar/pax.hpp>

namespace erofs_oci::tar {
namespace detail {

/// The value of the first field in the order of precedence, else `otherwise`.
template <class T>
[[nodiscard]] T pick(PaxField<T> const& local, PaxField<T> const& global, T otherwise) {
  if (local.present) return local.value.value_or(std::move(otherwise));
  return global.value.value_or(std::move(otherwise));
}

[[nodiscard]] inline std::string member_name(Header const& header, Extensions const& before) {
  auto const& sparse = before.local.sparse;
  if (sparse && sparse->name) return *sparse->name;
  return pick(before.local.path, before.global.path, before.long_name.value_or(header.name));
}

/// Empty for a type that we do not know. 'S' is a regular file.
[[nodiscard]] inline std::optional<Type> member_type(char typeflag, std::string_view name) {
  // Before POSIX a slash was the only mark of a directory.
  if (typeflag == '\0') return name.ends_with('/') ? Type::directory : Type::regular;
  if (typeflag == '7' || typeflag == 'S') return Type::regular;
  if (typeflag < '0' || typeflag > '6') return std::nullopt;
  return static_cast<Type>(typeflag - '0');
}

/// What a member of a type that we do not know is.
[[nodiscard]] inline std::string unknown_type(char typeflag) {
  if (typeflag == 'V') return "volume label";
  if (typeflag == 'M') return "part of a file of another volume";
  return "type " + printable({&typeflag, 1});
}

inline void set_id(Member& member, std::uint32_t& id, std::uint64_t value, char const* what) {
  auto const small = narrow<std::uint32_t>(value);
  if (!small) {
    member.left_out = std::string(what) + " " + std::to_string(value) + " does not fit 32 bits";
  }
  id = small.value_or(0);
}

inline void set_numbers(Member& member, Header const& header, Extensions const& before) {
  auto const& [local, global, name, link] = before;
  auto& entry = member.entry;
  set_id(member, entry.uid, pick(local.uid, global.uid, header.uid), "uid");
  set_id(member, entry.gid, pick(local.gid, global.gid, header.gid), "gid");
  set_id(member, entry.dev_major, header.dev_major, "device major");
  set_id(member, entry.dev_minor, header.dev_minor, "device minor");
  entry.mode = header.mode;
  entry.mtime = pick(local.mtime, global.mtime, Time{header.mtime, 0});
  member.packed = pick(local.size, global.size, header.size);
}

inline void set_names(Member& member, Header const& header, Extensions const& before) {
  auto& entry = member.entry;
  auto const is_link = entry.type == Type::hard_link || entry.type == Type::symlink;
  if (is_link) {
    entry.link =
        pick(before.local.linkpath, before.global.linkpath, before.long_link.value_or(header.link));
  }
  if (entry.path.empty()) member.left_out = "no name";
  if (is_link && entry.link.empty()) member.left_out = "no link target";
  if (std::max(entry.path.size(), entry.link.size()) > max_path_length) {
    member.left_out =
        "name or link target of more than " + std::to_string(max_path_length) + " bytes";
  }
}

[[nodiscard]] inline Result<void> set_sparse(Member& member, Header const& header,
                                             Extensions const& before) {
  member.old_map = header.typeflag == 'S';
  if (member.old_map && header.dialect != Dialect::gnu) {
    return fail(Errc::unsupported, "sparse map of an unknown dialect");
  }
  member.entry.size = member.packed;
  auto const& sparse = before.local.sparse;
  if (!sparse || member.entry.type != Type::regular || member.old_map) return {};
  if (sparse->map_in_data() ? sparse->minor.value_or(0) != 0 : sparse->major.value_or(0) != 0) {
    member.left_out = "GNU.sparse version " + std::to_string(*sparse->major) + "." +
                      std::to_string(sparse->minor.value_or(0));
  } else if (!sparse->real_size) {
    member.left_out = "GNU.sparse records without the file's size";
  } else {
    member.map = *sparse;
  }
  return {};
}

}  // namespace detail

EROFS_OCI_BODY Result<Member> assemble(Header const& header, Extensions const& before,
                                       std::uint64_t offset) {
  Member member;
  auto& entry = member.entry;
  entry.header_offset = offset;
  entry.path = detail::member_name(header, before);
  auto const type = detail::member_type(header.typeflag, entry.path);
  entry.type = type.value_or(Type::regular);
  detail::set_numbers(member, header, before);
  if (entry.type == Type::regular) {
    auto const data = align_up(member.packed, block_size);
    if (!data || *data > max_offset - block_size - std::min(offset, max_offset - block_size)) {
      return fail(Errc::corrupt, member.describe() + ": data of " + std::to_string(member.packed) +
                                     " bytes end past 2^63");
    }
  } else {
    member.packed = 0;
  }
  detail::set_names(member, header, before);
  if (!type) {
    member.left_out = detail::unknown_type(header.typeflag);
    return member;
  }
  entry.xattrs = before.local.xattrs;
  EROFS_OCI_TRY(detail::set_sparse(member, header, before), member.describe());
  return member;
}

}  // namespace erofs_oci::tar
