// SPDX-License-Identifier: Apache-2.0
/// @file
/// Entry: one member of a tar archive, all extended headers applied. Value types only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci::tar {

/// The unit in which an archive is laid out, in bytes.
inline constexpr std::uint64_t block_size = 512;

/// Longest path, link target and member name that we take, in bytes: PATH_MAX without its NUL, so
/// that a tree made from an archive is never deeper than a kernel path can name.
inline constexpr std::size_t max_path_length = 4095;

/// What a member is, in the order of the type flags '0' to '6' in a header.
enum class Type : std::uint8_t {
  regular,
  hard_link,
  symlink,
  char_device,
  block_device,
  directory,
  fifo,
};

/// A point in time: `seconds` since 1970, rounded down, and `nanoseconds` in [0, 1e9) after that.
struct Time {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;

  friend bool operator==(Time const&, Time const&) = default;
};

/// An extended attribute: full name, raw value.
struct Xattr {
  std::string name;
  Bytes value;

  friend bool operator==(Xattr const&, Xattr const&) = default;
};

/// A run of a member's content. What no run covers is a hole and reads as zeros.
struct Extent {
  std::uint64_t file_offset = 0;  ///< where the run lies in the file
  std::uint64_t tar_offset = 0;   ///< where it lies in the uncompressed archive
  std::uint64_t length = 0;       ///< bytes, never 0

  friend bool operator==(Extent const&, Extent const&) = default;
};

/// Bytes of a sparse file that lie in the archive where a block device cannot give them in place.
struct Copy {
  std::uint64_t file_offset = 0;  ///< a multiple of `block_size`
  Bytes bytes;                    ///< whole blocks; zeros in holes and past the file's end

  friend bool operator==(Copy const&, Copy const&) = default;
};

/// One member. Names are as in the archive: not normalised, without NUL, not checked for encoding.
struct Entry {
  Type type = Type::regular;
  std::string path;             ///< member name, 1 to `max_path_length` bytes
  std::string link;             ///< target of a hard_link or symlink, else empty
  std::uint32_t mode = 0;       ///< permission bits, at most 07777
  std::uint32_t uid = 0;        ///< owner
  std::uint32_t gid = 0;        ///< group
  Time mtime;                   ///< last modification
  std::uint32_t dev_major = 0;  ///< of a char_device or block_device
  std::uint32_t dev_minor = 0;  ///< of a char_device or block_device
  std::uint64_t size = 0;       ///< of a regular file, holes included; else 0
  std::vector<Xattr> xattrs;    ///< unique names, in the order of the archive
  std::vector<Extent>
      extents;               ///< ascending, apart; a file without holes has one, an empty one none
  std::vector<Copy> copies;  ///< ascending, apart; in place of the extents there: see SparseCopier
  bool sparse = false;       ///< the archive declares holes, even if there are none
  std::uint64_t header_offset = 0;  ///< of the member's own header in the archive

  friend bool operator==(Entry const&, Entry const&) = default;
};

/// Something that was skipped or is unusual, but no error.
struct Report {
  std::uint64_t offset = 0;  ///< of the header concerned, in the archive
  std::string text;          ///< names the member and the cause

  friend bool operator==(Report const&, Report const&) = default;
};

/// The first reports and the count of all, so that millions of them take no memory.
class Reports {
 public:
  static constexpr std::size_t kept = 1000;  ///< reports stored at most

  /// Adds one, or only counts it.
  void add(std::uint64_t offset, std::string text) {
    ++count_;
    if (list_.size() < kept) list_.push_back({offset, std::move(text)});
  }

  /// The first `kept` of them.
  [[nodiscard]] std::vector<Report> const& list() const noexcept { return list_; }

  /// How many were added.
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

 private:
  std::vector<Report> list_;
  std::uint64_t count_ = 0;
};

/// A name fit for a message: in quotes, cut after 256 bytes, control bytes and non-ASCII as \\xNN.
[[nodiscard]] inline std::string printable(std::string_view name) {
  constexpr std::size_t longest = 256;
  std::string text = "'";
  for (auto const c : name.substr(0, longest)) {
    auto const byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '\'' && c != '\\') {
      text += c;
    } else {
      auto const raw = std::byte{byte};
      text += "\\x" + hex(std::span(&raw, 1));
    }
  }
  return text + (name.size() > longest ? "...'" : "'");
}

}  // namespace erofs_oci::tar
