// SPDX-License-Identifier: Apache-2.0
/// @file
/// BlockDecoder: who decodes deflate data block by block, as a policy for index builders.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/inflater.hpp>
#ifdef EROFS_OCI_HAVE_ISAL
#include <erofs_oci/gzip/isal_inflater.hpp>
#endif

namespace erofs_oci {

/// Decodes one deflate block after another and stops behind each. Not thread-safe.
///
///   - `start(bits, first, window)`: as Inflater's; also how to go on behind a block's end.
///   - `decode(in, out)`: goes on until `in` is used up, `out` is full or a block ends: the final
///     one of its member (`end`) or another one (`block_end`), whose bytes are all out then. More
///     than 8 of the `unread_bits` behind it may belong to earlier calls. `unread` is not looked
///     at.
template <class D>
concept BlockDecoder =
    std::default_initializable<D> && std::movable<D> &&
    requires(D& decoder, unsigned bits, std::byte first, std::span<std::byte const> in,
             std::span<std::byte> out, std::uint32_t crc) {
      { decoder.start(bits, first, in) } -> std::same_as<Result<void>>;
      { decoder.decode(in, out) } -> std::same_as<Result<InflateStep>>;
      { D::crc32(crc, in) } -> std::same_as<std::uint32_t>;
    };

#ifdef EROFS_OCI_HAVE_ISAL

/// The policy over ISA-L, which cannot stop between blocks: each block is shown to it as a final
/// one, by setting BFINAL, the first bit of its header.
/// @spec{RFC 1951 3.2.3}
class IsalBlockDecoder {
 public:
  /// BlockDecoder.
  [[nodiscard]] Result<void> start(unsigned bits, std::byte first,
                                   std::span<std::byte const> window) {
    header_seen_ = bits > 0;
    if (bits > 0) {
      auto const header_bit = std::byte(1U << (8 - bits));
      final_ = (first & header_bit) != std::byte{0};
      first |= header_bit;
    }
    return inflater_.start(bits, first, window);
  }

  /// BlockDecoder.
  [[nodiscard]] Result<InflateStep> decode(std::span<std::byte const> in,
                                           std::span<std::byte> out) {
    InflateStep first;
    if (!header_seen_) {
      if (in.empty()) return first;
      final_ = (in.front() & std::byte{1}) != std::byte{0};
      auto const shown = in.front() | std::byte{1};
      EROFS_OCI_TRY_ASSIGN(first, inflater_.inflate(std::span(&shown, 1), out));
      header_seen_ = true;
      if (first.end) return shown_end(first);
      in = in.subspan(1);
      out = out.subspan(first.produced);
    }
    EROFS_OCI_TRY_ASSIGN(auto step, inflater_.inflate(in, out));
    step.consumed += first.consumed;
    step.produced += first.produced;
    return shown_end(step);
  }

  /// BlockDecoder.
  [[nodiscard]] static std::uint32_t crc32(std::uint32_t crc, std::span<std::byte const> bytes) {
    return IsalInflater::crc32(crc, bytes);
  }

 private:
  // To ISA-L, every block's end is that of the final one.
  [[nodiscard]] InflateStep shown_end(InflateStep step) const noexcept {
    step.block_end = step.end && !final_;
    step.end = step.end && final_;
    return step;
  }

  IsalInflater inflater_;
  bool header_seen_ = false;
  bool final_ = false;
};

static_assert(BlockDecoder<IsalBlockDecoder>);

#endif

/// The policy over zlib, which stops between blocks when asked to.
class ZlibBlockDecoder {
 public:
  /// BlockDecoder.
  [[nodiscard]] Result<void> start(unsigned bits, std::byte first,
                                   std::span<std::byte const> window) {
    return inflater_.start(bits, first, window);
  }

  /// BlockDecoder.
  [[nodiscard]] Result<InflateStep> decode(std::span<std::byte const> in,
                                           std::span<std::byte> out) {
    return inflater_.inflate(in, out, InflateStop::block);
  }

  /// BlockDecoder.
  [[nodiscard]] static std::uint32_t crc32(std::uint32_t crc, std::span<std::byte const> bytes) {
    return ZlibInflater::crc32(crc, bytes);
  }

 private:
  ZlibInflater inflater_;
};

static_assert(BlockDecoder<ZlibBlockDecoder>);

#ifdef EROFS_OCI_HAVE_ISAL
/// The fastest BlockDecoder that this build has: ISA-L.
using DefaultBlockDecoder = IsalBlockDecoder;
#else
/// The fastest BlockDecoder that this build has: zlib.
using DefaultBlockDecoder = ZlibBlockDecoder;
#endif

}  // namespace erofs_oci
