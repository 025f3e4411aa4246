// SPDX-License-Identifier: Apache-2.0
/// @file
/// Directory blocks: entries, names, and the search for one. No I/O.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/tree.hpp>

namespace erofs_oci::erofs {

/// The type in a directory entry. Other values occur only in damaged images.
enum class FileType : std::uint8_t {
  unknown = 0,
  regular = 1,
  directory = 2,
  char_device = 3,
  block_device = 4,
  fifo = 5,
  socket = 6,
  symlink = 7,
};

/// What a kind of file is called: in a tree, in a directory entry, and in st_mode.
struct KindNames {
  Kind kind;
  FileType type;
  std::uint16_t mode;
};

/// All kinds. A whiteout is a character device.
inline constexpr std::array<KindNames, 8> kind_names{{
    {Kind::regular, FileType::regular, mode::regular},
    {Kind::directory, FileType::directory, mode::directory},
    {Kind::symlink, FileType::symlink, mode::symlink},
    {Kind::char_device, FileType::char_device, mode::char_device},
    {Kind::block_device, FileType::block_device, mode::block_device},
    {Kind::fifo, FileType::fifo, mode::fifo},
    {Kind::socket, FileType::socket, mode::socket},
    {Kind::whiteout, FileType::char_device, mode::char_device},
}};

/// The type that belongs to a mode; unknown for a mode without a valid one.
[[nodiscard]] constexpr FileType file_type(std::uint16_t mode) noexcept {
  auto const found = std::ranges::find(kind_names, mode & mode::type_mask, &KindNames::mode);
  return found == kind_names.end() ? FileType::unknown : found->type;
}

/// The kind that belongs to a mode; a regular file for a mode without a valid one.
[[nodiscard]] constexpr Kind kind_of(std::uint16_t mode) noexcept {
  auto const found = std::ranges::find(kind_names, mode & mode::type_mask, &KindNames::mode);
  return found == kind_names.end() ? Kind::regular : found->kind;
}

/// The mode bits of a kind.
[[nodiscard]] constexpr std::uint16_t type_bits(Kind kind) noexcept {
  return std::ranges::find(kind_names, kind, &KindNames::kind)->mode;
}

/// One entry: 12 bytes, little endian; [11, 12) is zero.
struct Dirent {
  static constexpr std::size_t on_disk_size = 12;  ///< bytes

  std::uint64_t nid = 0;              ///< [0, 8)
  std::uint16_t name_offset = 0;      ///< [8, 10)  from the block's start
  FileType type = FileType::unknown;  ///< [10, 11)

  /// Total.
  [[nodiscard]] static constexpr Dirent decode(
      std::span<std::byte const, on_disk_size> raw) noexcept {
    return {load_le<std::uint64_t>(raw.subspan<0, 8>()),
            load_le<std::uint16_t>(raw.subspan<8, 2>()), static_cast<FileType>(raw[10])};
  }

  /// The inverse.
  constexpr void encode(std::span<std::byte, on_disk_size> raw) const noexcept {
    store_le(nid, raw.subspan<0, 8>());
    store_le(name_offset, raw.subspan<8, 2>());
    raw[10] = static_cast<std::byte>(type);
    raw[11] = std::byte{0};
  }
};

/// One entry of a directory, its name borrowed from the block.
struct DirEntry {
  std::string_view name;  ///< 1 to 255 bytes, no `/`, no NUL; "." and ".." are ordinary entries
  std::uint64_t nid = 0;
  FileType type = FileType::unknown;

  /// Whether it is "." or "..".
  [[nodiscard]] bool is_dot() const noexcept { return name == "." || name == ".."; }
};

/// One block of a directory, checked and borrowed.
///
/// DataLayout: n entries, then their n names without terminators; the last one ends at a NUL or at
/// the block's end.
/// @spec{spec/tarindex.md section 6.3}
class DirBlock {
 public:
  /// Checks offsets and names, so that the accessors cannot fail. Does not check the order of
  /// names.
  /// @param bytes  a block, or the used part of the last one; outlives this object
  /// @error{Errc::corrupt, an entry or name leaves the block or is none; the text gives the offset
  /// in the block}
  [[nodiscard]] static Result<DirBlock> parse(std::span<std::byte const> bytes);

  /// Entries, at least 1.
  [[nodiscard]] std::size_t count() const noexcept { return count_; }

  /// Entry `i` of count().
  [[nodiscard]] DirEntry operator[](std::size_t i) const noexcept {
    auto const entry = raw(i);
    return {as_text(bytes_.subspan(entry.name_offset, name_end(i) - entry.name_offset)), entry.nid,
            entry.type};
  }

  /// Index of the first entry not below `name`, if the names ascend; count() if all are below.
  [[nodiscard]] std::size_t lower_bound(std::string_view name) const noexcept;

  /// Whether all bytes after the last name are zeros, as they should be.
  [[nodiscard]] bool is_clean() const noexcept {
    return std::ranges::all_of(bytes_.subspan(name_end(count_ - 1)),
                               [](std::byte b) { return b == std::byte{0}; });
  }

 private:
  DirBlock(std::span<std::byte const> bytes, std::size_t count) noexcept
      : bytes_(bytes), count_(count) {}

  [[nodiscard]] Dirent raw(std::size_t i) const noexcept {
    return Dirent::decode(bytes_.subspan(i * Dirent::on_disk_size).first<Dirent::on_disk_size>());
  }

  [[nodiscard]] std::size_t name_end(std::size_t i) const noexcept;

  [[nodiscard]] std::string_view problem(std::size_t i) const noexcept;

  std::span<std::byte const> bytes_;
  std::size_t count_;
};

}  // namespace erofs_oci::erofs

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/erofs/detail/directory_body.hpp>
#endif
