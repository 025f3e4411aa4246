// SPDX-License-Identifier: Apache-2.0
/// @file
/// From a header and the extended headers before it to an Entry: what overrides what. No I/O.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>
#include <erofs_oci/tar/pax.hpp>
#include <erofs_oci/tar/sparse.hpp>

namespace erofs_oci::tar {

/// What was said before a member's own header.
struct Extensions {
  Pax local;                             ///< `x`
  Pax global;                            ///< all `g` so far
  std::optional<std::string> long_name;  ///< `L`
  std::optional<std::string> long_link;  ///< `K`
};

/// A member whose header is complete.
struct Member {
  Entry entry;                       ///< extents are still missing
  std::uint64_t packed = 0;          ///< bytes of data in the archive, without padding
  bool emitted = true;               ///< false: to be passed over
  bool old_map = false;              ///< `S`: a sparse map in header blocks
  std::optional<SparseRecords> map;  ///< PAX sparse

  /// For messages.
  [[nodiscard]] std::string describe() const {
    return "member " + printable(entry.path) + " at offset " + std::to_string(entry.header_offset);
  }
};

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
  switch (typeflag) {
    case '\0':  // before POSIX a slash was the only mark of a directory
      return name.ends_with('/') ? Type::directory : Type::regular;
    case '0':
    case '7':
    case 'S': return Type::regular;
    case '1': return Type::hard_link;
    case '2': return Type::symlink;
    case '3': return Type::char_device;
    case '4': return Type::block_device;
    case '5': return Type::directory;
    case '6': return Type::fifo;
    default: return std::nullopt;
  }
}

[[nodiscard]] inline Result<std::uint32_t> id(std::uint64_t value, std::string_view what) {
  if (auto const small = narrow<std::uint32_t>(value)) return *small;
  return fail(Errc::unsupported,
              std::string(what) + " " + std::to_string(value) + " does not fit 32 bits");
}

[[nodiscard]] inline Result<void> set_numbers(Member& member, Header const& header,
                                              Extensions const& before) {
  auto const& [local, global, name, link] = before;
  auto& entry = member.entry;
  auto const uid = id(pick(local.uid, global.uid, header.uid), "uid");
  auto const gid = id(pick(local.gid, global.gid, header.gid), "gid");
  auto const dev_major = id(header.dev_major, "device major");
  auto const dev_minor = id(header.dev_minor, "device minor");
  for (auto const* number : {&uid, &gid, &dev_major, &dev_minor}) {
    if (!*number) return fail(number->error());
  }
  entry.mode = header.mode;
  entry.uid = *uid;
  entry.gid = *gid;
  entry.dev_major = *dev_major;
  entry.dev_minor = *dev_minor;
  entry.mtime = pick(local.mtime, global.mtime, Time{header.mtime, 0});
  member.packed = pick(local.size, global.size, header.size);
  return {};
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
    return fail(Errc::unsupported, "GNU.sparse version " + std::to_string(*sparse->major) + "." +
                                       std::to_string(sparse->minor.value_or(0)));
  }
  if (!sparse->real_size) return fail(Errc::corrupt, "GNU.sparse records without the file's size");
  member.map = *sparse;
  return {};
}

}  // namespace detail

/// Applies what was said before to a header. PAX local over PAX global over GNU long names over the
/// header; an empty PAX value takes the global one back and leaves the header's.
///
/// Links, directories, devices and FIFOs have no data, whatever their size field says: some
/// archivers leave the size of a directory or of a link's target there.
/// @error{Errc::corrupt, the member has no name or no link target\, or its data would end past 2^63
/// - 1}
/// @error{Errc::unsupported, a name is longer than `max_path_length`\, an id than 32 bits}
[[nodiscard]] inline Result<Member> assemble(Header const& header, Extensions const& before,
                                             std::uint64_t offset) {
  Member member;
  auto& entry = member.entry;
  entry.header_offset = offset;
  entry.path = detail::member_name(header, before);
  auto const type = detail::member_type(header.typeflag, entry.path);
  member.emitted = type.has_value();
  entry.type = type.value_or(Type::regular);
  if (auto const ok = detail::set_numbers(member, header, before); !ok) {
    return fail(ok.error(), member.describe());
  }
  if (!member.emitted || entry.type == Type::regular) {
    auto const data = align_up(member.packed, block_size);
    if (!data || *data > max_offset - block_size - std::min(offset, max_offset - block_size)) {
      return fail(Errc::corrupt, member.describe() + ": data of " + std::to_string(member.packed) +
                                     " bytes end past 2^63");
    }
  } else {
    member.packed = 0;
  }
  if (!member.emitted) return member;

  if (entry.path.empty()) return fail(Errc::corrupt, member.describe() + ": no name");
  if (entry.type == Type::hard_link || entry.type == Type::symlink) {
    entry.link = detail::pick(before.local.linkpath, before.global.linkpath,
                              before.long_link.value_or(header.link));
    if (entry.link.empty()) return fail(Errc::corrupt, member.describe() + ": no link target");
  }
  if (std::max(entry.path.size(), entry.link.size()) > max_path_length) {
    return fail(Errc::unsupported, member.describe() + ": name or link target of more than " +
                                       std::to_string(max_path_length) + " bytes");
  }
  entry.xattrs = before.local.xattrs;
  if (auto const ok = detail::set_sparse(member, header, before); !ok) {
    return fail(ok.error(), member.describe());
  }
  return member;
}

}  // namespace erofs_oci::tar
