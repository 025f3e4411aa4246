// SPDX-License-Identifier: Apache-2.0
/// @file
/// What tar/writer.hpp only declares.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/writer.hpp>

namespace erofs_oci::tar {
namespace detail {

/// `LENGTH KEY=VALUE\n`. @spec{POSIX.1-2017 pax, pax Header Block}
[[nodiscard]] inline std::string pax_line(std::string_view key, std::string_view value) {
  auto const rest = " " + std::string(key) + "=" + std::string(value) + "\n";
  auto length = rest.size();
  while (std::to_string(length).size() + rest.size() != length) {
    length = std::to_string(length).size() + rest.size();
  }
  return std::to_string(length) + rest;
}

/// Seconds with a fraction; a time before 1970 counts down to it.
[[nodiscard]] inline std::string time_value(Time const& time) {
  if (time.nanoseconds == 0) return std::to_string(time.seconds);
  auto const negative = time.seconds < 0;
  auto const nanoseconds = negative ? 1'000'000'000 - time.nanoseconds : time.nanoseconds;
  auto const seconds = negative ? -(time.seconds + 1) : time.seconds;
  auto const digits = std::to_string(nanoseconds);
  return (negative ? "-" : "") + std::to_string(seconds) + "." +
         std::string(9 - digits.size(), '0') + digits;
}

/// 512 bytes, filled field by field.
class HeaderBlock {
 public:
  HeaderBlock() : bytes_(block_size) { text(257, std::string_view("ustar\00000", 8)); }

  void text(std::size_t at, std::string_view value) {
    std::ranges::copy(as_bytes(value), bytes_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  /// Octal digits and a NUL.
  void number(std::size_t at, std::size_t digits, std::uint64_t value) {
    for (auto i = digits; i-- > 0; value >>= 3) {
      bytes_[at + i] = static_cast<std::byte>('0' + (value & 7));
    }
  }

  /// Appends the block, with its checksum, to `out`.
  void seal_onto(Bytes& out) {
    text(148, "        ");
    std::uint64_t sum = 0;
    for (auto const byte : bytes_) sum += std::to_integer<unsigned>(byte);
    number(148, 6, sum);
    bytes_[154] = std::byte{0};
    out.insert(out.end(), bytes_.begin(), bytes_.end());
  }

 private:
  Bytes bytes_;
};

inline constexpr std::uint64_t max_octal_7 = (1u << 21) - 1;                 ///< seven digits
inline constexpr std::uint64_t max_octal_11 = (std::uint64_t{1} << 33) - 1;  ///< eleven digits
inline constexpr std::size_t name_field = 100;                               ///< bytes

inline void pad(Bytes& bytes) {
  bytes.resize((bytes.size() + block_size - 1) / block_size * block_size);
}

/// The values for which a member's own header has no room.
class Extension {
 public:
  /// Writes a number into a field, or records it here and writes 0 there.
  [[nodiscard]] std::uint64_t number(std::string_view key, std::uint64_t value,
                                     std::uint64_t most) {
    if (value <= most) return value;
    add(key, std::to_string(value));
    return 0;
  }

  /// Writes a name into its field, or records it here and writes its start there.
  [[nodiscard]] std::string_view name(std::string_view key, std::string_view value) {
    if (value.size() > name_field) add(key, value);
    return value.substr(0, name_field);
  }

  [[nodiscard]] std::uint64_t time(Time const& time) {
    auto const fits = time.nanoseconds == 0 && time.seconds >= 0 &&
                      static_cast<std::uint64_t>(time.seconds) <= max_octal_11;
    if (fits) return static_cast<std::uint64_t>(time.seconds);
    add("mtime", time_value(time));
    return 0;
  }

  void add(std::string_view key, std::string_view value) { records_ += pax_line(key, value); }

  /// The blocks to put in front; none if nothing was recorded.
  void append_to(Bytes& out) const {
    if (records_.empty()) return;
    HeaderBlock header;
    header.text(0, "././@PaxHeader");
    header.number(100, 7, 0644);
    header.number(108, 7, 0);
    header.number(116, 7, 0);
    header.number(124, 11, records_.size());
    header.number(136, 11, 0);
    header.text(156, "x");
    header.seal_onto(out);
    auto const bytes = as_bytes(records_);
    out.insert(out.end(), bytes.begin(), bytes.end());
    pad(out);
  }

 private:
  std::string records_;
};

/// A sparse file's map, form 1.0: decimal lines in front of the data. A hole at the end is an empty
/// run. @spec{GNU tar manual, Storing Sparse Files, PAX Format, Version 1.0}
[[nodiscard]] inline Bytes sparse_map(Entry const& entry) {
  auto const ends_in_hole =
      entry.extents.empty() ||
      entry.extents.back().file_offset + entry.extents.back().length < entry.size;
  auto text = std::to_string(entry.extents.size() + (ends_in_hole ? 1 : 0)) + "\n";
  for (auto const& extent : entry.extents) {
    text += std::to_string(extent.file_offset) + "\n" + std::to_string(extent.length) + "\n";
  }
  if (ends_in_hole) text += std::to_string(entry.size) + "\n0\n";
  auto map = to_bytes(text);
  pad(map);
  return map;
}

}  // namespace detail

EROFS_OCI_BODY std::uint64_t stored_size(Entry const& entry) noexcept {
  std::uint64_t sum = 0;
  for (auto const& extent : entry.extents) sum += extent.length;
  return sum;
}

EROFS_OCI_BODY Result<Bytes> encode_header(Entry const& entry) {
  auto const sparse = entry.type == Type::regular && stored_size(entry) < entry.size;
  detail::Extension extension;
  detail::HeaderBlock header;
  if (sparse) {
    extension.add("GNU.sparse.major", "1");
    extension.add("GNU.sparse.minor", "0");
    extension.add("GNU.sparse.name", entry.path);
    extension.add("GNU.sparse.realsize", std::to_string(entry.size));
  }
  auto const map = sparse ? detail::sparse_map(entry) : Bytes();
  header.text(0, extension.name("path", entry.path));
  header.number(100, 7, entry.mode);
  header.number(108, 7, extension.number("uid", entry.uid, detail::max_octal_7));
  header.number(116, 7, extension.number("gid", entry.gid, detail::max_octal_7));
  header.number(124, 11,
                extension.number("size", stored_size(entry) + map.size(), detail::max_octal_11));
  header.number(136, 11, extension.time(entry.mtime));
  header.text(156, std::string(1, static_cast<char>('0' + static_cast<int>(entry.type))));
  header.text(157, extension.name("linkpath", entry.link));
  header.number(329, 7, entry.dev_major);
  header.number(337, 7, entry.dev_minor);
  for (auto const& [name, value] : entry.xattrs) {
    if (name.find('=') != std::string::npos) {
      return fail(Errc::unsupported, printable(entry.path) + ": attribute " + printable(name));
    }
    extension.add("SCHILY.xattr." + name, as_text(value));
  }
  Bytes out;
  extension.append_to(out);
  header.seal_onto(out);
  out.insert(out.end(), map.begin(), map.end());
  return out;
}

}  // namespace erofs_oci::tar
