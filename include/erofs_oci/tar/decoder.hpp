// SPDX-License-Identifier: Apache-2.0
/// @file
/// Decoder: decodes a tar archive that comes in pieces of any size. No I/O.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/tar/entry.hpp>
#include <erofs_oci/tar/header.hpp>
#include <erofs_oci/tar/member.hpp>
#include <erofs_oci/tar/sparse.hpp>

namespace erofs_oci::tar {

/// Decodes an archive that is pushed once, front to back. Keeps at most one member's headers; of
/// member data it needs only what SparseCopier copies.
///
/// Yields a member after all of its data have passed, so none is incomplete. The archive ends with
/// two zero blocks; what follows is ignored. The end of the stream at a member's border ends it as
/// well. A single zero block before another header is an error, because readers differ in what they
/// do there.
///
/// Takes v7, ustar, star, GNU and PAX headers in any mixture. Skips multi-volume parts, volume
/// labels and unknown types; see reports(). Of a global PAX header it uses names, size, owner and
/// time; attributes would cost memory at each member.
///
/// @par Thread safety
/// None: one thread at a time.
class Decoder {
 public:
  /// Called with each member; an error from it ends the decoding, and push() returns it.
  using Visit = FunctionRef<Result<void>(Entry&&)>;

  /// Decodes the next bytes of the archive. After an error, each further call returns that error.
  /// @error{Errc::corrupt, a header\, an extended header or a sparse map is malformed}
  /// @error{Errc::unsupported, a name\, extended header or sparse map is beyond our limits}
  [[nodiscard]] Result<void> push(std::span<std::byte const> piece, Visit visit);

  /// Ends the archive: no bytes follow. Of the last member the padding may be missing, and of the
  /// archive its end marker, as some writers leave them out.
  /// @error{Errc::truncated, the archive ends inside a member's data or a header}
  [[nodiscard]] Result<void> finish(Visit visit);

  /// Whether the end marker has passed: everything from here on is ignored.
  [[nodiscard]] bool ended() const noexcept { return state_ == State::ended; }

  /// Bytes taken so far, those after the end marker included.
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }

  /// How many of the next bytes need not be decoded: skip() may take them instead of push().
  [[nodiscard]] std::uint64_t skippable() const noexcept {
    return state_ == State::data ? std::min(whole_left_, copier_.next() - position_) : 0;
  }

  /// Passes over `n` bytes, at most skippable().
  void skip(std::uint64_t n) noexcept {
    position_ += n;
    whole_left_ -= n;
  }

  /// What was skipped.
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

  /// Yields the member if all of its data have passed.
  [[nodiscard]] Result<void> settle(Visit visit);

  /// Adds bytes to the block; takes it when it is full.
  [[nodiscard]] Result<void> fill(std::span<std::byte const> bytes);

  [[nodiscard]] Result<void> take_block(std::uint64_t offset);

  [[nodiscard]] Result<void> take_header(std::uint64_t offset);

  [[nodiscard]] Result<void> begin_extension(Header const& header, std::uint64_t offset);

  [[nodiscard]] Result<void> take_extension();

  [[nodiscard]] Result<void> end_extension();

  [[nodiscard]] Result<void> begin_member(Header const& header, std::uint64_t offset);

  [[nodiscard]] Result<void> take_old_map(std::uint64_t offset, Result<bool> more);

  [[nodiscard]] Result<void> take_data_map(std::uint64_t offset);

  /// The segments are known, the data begin at `data_offset`.
  [[nodiscard]] Result<void> place(std::vector<Segment> const& segments, std::uint64_t real_size,
                                   std::uint64_t data_offset);

  void begin_data(std::uint64_t size) noexcept;

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
  SparseCopier copier_;
  std::uint64_t whole_left_ = 0;  // bytes of whole blocks of data
  std::uint64_t tail_ = 0;        // bytes of data in the block after them
};

}  // namespace erofs_oci::tar

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/tar/detail/decoder_body.hpp>
#endif
