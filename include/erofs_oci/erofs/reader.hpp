// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reader: reads the files of an EROFS image without the kernel.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/file_map.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/erofs/frame.hpp>
#include <erofs_oci/erofs/inode.hpp>
#include <erofs_oci/erofs/inode_reader.hpp>
#include <erofs_oci/erofs/tree.hpp>
#include <erofs_oci/erofs/xattr.hpp>
#include <erofs_oci/erofs/xattr_prefixes.hpp>
#include <erofs_oci/source/zeros.hpp>

namespace erofs_oci::erofs {

/// The values of statfs(2) for a mounted image.
struct Statfs {
  std::uint64_t block_size = 0;  ///< bytes
  std::uint64_t blocks = 0;      ///< image and devices
  std::uint64_t inodes = 0;
};

/// Reads uncompressed EROFS images: directories, inodes, links, xattrs, file data.
///
/// Trusts nothing in the image: the image bounds each offset and count, a few directory blocks
/// bound the memory, and every error names the inode and the offset. check() (fsck.hpp) checks an
/// image as a whole.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource S>
class Reader {
 public:
  /// Checks the superblock, the device table and the root directory.
  /// @param image    the image; or the image with its devices' data behind it (flat). An image
  ///                 alone can be listed; reading data that it does not hold is an error
  /// @param devices  none (flat), or one for each slot of the device table, in its order
  /// @error{Errc::corrupt, no EROFS image or a damaged one}
  /// @error{Errc::truncated, the image is shorter than it says}
  /// @error{Errc::unsupported, a feature or block size that we do not know}
  /// @error{Errc::mismatch, a number of devices that is neither 0 nor that of the table}
  [[nodiscard]] static Result<Reader> open(S image, std::vector<AnySource> devices = {}) {
    EROFS_OCI_TRY_ASSIGN(auto frame, Frame<S>::open(std::move(image), std::move(devices)),
                         "erofs image");
    Reader reader(std::move(frame));
    EROFS_OCI_TRY_ASSIGN(auto const root, reader.root(), "erofs image: root directory");
    if (!root.is_directory()) {
      return fail(Errc::corrupt, "erofs image: root: " + name_of(root) + " is no directory");
    }
    EROFS_OCI_TRY(reader.read_prefixes(), "erofs image: xattr name prefixes");
    return reader;
  }

  [[nodiscard]] Superblock const& superblock() const noexcept { return frame_.superblock(); }
  [[nodiscard]] Frame<S> const& frame() const noexcept { return frame_; }

  /// Never fails; sums saturate.
  [[nodiscard]] Statfs statfs() const noexcept {
    Statfs result{frame_.block(), superblock().blocks(), superblock().inodes};
    for (std::size_t i = 0; i < frame_.slots().size(); ++i) {
      result.blocks = checked_add(result.blocks, frame_.slot_blocks(i)).value_or(~std::uint64_t{0});
    }
    return result;
  }

  /// The root directory.
  [[nodiscard]] Result<Inode> root() const { return inode(superblock().root()); }

  /// Reads and checks one inode.
  /// @error{Errc::corrupt, no inode there\, or content that leaves the image}
  /// @error{Errc::unsupported, a format or layout that we do not know}
  [[nodiscard]] Result<Inode> inode(std::uint64_t nid) const {
    EROFS_OCI_TRY_ASSIGN(auto result, read_inode(frame_, nid), "inode " + std::to_string(nid));
    return result;
  }

  /// @name Directories
  /// @{

  /// Visits all entries, "." and ".." included, in the image's order; the visitor returns false to
  /// end early. Checks names and offsets, but not the order.
  /// @error{std::errc::not_a_directory, it is none}
  /// @error{Errc::corrupt, a block that cannot be read as entries}
  [[nodiscard]] Result<void> readdir(Inode const& directory,
                                     FunctionRef<bool(DirEntry const&)> visit) const {
    return read_blocks(directory, [&](DirBlock const& block) {
      for (std::size_t i = 0; i < block.count(); ++i) {
        if (!visit(block[i])) return false;
      }
      return true;
    });
  }

