// SPDX-License-Identifier: Apache-2.0
/// @file
/// Inflater: who decodes raw deflate data, as a policy; and ZlibInflater, which is always there.
///
/// A program that includes this file must link zlib.
#pragma once

#include <algorithm>
#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>

#include <zlib.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// What one call of Inflater::inflate() did.
struct InflateStep {
  std::size_t consumed = 0;  ///< bytes taken from the input
  std::size_t produced = 0;  ///< bytes written to the output
  bool end = false;          ///< the final block has ended

  /// Input bytes that were consumed, in this call or before, but lie behind the end: the number of
  /// valid bytes of `unread`, 0 unless `end`.
  std::size_t unread_size = 0;
  std::byte unread[8] = {};  ///< in stream order

  bool block_end = false;    ///< a block that is not the final one has ended (InflateStop::block)
  unsigned unread_bits = 0;  ///< bits taken but not used: valid if `end` or `block_end`
};

/// Where ZlibInflater::inflate() may stop early.
enum class InflateStop {
  never,  ///< nowhere
  block,  ///< behind each block
};

/// Decodes raw deflate data. Not thread-safe.
///
///   - `start(bits, first, window)`: begin at a block start. The high `bits` bits of the byte
///     `first` come before the input; `window` is the decoded data before it, at most 32 KiB,
///     or empty at the start of a member. May be called again at any time.
///   - `inflate(in, out)`: goes on until `in` is used up, `out` is full or the data ends.
///   - `crc32(crc, bytes)`: gzip's CRC-32, continued from `crc`, 0 at first.
template <class I>
concept Inflater =
    std::default_initializable<I> && std::movable<I> &&
    requires(I& inflater, unsigned bits, std::byte first, std::span<std::byte const> in,
             std::span<std::byte> out, std::uint32_t crc) {
      { inflater.start(bits, first, in) } -> std::same_as<Result<void>>;
      { inflater.inflate(in, out) } -> std::same_as<Result<InflateStep>>;
      { I::crc32(crc, in) } -> std::same_as<std::uint32_t>;
    };

/// The policy over zlib. About 40 KiB of state once started.
class ZlibInflater {
 public:
  /// Inflater.
  [[nodiscard]] Result<void> start(unsigned bits, std::byte first,
                                   std::span<std::byte const> window) {
    if (stream_ == nullptr) {
      auto fresh = std::make_unique<z_stream>();
      if (inflateInit2(fresh.get(), -MAX_WBITS) != Z_OK) throw std::bad_alloc();
      stream_.reset(fresh.release());
    } else if (inflateReset(stream_.get()) != Z_OK) {
      return fail(Errc::corrupt, "inflate: reset");
    }
    if (bits > 0) {
      auto const value = std::to_integer<int>(first) >> (8 - bits);
      if (inflatePrime(stream_.get(), static_cast<int>(bits), value) != Z_OK) {
        return fail(Errc::corrupt, "inflate: prime");
      }
    }
    if (!window.empty() &&
        inflateSetDictionary(stream_.get(), reinterpret_cast<Bytef const*>(window.data()),
                             static_cast<uInt>(window.size())) != Z_OK) {
      return fail(Errc::corrupt, "inflate: window");
    }
    return {};
  }

  /// Inflater.
  /// @error{Errc::corrupt, the bytes are no deflate data}
  [[nodiscard]] Result<InflateStep> inflate(std::span<std::byte const> in, std::span<std::byte> out,
                                            InflateStop stop = InflateStop::never) {
    constexpr std::size_t most = std::numeric_limits<uInt>::max();
    auto& z = *stream_;
    // zlib reads through this pointer only; its type has no const.
    z.next_in = const_cast<Bytef*>(reinterpret_cast<Bytef const*>(in.data()));
    z.avail_in = static_cast<uInt>(std::min(in.size(), most));
    z.next_out = reinterpret_cast<Bytef*>(out.data());
    z.avail_out = static_cast<uInt>(std::min(out.size(), most));
    auto const in_before = z.avail_in;
    auto const out_before = z.avail_out;

    auto const code = ::inflate(&z, stop == InflateStop::block ? Z_BLOCK : Z_NO_FLUSH);

    if (code == Z_MEM_ERROR) throw std::bad_alloc();
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) {
      return fail(Errc::corrupt, std::string("inflate: ") +
                                     (z.msg != nullptr ? z.msg : "error " + std::to_string(code)));
    }
    InflateStep step;
    step.consumed = in_before - z.avail_in;
    step.produced = out_before - z.avail_out;
    step.end = code == Z_STREAM_END;
    // Bit 7: just behind a block; bit 6: in the final one; the low bits: bits not used yet.
    auto const state = static_cast<unsigned>(z.data_type);
    step.block_end = stop == InflateStop::block && !step.end && (state & 0xc0) == 0x80;
    step.unread_bits = step.end ? 0 : state & 7;
    return step;
  }

  /// Inflater.
  [[nodiscard]] static std::uint32_t crc32(std::uint32_t crc, std::span<std::byte const> bytes) {
    return static_cast<std::uint32_t>(
        ::crc32_z(crc, reinterpret_cast<Bytef const*>(bytes.data()), bytes.size()));
  }

 private:
  struct End {
    void operator()(z_stream* z) const noexcept {
      inflateEnd(z);
      delete z;
    }
  };
  std::unique_ptr<z_stream, End> stream_;
};

static_assert(Inflater<ZlibInflater>);

/// `bytes` as raw deflate data. The same bytes give the same data as long as zlib is the same.
[[nodiscard]] inline Bytes deflate_bytes(std::span<std::byte const> bytes) {
  z_stream z{};
  constexpr int level = 6;  // 9 takes twice the time for 3 % less, which is felt beside ISA-L
  constexpr int memory_level = 9;
  if (deflateInit2(&z, level, Z_DEFLATED, -MAX_WBITS, memory_level, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::bad_alloc();
  }
  Bytes packed(deflateBound(&z, static_cast<uLong>(bytes.size())));
  z.next_in = const_cast<Bytef*>(reinterpret_cast<Bytef const*>(bytes.data()));
  z.avail_in = static_cast<uInt>(bytes.size());
  z.next_out = reinterpret_cast<Bytef*>(packed.data());
  z.avail_out = static_cast<uInt>(packed.size());
  [[maybe_unused]] auto const code = deflate(&z, Z_FINISH);
  assert(code == Z_STREAM_END);  // deflateBound() was enough
  packed.resize(packed.size() - z.avail_out);
  deflateEnd(&z);
  return packed;
}

}  // namespace erofs_oci
