// SPDX-License-Identifier: Apache-2.0
/// @file
/// VerityTree: the Merkle tree by which Linux's dm-verity checks a device. If you include this
/// file, you link libcrypto.
///
/// The file is what `veritysetup format` of cryptsetup writes with these settings: format version
/// 1, SHA-256 without salt, data blocks of 512 bytes, hash blocks of 4096. Data blocks are so
/// small since EROFS images over tars have such blocks, and dm-verity makes its data block the
/// least that a file system above it may read.
///
/// | bytes | what |
/// |---|---|
/// | 0 to 511 | superblock, see VeritySuperblock |
/// | to 4095 | zeros |
/// | then | the level with one hash block, the level below it, and so on down to the hashes of data
/// |
///
/// A hash block has the digests of 128 blocks of the level below, the last of a level zeros behind
/// them. The root hash is the digest of the uppermost block; of a single data block, of that.
/// @spec{Linux Documentation/admin-guide/device-mapper/verity.rst; cryptsetup, DMVerity.md}
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {

/// Where the blocks of a tree lie in its file.
class VerityShape {
 public:
  static constexpr std::uint64_t data_block = 512;   ///< bytes
  static constexpr std::uint64_t hash_block = 4096;  ///< bytes
  static constexpr std::uint64_t digests_in_block = hash_block / sha256_size;
  static constexpr std::uint64_t most_data = std::uint64_t{1} << 50;  ///< bytes

  /// @param data_size  bytes of the device
  /// @error{Errc::unsupported, no multiple of data_block from 1 block to most_data}
  [[nodiscard]] static Result<VerityShape> make(std::uint64_t data_size) {
    if (data_size == 0 || data_size > most_data || data_size % data_block != 0) {
      return fail(Errc::unsupported, "a Merkle tree over " + std::to_string(data_size) + " bytes");
    }
    return VerityShape(data_size);
  }

  [[nodiscard]] std::uint64_t data_size() const noexcept { return data_size_; }
  [[nodiscard]] std::uint64_t data_blocks() const noexcept { return data_size_ / data_block; }

  /// Hash blocks of each level, that over the data first; empty over a single data block.
  [[nodiscard]] std::vector<std::uint64_t> const& levels() const noexcept { return levels_; }

  /// Where a level begins in the file. Range: a place in levels()
  [[nodiscard]] std::uint64_t level_offset(std::size_t level) const {
    std::uint64_t blocks = 1;  // of the superblock
    for (auto above = level + 1; above < levels_.size(); ++above) blocks += levels_[above];
    return blocks * hash_block;
  }

  /// Bytes of the file.
  [[nodiscard]] std::uint64_t file_size() const {
    return levels_.empty() ? hash_block : level_offset(0) + levels_.front() * hash_block;
  }

 private:
  explicit VerityShape(std::uint64_t data_size) : data_size_(data_size) {
    auto blocks = data_blocks();
    while (blocks > 1) {
      blocks = (blocks + digests_in_block - 1) / digests_in_block;
      levels_.push_back(blocks);
    }
  }

  std::uint64_t data_size_;
  std::vector<std::uint64_t> levels_;
};

/// The beginning of a tree's file. The kernel does not read it; cryptsetup does.
///
/// On disk, little endian: [0, 8) "verity" and zeros, [8, 12) version 1, [12, 16) hash type 1,
/// [16, 32) UUID, [32, 64) "sha256" and zeros, [64, 68) 512, [68, 72) 4096, [72, 80) data blocks,
/// [80, 82) bytes of salt: 0; zeros to 512.
struct VeritySuperblock {
  static constexpr std::size_t on_disk_size = 512;  ///< bytes

  std::array<std::byte, 16> uuid{};
  std::uint64_t data_blocks = 0;

  /// Those of the tree with this root: its UUID is made of it, so that a tree has one file only.
  [[nodiscard]] static VeritySuperblock of(VerityShape const& shape, Digest const& root) {
    VeritySuperblock out;
    std::ranges::copy(root.bytes().first(out.uuid.size()), out.uuid.begin());
    out.uuid[6] = (out.uuid[6] & std::byte{0x0f}) | std::byte{0x80};  // RFC 9562, version 8
    out.uuid[8] = (out.uuid[8] & std::byte{0x3f}) | std::byte{0x80};
    out.data_blocks = shape.data_blocks();
    return out;
  }

  [[nodiscard]] std::array<std::byte, on_disk_size> encode() const {
    std::array<std::byte, on_disk_size> raw{};
    std::span<std::byte, on_disk_size> const out(raw);
    std::ranges::copy(as_bytes(std::string_view("verity")), raw.begin());
    store_le<std::uint32_t>(1, out.subspan<8, 4>());
    store_le<std::uint32_t>(1, out.subspan<12, 4>());
    std::ranges::copy(uuid, raw.begin() + 16);
    std::ranges::copy(as_bytes(std::string_view("sha256")), raw.begin() + 32);
    store_le(static_cast<std::uint32_t>(VerityShape::data_block), out.subspan<64, 4>());
    store_le(static_cast<std::uint32_t>(VerityShape::hash_block), out.subspan<68, 4>());
    store_le(data_blocks, out.subspan<72, 8>());
    return raw;
  }

  /// The inverse of encode().
  /// @error{Errc::corrupt, no superblock}
  /// @error{Errc::unsupported, one of a tree with other settings}
  [[nodiscard]] static Result<VeritySuperblock> decode(
      std::span<std::byte const, on_disk_size> raw) {
    VeritySuperblock out;
    std::ranges::copy(raw.subspan<16, 16>(), out.uuid.begin());
    out.data_blocks = load_le<std::uint64_t>(raw.subspan<72, 8>());
    auto const same = out.encode();
    if (!std::ranges::equal(raw.first<8>(), std::span(same).first<8>())) {
      return fail(Errc::corrupt, "dm-verity superblock: no magic");
    }
    if (std::ranges::equal(raw, same)) return out;
    return fail(Errc::unsupported,
                "dm-verity superblock: not version 1 with SHA-256, no salt, data blocks of 512 "
                "and hash blocks of 4096 bytes");
  }
};

/// Makes a tree of a device's bytes, which come in order, in pieces of any length. Keeps one hash
/// block a level.
///
/// @par Thread safety
/// None.
class VerityTreeBuilder {
 public:
  /// Writes a hash block at its offset in the file; also called for blocks behind ones to come.
  using Put = std::function<Result<void>(std::uint64_t offset, std::span<std::byte const> block)>;

  VerityTreeBuilder(VerityShape shape, Put put)
      : shape_(std::move(shape)), put_(std::move(put)), levels_(shape_.levels().size()) {}

  /// Adds the next bytes.
  /// @error{Errc::invalid_argument, more bytes than the shape says}
  /// @error{as Put, as it says: the builder is of no use then}
  [[nodiscard]] Result<void> update(std::span<std::byte const> bytes) {
    if (bytes.size() > shape_.data_size() - taken_) {
      return fail(Errc::invalid_argument, "a Merkle tree: too many bytes");
    }
    taken_ += bytes.size();
    constexpr auto size = static_cast<std::size_t>(VerityShape::data_block);
    if (!partial_.empty()) {
      auto const head = bytes.first(std::min(bytes.size(), size - partial_.size()));
      partial_.insert(partial_.end(), head.begin(), head.end());
      bytes = bytes.subspan(head.size());
      if (partial_.size() < size) return {};
      EROFS_OCI_TRY(add(0, digest_of(partial_)));
      partial_.clear();
    }
    for (; bytes.size() >= size; bytes = bytes.subspan(size)) {
      EROFS_OCI_TRY(add(0, digest_of(bytes.first(size))));
    }
    partial_.assign(bytes.begin(), bytes.end());
    return {};
  }

  /// Writes what is left, the superblock last. Call it once.
  /// @return the root hash
  /// @error{Errc::invalid_argument, fewer bytes than the shape says}
  /// @error{as Put, as it says}
  [[nodiscard]] Result<Digest> finish() {
    if (taken_ != shape_.data_size()) {
      return fail(Errc::invalid_argument, "a Merkle tree: too few bytes");
    }
    for (std::size_t level = 0; level < levels_.size(); ++level) {
      if (!levels_[level].block.empty()) EROFS_OCI_TRY(flush(level));
    }
    Bytes first(static_cast<std::size_t>(VerityShape::hash_block));
    std::ranges::copy(VeritySuperblock::of(shape_, root_).encode(), first.begin());
    EROFS_OCI_TRY(put_(0, first));
    return root_;
  }

 private:
  struct Level {
    Bytes block{};              // digests that are not written yet
    std::uint64_t written = 0;  // blocks
  };

  /// Adds the digest of a block to the level above it.
  Result<void> add(std::size_t level, Digest const& digest) {
    if (level == levels_.size()) {
      root_ = digest;
      return {};
    }
    auto& block = levels_[level].block;
    block.insert(block.end(), digest.bytes().begin(), digest.bytes().end());
    return block.size() == VerityShape::hash_block ? flush(level) : Result<void>();
  }

  Result<void> flush(std::size_t level) {
    auto& [block, written] = levels_[level];
    block.resize(static_cast<std::size_t>(VerityShape::hash_block));
    EROFS_OCI_TRY(put_(shape_.level_offset(level) + written * VerityShape::hash_block, block));
    ++written;
    auto const digest = digest_of(block);
    block.clear();
    return add(level + 1, digest);
  }

  VerityShape shape_;
  Put put_;
  std::vector<Level> levels_;  // that over the data first
  std::uint64_t taken_ = 0;    // bytes of data
  Bytes partial_{};            // of a data block
  Digest root_{};
};

/// A tree's file, opened. Whether it is the tree of any data, only reading them tells.
struct VerityTree {
  Digest root;                  ///< what the kernel must be told
  std::uint64_t data_size = 0;  ///< bytes of the device
};

/// Reads what a file says of itself: the superblock, and the root hash by the uppermost block.
/// @param file  its bytes, as a RandomAccessSource
/// @error{as VeritySuperblock::decode() and the source, as they say}
/// @error{Errc::corrupt, the file has not the size that its superblock asks for}
/// @error{Errc::unsupported, a tree over one data block\, whose root is not in its file}
template <class File>
[[nodiscard]] Result<VerityTree> read_verity_tree(File const& file) {
  std::array<std::byte, VeritySuperblock::on_disk_size> raw{};
  EROFS_OCI_TRY_ASSIGN(auto const n, file.read_at(0, raw));
  if (n < raw.size()) return fail(Errc::corrupt, "dm-verity superblock: cut short");
  EROFS_OCI_TRY_ASSIGN(auto const superblock, VeritySuperblock::decode(raw));
  if (superblock.data_blocks > VerityShape::most_data / VerityShape::data_block) {
    return fail(Errc::corrupt, "dm-verity superblock: number of blocks");
  }
  EROFS_OCI_TRY_ASSIGN(auto const shape,
                       VerityShape::make(superblock.data_blocks * VerityShape::data_block));
  if (shape.levels().empty()) return fail(Errc::unsupported, "a Merkle tree over one block");
  if (file.size() != shape.file_size()) {
    return fail(Errc::corrupt, "Merkle tree of " + std::to_string(file.size()) + " bytes, not " +
                                   std::to_string(shape.file_size()));
  }
  Bytes top(static_cast<std::size_t>(VerityShape::hash_block));
  EROFS_OCI_TRY_ASSIGN(auto const read,
                       file.read_at(shape.level_offset(shape.levels().size() - 1), top));
  if (read < top.size()) return fail(Errc::corrupt, "Merkle tree: cut short");
  return VerityTree{digest_of(top), shape.data_size()};
}

}  // namespace erofs_oci
