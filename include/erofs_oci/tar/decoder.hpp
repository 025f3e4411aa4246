// SPDX-License-Identifier: Apache-2.0
/// @file
/// Decoder: members of a tar archive from pieces of it, however they are cut. No I/O.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>
#include <erofs_oci/tar/member.hpp>
#include <erofs_oci/tar/pax.hpp>
#include <erofs_oci/tar/sparse.hpp>

namespace erofs_oci::tar {

/// Reads an archive that is pushed through it once, front to back. Keeps at most one member's
/// headers; member data pass through unseen but for the padding behind them.
///
/// A member is handed over when all of it has passed, so there is none whose data are cut short.
/// The archive ends with two zero blocks; what follows is ignored. The end of the stream at a
/// member's border ends it as well. A lone zero block before another header is an error: half of
/// the readers would stop there, the others go on.
///
/// Takes v7, ustar, star, GNU and PAX headers in any mixture. Multi-volume parts, volume labels and
/// types that we do not know are passed over; see reports(). Of a global PAX header counts what
/// names, size, owner and time it sets; attributes would cost memory at each member.
///
/// @par Thread safety
/// None: one thread at a time.
class Decoder {
 public:
  /// Takes a member; an error from it ends the decoding and is what push() returns.
  using Visit = FunctionRef<Result<void>(Entry&&)>;

  /// Takes the next bytes of the archive. After an error it only repeats that error.
  /// @error{Errc::corrupt, a header\, an extended header or a sparse map is malformed}
  /// @error{Errc::unsupported, a name\, extended header or sparse map is beyond our limits}
  [[nodiscard]] Result<void> push(std::span<std::byte const> piece, Visit visit) {
    if (failed_) return fail(*failed_);
    for (;;) {
      if (auto ok = settle(visit); !ok) return remember(std::move(ok).error());
      if (piece.empty() || state_ == State::ended) break;
      auto const pass = std::min<std::uint64_t>(skippable(), piece.size());
      auto const n = pass > 0 ? static_cast<std::size_t>(pass)
                              : std::min(piece.size(), block_.size() - filled_);
      if (pass > 0) {
        whole_left_ -= pass;
      } else if (auto ok = fill(piece.first(n)); !ok) {
        return remember(std::move(ok).error());
      }
      position_ += n;
      piece = piece.subspan(n);
    }
    position_ += piece.size();
    return {};
  }

  /// Says that there are no more bytes.
  /// @error{Errc::truncated, the archive ends inside a member or a header}
  [[nodiscard]] Result<void> finish(Visit visit) {
    if (failed_) return fail(*failed_);
    if (auto ok = settle(visit); !ok) return remember(std::move(ok).error());
    switch (state_) {
      case State::ended: return {};
      case State::extension:
        return cut("extended header at offset " + std::to_string(extension_offset_));
      case State::old_map:
      case State::data_map:
      case State::data: return cut(member_.describe());
      case State::header: break;
    }
    if (pending_) {
      return cut("no member after the extended header at offset " +
                 std::to_string(extension_offset_));
    }
    auto const half_marker = zero_blocks_ == 1 && is_zero(std::span(block_).first(filled_));
    if (filled_ > 0 && !half_marker) {
      return cut("header at offset " + std::to_string(position_ - filled_));
    }
    return {};
  }

  /// Whether the end marker has passed: everything from here on is ignored.
  [[nodiscard]] bool ended() const noexcept { return state_ == State::ended; }

  /// Bytes taken so far, those after the end marker included.
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }

  /// How many of the next bytes do not matter at all: skip() may take them instead of push().
  [[nodiscard]] std::uint64_t skippable() const noexcept {
    return state_ == State::data ? whole_left_ : 0;
  }

  /// Passes over `n` bytes, at most skippable().
  void skip(std::uint64_t n) noexcept {
    position_ += n;
    whole_left_ -= n;
  }

  /// What was passed over.
  [[nodiscard]] Reports const& reports() const noexcept { return reports_; }

 private:
  enum class State : std::uint8_t { header, extension, old_map, data_map, data, ended };

