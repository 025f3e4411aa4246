// SPDX-License-Identifier: Apache-2.0
/// @file
/// Directory blocks: entries, names, and the search for one. No I/O.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/inode.hpp>

namespace erofs_oci::erofs {

/// What a directory entry says about its file. Other values occur only in damaged images.
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

/// The type that belongs to a mode; unknown for a mode without a valid one.
[[nodiscard]] constexpr FileType file_type(std::uint16_t mode) noexcept {
  switch (mode & mode::type_mask) {
    case mode::regular: return FileType::regular;
    case mode::directory: return FileType::directory;
    case mode::char_device: return FileType::char_device;
    case mode::block_device: return FileType::block_device;
    case mode::fifo: return FileType::fifo;
    case mode::socket: return FileType::socket;
    case mode::symlink: return FileType::symlink;
    default: return FileType::unknown;
  }
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
  /// Checks offsets and names, so that the accessors cannot fail. Order is not checked.
  /// @param bytes  a block, or the used part of the last one; outlives this object
  /// @error{Errc::corrupt, an entry or name leaves the block or is none; the text gives the offset
  /// in the block}
  [[nodiscard]] static Result<DirBlock> parse(std::span<std::byte const> bytes) {
    if (bytes.size() < Dirent::on_disk_size) return fail(Errc::corrupt, "no room for an entry");
    auto const first = Dirent::decode(bytes.first<Dirent::on_disk_size>()).name_offset;
    if (first == 0 || first % Dirent::on_disk_size != 0 || first >= bytes.size()) {
      return fail(Errc::corrupt, "first name at offset " + std::to_string(first));
    }
    DirBlock const block(bytes, first / Dirent::on_disk_size);
    for (std::size_t i = 0; i < block.count(); ++i) {
      if (auto const why = block.problem(i); !why.empty()) {
        return fail(Errc::corrupt, "entry " + std::to_string(i) + ": " + std::string(why));
      }
    }
    return block;
  }

  /// Entries, at least 1.
  [[nodiscard]] std::size_t count() const noexcept { return count_; }

  /// Entry `i` of count().
  [[nodiscard]] DirEntry operator[](std::size_t i) const noexcept {
    auto const entry = raw(i);
    return {as_text(bytes_.subspan(entry.name_offset, name_end(i) - entry.name_offset)), entry.nid,
            entry.type};
  }

  /// Index of the first entry not below `name`, if the names ascend; count() if all are below.
  [[nodiscard]] std::size_t lower_bound(std::string_view name) const noexcept {
    std::size_t low = 0;
    std::size_t high = count_;
    while (low < high) {
      auto const middle = low + (high - low) / 2;
      if ((*this)[middle].name < name) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

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

  [[nodiscard]] std::size_t name_end(std::size_t i) const noexcept {
    if (i + 1 < count_) return raw(i + 1).name_offset;
    auto const start = raw(i).name_offset;
    if (start >= bytes_.size()) return bytes_.size();
    auto const rest = bytes_.subspan(start);
    return start + static_cast<std::size_t>(std::ranges::find(rest, std::byte{0}) - rest.begin());
  }

  [[nodiscard]] std::string_view problem(std::size_t i) const noexcept {
    auto const start = raw(i).name_offset;
    auto const end = name_end(i);
    if (end > bytes_.size() || start >= bytes_.size()) return "its name leaves the block";
    if (start >= end) return "its name is empty or begins after the next one";
    if (end - start > max_name_length) return "its name is longer than 255 bytes";
    for (auto const byte : bytes_.subspan(start, end - start)) {
      if (byte == std::byte{0} || byte == std::byte{'/'}) return "its name holds NUL or /";
    }
    return {};
  }

  std::span<std::byte const> bytes_;
  std::size_t count_;
};

}  // namespace erofs_oci::erofs