  /// Visits the blocks of a directory, in order.
  /// @param first  the block to begin with; one past the last visits nothing
  [[nodiscard]] Result<void> read_blocks(Inode const& directory,
                                         FunctionRef<bool(DirBlock const&)> visit,
                                         std::uint64_t first = 0) const {
    if (!directory.is_directory()) return fail(not_a_directory(), name_of(directory));
    auto const block = frame_.block();
    Bytes buffer(
        static_cast<std::size_t>(std::min(directory.size(), std::max<std::uint64_t>(block, 8192))));
    if (first > directory.size() / block) return {};
    for (auto at = first * block; at < directory.size(); at += buffer.size()) {
      auto const part = std::span(buffer).first(
          static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), directory.size() - at)));
      EROFS_OCI_TRY(read_content(directory, at, part));
      for (std::size_t i = 0; i < part.size(); i += block) {
        auto const bytes = part.subspan(i, std::min<std::size_t>(part.size() - i, block));
        EROFS_OCI_TRY_ASSIGN(auto const entries, DirBlock::parse(bytes),
                             directory_block(directory, (at + i) / block));
        if (!visit(entries)) return {};
      }
    }
    return {};
  }

  /// An entry by name: two binary searches, as the kernel does; empty if there is none.
  /// @error{std::errc::not_a_directory, it is none}
  /// @error{Errc::corrupt, a block on the way that cannot be read as entries}
  [[nodiscard]] Result<std::optional<std::pair<std::uint64_t, FileType>>> lookup(
      Inode const& directory, std::string_view name) const {
    if (!directory.is_directory()) return fail(not_a_directory(), name_of(directory));
    Bytes buffer(static_cast<std::size_t>(std::min(directory.size(), frame_.block())));
    std::uint64_t low = 0;  // blocks [0, low) end below `name`; [high, end) begin above it
    auto high = (directory.size() + frame_.block() - 1) / frame_.block();
    while (low < high) {
      auto const middle = low + (high - low) / 2;
      auto const at = middle * frame_.block();
      auto const part = std::span(buffer).first(
          static_cast<std::size_t>(std::min<std::uint64_t>(frame_.block(), directory.size() - at)));
      EROFS_OCI_TRY(read_content(directory, at, part));
      EROFS_OCI_TRY_ASSIGN(auto const entries, DirBlock::parse(part),
                           directory_block(directory, middle));
      auto const i = entries.lower_bound(name);
      if (i < entries.count()) {
        auto const entry = entries[i];
        if (entry.name == name) return std::pair(entry.nid, entry.type);
        if (i > 0) break;
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return std::nullopt;
  }
  /// @}

  /// The target of a symbolic link.
  /// @error{std::errc::invalid_argument, it is none}
  [[nodiscard]] Result<std::string> read_link(Inode const& link) const {
    if (!link.is_symlink()) {
      return fail(std::make_error_code(std::errc::invalid_argument), name_of(link));
    }
    std::string target(static_cast<std::size_t>(link.size()), '\0');
    auto const bytes = std::as_writable_bytes(std::span(target.data(), target.size()));
    EROFS_OCI_TRY(read_content(link, 0, bytes));
    return target;
  }

  /// @name Extended attributes
  /// @{

  /// All that the kernel would list: inline first, then shared ones; our own marks are left out.
  /// @error{Errc::corrupt, an area or shared entry that does not fit}
  [[nodiscard]] Result<std::vector<Xattr>> xattrs(Inode const& inode) const {
    std::vector<Xattr> list;
    auto const ok = visit_xattrs(inode, [&](XattrView const& view) {
      if (auto const prefix = prefix_text(view.prefix)) {
        list.push_back({*prefix + std::string(view.rest), to_bytes(view.value)});
      }
      return true;
    });
    if (!ok) return tl::unexpected(ok.error());
    return list;
  }

  /// Visits the stored entries, those of unknown or internal prefixes included: inline, then
  /// shared.
  /// @error{Errc::corrupt, an area or shared entry that does not fit}
  [[nodiscard]] Result<void> visit_xattrs(Inode const& inode,
                                          FunctionRef<bool(XattrView const&)> visit) const {
    if (inode.record.xattr_size() == 0) return {};
    Bytes area(inode.record.xattr_size());
    std::vector<std::uint32_t> shared;
    bool stopped = false;
    auto const collect = [&](std::uint32_t id) {
      shared.push_back(id);
      return true;
    };
    auto const show = [&](XattrView const& view) {
      stopped = !visit(view);
      return !stopped;
    };
    auto result = frame_.read(inode.xattr_position(), area);
    if (result) result = for_each_xattr(area, collect, show);
    if (result && !stopped) result = visit_shared(shared, show);
    if (!result) return fail(result.error(), name_of(inode) + ": xattrs");
    return {};
  }

  /// The text of a prefix index, long ones included; empty for one that has none.
  [[nodiscard]] std::optional<std::string> prefix_text(std::uint8_t index) const {
    return prefixes_.text(index);
  }
  /// @}

  /// @name File data
  /// @{

  /// Visits the runs of [begin, end) of a regular file, in order.
  /// @error{Errc::corrupt, an address that leaves its device\, an unknown device}
  /// @error{Errc::unsupported, a compressed file\, or an unknown chunk format}
  [[nodiscard]] Result<void> runs(Inode const& file, std::uint64_t begin, std::uint64_t end,
                                  RunVisitor visit) const {
    if (!file.is_regular()) {
      auto const why =
          file.is_directory() ? std::errc::is_a_directory : std::errc::invalid_argument;
      return fail(std::make_error_code(why), name_of(file));
    }
    end = std::min(end, file.size());
    EROFS_OCI_TRY(for_each_run(frame_, file, std::min(begin, end), end, visit),
                  name_of(file) + ": data");
    return {};
  }

  /// Reads a regular file; yields readable(size, offset, out.size()) bytes.
  /// @error{Errc::truncated, a device's source is shorter than its slot says}
  [[nodiscard]] Result<std::size_t> read(Inode const& file, std::uint64_t offset,
                                         std::span<std::byte> out) const {
    auto const n = readable(file.size(), offset, out.size());
    if (n == 0 && file.is_regular()) return n;
    auto const ok = runs(file, offset, offset + n, [&](Run const& run) -> Result<bool> {
      auto const part = out.subspan(static_cast<std::size_t>(run.file_offset - offset),
                                    static_cast<std::size_t>(run.length));
      if (!run.place) {
        std::ranges::fill(part, std::byte{0});
        return true;
      }
      EROFS_OCI_TRY(frame_.read_data(*run.place, part));
      return true;
    });
    if (!ok) return tl::unexpected(ok.error());
    return n;
  }

  /// Streams a regular file's bytes [offset, offset + length), cut at its end: one request a run.
  /// @error{Errc::truncated, a device's source is shorter than its slot says}
  [[nodiscard]] Result<void> stream_file(Inode const& file, std::uint64_t offset,
                                         std::uint64_t length, ByteSink sink) const {
    auto const end = checked_add(offset, length).value_or(file.size());
    return runs(file, offset, end, [&](Run const& run) -> Result<bool> {
      bool go_on = true;
      auto const forward = [&](std::span<std::byte const> bytes) { return go_on = sink(bytes); };
      if (!run.place) {
        stream_zeros(run.length, forward);
        return go_on;
      }
      EROFS_OCI_TRY(frame_.stream_data(*run.place, run.length, forward));
      return go_on;
    });
  }
  /// @}

  /// "inode 40 at offset 1280", for messages.
  [[nodiscard]] static std::string name_of(Inode const& inode) {
    return "inode " + std::to_string(inode.nid) + " at offset " + std::to_string(inode.position);
  }

 private:
  explicit Reader(Frame<S> frame) noexcept : frame_(std::move(frame)) {}

  static std::error_code not_a_directory() {
    return std::make_error_code(std::errc::not_a_directory);
  }

  static std::string directory_block(Inode const& directory, std::uint64_t block) {
    return name_of(directory) + ": directory block " + std::to_string(block);
  }

  /// Fills `out` with content of a directory or link; inode() checked where it lies.
  [[nodiscard]] Result<void> read_content(Inode const& inode, std::uint64_t offset,
                                          std::span<std::byte> out) const {
    auto const in_blocks = inode.size() - inode.tail_size(frame_.block());
    if (offset < in_blocks) {
      auto const n = readable(in_blocks, offset, out.size());
      EROFS_OCI_TRY(frame_.read(inode.first_block() * frame_.block() + offset, out.first(n)),
                    name_of(inode));
      out = out.subspan(n);
      offset += n;
    }
    if (out.empty()) return {};
    EROFS_OCI_TRY(frame_.read(inode.tail_position() + (offset - in_blocks), out), name_of(inode));
    return {};
  }

  [[nodiscard]] Result<void> visit_shared(std::span<std::uint32_t const> ids,
                                          FunctionRef<bool(XattrView const&)> visit) const {
    std::uint64_t total = 0;
    auto const base = superblock().xattr_block * frame_.block();
    for (auto const id : ids) {
      auto const position = base + std::uint64_t{4} * id;
      std::array<std::byte, XattrEntry::on_disk_size> raw{};
      EROFS_OCI_TRY(frame_.read(position, raw));
      auto const head = XattrEntry::decode(raw);
      total += head.size();
      if (total > frame_.image_size()) return fail(Errc::corrupt, "more shared xattrs than image");
      Bytes bytes(head.size() - raw.size());
      EROFS_OCI_TRY(frame_.read(position + raw.size(), bytes));
      auto const all = std::span<std::byte const>(bytes);
      if (!visit({head.prefix, as_text(all.first(head.name_size)), all.subspan(head.name_size)})) {
        return {};
      }
    }
    return {};
  }

  [[nodiscard]] Result<void> read_prefixes() {
    auto const& s = superblock();
    if (!s.has(incompat::xattr_prefixes)) return {};
    auto const plain = (s.feature_compat & compat::plain_xattr_prefixes) != 0 || s.packed_nid == 0;
    std::optional<Inode> packed;
    if (!plain) {
      EROFS_OCI_TRY_ASSIGN(packed, inode(s.packed_nid));
    }
    auto const read_at = [&](std::uint64_t position, std::span<std::byte> out) -> Result<void> {
      if (!packed) return frame_.read(position, out);
      EROFS_OCI_TRY_ASSIGN(auto const n, read(*packed, position, out));
      if (n < out.size()) return fail(Errc::corrupt, name_of(*packed) + " is too short");
      return {};
    };
    auto const start = std::uint64_t{4} * s.xattr_prefix_start;
    EROFS_OCI_TRY_ASSIGN(prefixes_, XattrPrefixes::read(s.xattr_prefix_count, start, read_at));
    return {};
  }

  Frame<S> frame_;
  XattrPrefixes prefixes_;
};

}  // namespace erofs_oci::erofs