  [[nodiscard]] tl::unexpected<Error> remember(Error error) {
    failed_ = error;
    return fail(std::move(error));
  }

  [[nodiscard]] tl::unexpected<Error> cut(std::string what) {
    return remember({Errc::truncated, "tar: " + std::move(what) + ": the archive ends at offset " +
                                          std::to_string(position_)});
  }

  /// Hands the member over once all of its data have passed.
  [[nodiscard]] Result<void> settle(Visit visit) {
    if (state_ != State::data || whole_left_ > 0 || tail_ > 0) return {};
    state_ = State::header;
    if (!member_.emitted) return {};
    return visit(std::move(member_.entry));
  }

  /// Adds bytes to the block; takes it when it is full.
  [[nodiscard]] Result<void> fill(std::span<std::byte const> bytes) {
    std::ranges::copy(bytes, block_.begin() + static_cast<std::ptrdiff_t>(filled_));
    filled_ += bytes.size();
    if (filled_ < block_.size()) return {};
    filled_ = 0;
    auto const offset = position_ + bytes.size() - block_size;
    auto ok = take_block(offset);
    if (!ok) return fail(std::move(ok).error(), "tar");
    return ok;
  }

  [[nodiscard]] Result<void> take_block(std::uint64_t offset) {
    switch (state_) {
      case State::header: return take_header(offset);
      case State::extension: return take_extension();
      case State::old_map: return take_old_map(offset, old_map_.take_extension(Block(block_)));
      case State::data_map: return take_data_map(offset);
      case State::data:
        member_.entry.clean_padding =
            is_zero(std::span(block_).subspan(static_cast<std::size_t>(tail_)));
        tail_ = 0;
        return {};
      case State::ended: return {};
    }
    return {};
  }

  [[nodiscard]] Result<void> take_header(std::uint64_t offset) {
    if (is_zero(block_)) {
      if (pending_) {
        return fail(Errc::corrupt, "no member after the extended header at offset " +
                                       std::to_string(extension_offset_));
      }
      if (++zero_blocks_ == 2) state_ = State::ended;
      return {};
    }
    if (zero_blocks_ > 0) {
      return fail(Errc::corrupt,
                  "lone zero block at offset " + std::to_string(offset - block_size));
    }
    auto header = decode_header(Block(block_));
    if (!header) {
      return fail(std::move(header).error(), "header at offset " + std::to_string(offset));
    }
    if (std::string_view("xgLK").find(header->typeflag) != std::string_view::npos) {
      return begin_extension(*header, offset);
    }
    return begin_member(*header, offset);
  }

  [[nodiscard]] Result<void> begin_extension(Header const& header, std::uint64_t offset) {
    if (header.size > max_extension_size) {
      return fail(Errc::unsupported, "extended header at offset " + std::to_string(offset) + ": " +
                                         std::to_string(header.size) + " bytes, more than " +
                                         std::to_string(max_extension_size));
    }
    extension_type_ = header.typeflag;
    extension_offset_ = offset;
    extension_size_ = static_cast<std::size_t>(header.size);
    extension_.clear();
    state_ = State::extension;
    return extension_size_ == 0 ? end_extension() : Result<void>{};
  }

  [[nodiscard]] Result<void> take_extension() {
    auto const n = std::min(extension_size_ - extension_.size(), block_.size());
    extension_ += as_text(block_).substr(0, n);
    return extension_.size() == extension_size_ ? end_extension() : Result<void>{};
  }

  [[nodiscard]] Result<void> end_extension() {
    state_ = State::header;
    if (extension_type_ == 'L' || extension_type_ == 'K') {
      pending_ = true;
      auto& name = extension_type_ == 'L' ? before_.long_name : before_.long_link;
      name = std::string(field_text(as_bytes(extension_)));
      if (name->empty()) name.reset();
      return {};
    }
    auto pax = parse_pax(extension_);
    if (!pax) {
      return fail(std::move(pax).error(),
                  "extended header at offset " + std::to_string(extension_offset_));
    }
    if (extension_type_ == 'x') {
      pending_ = true;
      before_.local = *std::move(pax);
      return {};
    }
    if (!pax->xattrs.empty() || pax->sparse) {
      reports_.add(extension_offset_, "attributes and sparse maps of a global header are ignored");
    }
    merge_global(before_.global, *std::move(pax));
    return {};
  }

