// SPDX-License-Identifier: Apache-2.0
/// @file
/// StartList: what the first minute of a mount needed of an image's layers, in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>

namespace erofs_oci {

/// Bytes [begin, end) of a layer's blob, as it is stored.
struct StartRange {
  Digest layer;  ///< SHA-256 of the blob
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  unsigned age = 0;  ///< mounts that were recorded since one needed it

  friend bool operator==(StartRange const&, StartRange const&) = default;
};

/// Ranges of the layers' blobs in the order in which they were first needed. No byte is in two of
/// them, and all numbers are bounded. On disk: doc/formats/start_list.md.
///
/// They are ranges of the compressed blob, up to where decoding has really read, and not spans or
/// decoded ranges: so a fetch of them needs no guess of where in a span some decoded byte is.
class StartList {
 public:
  static constexpr std::size_t most_ranges = 2048;
  static constexpr std::size_t most_layers = 256;
  static constexpr std::uint64_t most_bytes = 64 << 20;  ///< of all ranges together
  static constexpr unsigned most_age = 3;
  static constexpr std::uint64_t most_offset = std::uint64_t{1} << 62;  ///< where a range may end

  static constexpr std::uint64_t most_file_bytes =
      24 + 32 * most_layers + 24 * most_ranges + 32;  ///< of encode()

  /// In order.
  [[nodiscard]] std::span<StartRange const> ranges() const noexcept { return ranges_; }

  [[nodiscard]] bool empty() const noexcept { return ranges_.empty(); }

  /// Of all ranges together.
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  /// Adds what is not there yet of `range`, at the end or to ranges that end where it begins. What
  /// goes over a bound is left out, as is a layer whose digest is no SHA-256.
  void add(StartRange const& range) { put(range, Join::yes); }

  /// How many bytes are in both.
  [[nodiscard]] std::uint64_t overlap(StartList const& other) const;

  /// Every byte of the list.
  [[nodiscard]] Bytes encode() const;

  /// The inverse of encode().
  /// @error{Errc::unsupported, another version}
  /// @error{Errc::corrupt, no list\, or one that is cut short or changed}
  [[nodiscard]] static Result<StartList> decode(std::span<std::byte const> file);

  /// The list for the next mount: all of `newer`, then of `older` what is not in it, one mount
  /// older, unless that is more than `most_age`.
  [[nodiscard]] static StartList merge(StartList const& older, StartList const& newer);

  friend bool operator==(StartList const&, StartList const&) = default;

 private:
  enum class Join : std::uint8_t { yes, no };

  void put(StartRange const& range, Join join);
  void append(StartRange range, Join join);
  [[nodiscard]] bool has_room_for(Digest const& layer) const;
  [[nodiscard]] std::vector<Digest> layers() const;

  std::vector<StartRange> ranges_;
  std::uint64_t bytes_ = 0;
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/start_list_body.hpp>
#endif
