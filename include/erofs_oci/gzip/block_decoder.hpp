// SPDX-License-Identifier: Apache-2.0
/// @file
/// BlockDecoder: who decodes deflate data block by block, as a policy for index builders.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/inflater.hpp>
#ifdef EROFS_OCI_HAVE_ISAL
#include <erofs_oci/gzip/isal_inflater.hpp>
#endif

namespace erofs_oci {

/// What one call of BlockDecoder::decode() did.
struct BlockStep {
  std::size_t consumed = 0;  ///< bytes taken from the input
  std::size_t produced = 0;  ///< bytes written to the output
  bool block_end = false;    ///< a block has ended; all its bytes are out
  bool final = false;        ///< ... and it was the last one of its member
  /// If `block_end`: bits of the input taken so far that lie behind the block. More than 8 of them
  /// may belong to earlier calls.
  unsigned unread_bits = 0;
};

/// Decodes one deflate block after another and stops behind each. Not thread-safe.
///
///   - `start(bits, first, window)`: as Inflater's; also how to go on behind a block's end.
///   - `decode(in, out)`: goes on until `in` is used up, `out` is full or a block ends.
template <class D>
concept BlockDecoder =
    std::default_initializable<D> && std::movable<D> &&
    requires(D& decoder, unsigned bits, std::byte first, std::span<std::byte const> in,
             std::span<std::byte> out, std::uint32_t crc) {
      { decoder.start(bits, first, in) } -> std::same_as<Result<void>>;
      { decoder.decode(in, out) } -> std::same_as<Result<BlockStep>>;
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
  [[nodiscard]] Result<BlockStep> decode(std::span<std::byte const> in, std::span<std::byte> out) {
    BlockStep done;
    if (!header_seen_) {
      if (in.empty()) return done;
      final_ = (in.front() & std::byte{1}) != std::byte{0};
      auto const shown = in.front() | std::byte{1};
      auto const step = inflater_.inflate(std::span(&shown, 1), out);
      if (!step) return fail(step.error());
      header_seen_ = true;
      add(done, *step);
      in = in.subspan(1);
      out = out.subspan(step->produced);
      if (done.block_end) return done;
    }
    auto const step = inflater_.inflate(in, out);
    if (!step) return fail(step.error());
    add(done, *step);
    return done;
  }

  /// BlockDecoder.
  [[nodiscard]] static std::uint32_t crc32(std::uint32_t crc, std::span<std::byte const> bytes) {
    return IsalInflater::crc32(crc, bytes);
  }

 private:
  void add(BlockStep& done, InflateStep const& step) const noexcept {
    done.consumed += step.consumed;
    done.produced += step.produced;
    done.block_end = step.end;
    done.final = step.end && final_;
    done.unread_bits = step.unread_bits;
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
  [[nodiscard]] Result<BlockStep> decode(std::span<std::byte const> in, std::span<std::byte> out) {
    auto const step = inflater_.inflate(in, out, InflateStop::block);
    if (!step) return fail(step.error());
    BlockStep done;
    done.consumed = step->consumed;
    done.produced = step->produced;
    done.block_end = step->block_end || step->end;
    done.final = step->end;
    done.unread_bits = step->unread_bits;
    return done;
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