  [[nodiscard]] Result<void> begin_member(Header const& header, std::uint64_t offset) {
    auto member = assemble(header, before_, offset);
    pending_ = false;
    before_.local = {};
    before_.long_name.reset();
    before_.long_link.reset();
    if (!member) return fail(std::move(member).error());
    member_ = *std::move(member);
    if (!member_.emitted) report_unknown(header);
    if (member_.old_map && member_.emitted) {
      old_map_ = {};
      return take_old_map(offset, old_map_.take_header(Block(block_)));
    }
    if (!member_.map) {
      begin_data(member_.packed);
      if (member_.packed > 0 && member_.emitted) {
        member_.entry.extents = {{0, offset + block_size, member_.packed}};
      }
      return {};
    }
    if (!member_.map->map_in_data()) {
      return place(member_.map->segments, *member_.map->real_size, offset + block_size);
    }
    data_map_ = {};
    state_ = State::data_map;
    return {};
  }

  void report_unknown(Header const& header) {
    auto const what = header.typeflag == 'V'   ? std::string("volume label")
                      : header.typeflag == 'M' ? std::string("part of a file of another volume")
                                               : "type " + printable({&header.typeflag, 1});
    reports_.add(member_.entry.header_offset, member_.describe() + ": passed over: " + what);
  }

  [[nodiscard]] Result<void> take_old_map(std::uint64_t offset, Result<bool> more) {
    if (!more) return fail(std::move(more).error(), member_.describe());
    state_ = State::old_map;
    if (*more) return {};
    return place(old_map_.segments(), old_map_.real_size(), offset + block_size);
  }

  [[nodiscard]] Result<void> take_data_map(std::uint64_t offset) {
    if (member_.packed < block_size) {
      return fail(Errc::corrupt, member_.describe() + ": sparse map is longer than the member");
    }
    member_.packed -= block_size;
    auto const more = data_map_.take(Block(block_));
    if (!more) return fail(more.error(), member_.describe());
    if (*more) return {};
    return place(data_map_.segments(), *member_.map->real_size, offset + block_size);
  }

  /// The segments are known, the data begin at `data_offset`.
  [[nodiscard]] Result<void> place(std::vector<Segment> const& segments, std::uint64_t real_size,
                                   std::uint64_t data_offset) {
    auto extents = place_segments(segments, real_size, data_offset, member_.packed);
    if (!extents) return fail(std::move(extents).error(), member_.describe());
    if (data_offset > max_offset - member_.packed - block_size) {
      return fail(Errc::corrupt, member_.describe() + ": data end past 2^63");
    }
    member_.entry.sparse = true;
    member_.entry.size = real_size;
    member_.entry.extents = *std::move(extents);
    begin_data(member_.packed);
    return {};
  }

  void begin_data(std::uint64_t size) noexcept {
    state_ = State::data;
    tail_ = size % block_size;
    whole_left_ = size - tail_;
  }

  State state_ = State::header;
  std::uint64_t position_ = 0;
  std::array<std::byte, block_size> block_{};
  std::size_t filled_ = 0;  // bytes of block_
  unsigned zero_blocks_ = 0;
  std::optional<Error> failed_;
  Reports reports_;

  char extension_type_ = 'x';
  std::uint64_t extension_offset_ = 0;
  std::size_t extension_size_ = 0;
  std::string extension_;
  Extensions before_;
  bool pending_ = false;  // a local extension waits for its member

  Member member_;
  OldSparseMap old_map_;
  DataSparseMap data_map_;
  std::uint64_t whole_left_ = 0;  // bytes of whole blocks of data
  std::uint64_t tail_ = 0;        // bytes of data in the block after them
};

}  // namespace erofs_oci::tar
