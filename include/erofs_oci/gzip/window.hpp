// SPDX-License-Identifier: Apache-2.0
/// @file
/// Windows made small: only the bytes that a span really looks back at, compressed.
#pragma once

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/inflater.hpp>

namespace erofs_oci {

/// Which bytes of a window are looked back at; bit i is byte i.
using WindowUse = std::bitset<gzip_window_size>;

/// What follows the compressed bytes that find_window_use() is given.
enum class AfterBytes {
  more,      ///< more bytes of the span, perhaps
  next_span  ///< the next span: what is given is all that is ever decoded behind the window
};

namespace detail {

/// The first 32 KiB that decode behind `window`, or fewer if the member or the span ends, or
/// nothing if the compressed bytes do not reach that far.
template <Inflater I>
[[nodiscard]] Result<std::optional<Bytes>> decode_one_window(
    unsigned bits, std::byte first, std::span<std::byte const, gzip_window_size> window,
    std::span<std::byte const> compressed, AfterBytes after) {
  I inflater;
  if (auto const ok = inflater.start(bits, first, window); !ok) return fail(ok.error());
  Bytes out(gzip_window_size);
  std::size_t size = 0;
  while (size < out.size()) {
    auto const step = inflater.inflate(compressed, std::span(out).subspan(size));
    if (!step) return fail(step.error());
    compressed = compressed.subspan(step->consumed);
    size += step->produced;
    if (step->end) break;
    if (!compressed.empty() || step->produced > 0) continue;
    if (after == AfterBytes::more) return std::optional<Bytes>{};
    break;
  }
  out.resize(size);
  return std::optional(std::move(out));
}

}  // namespace detail

/// Finds out which bytes of the window before a checkpoint are used by what follows, by decoding it
/// behind three made-up windows: a byte that comes out different behind a window and its complement
/// is a copy from the window, and what it is tells from where. Only the first 32 KiB can reach back
/// so far.
/// @spec{RFC 1951 2: distances are at most 32 KiB, and do not cross a member's start}
///
/// Yields nothing if `compressed` is too short for 32 KiB, does not end the member, and more may
/// come.
/// @param bits, first   of the checkpoint; see Inflater::start()
/// @param compressed    the bytes from the checkpoint's `in` on
/// @error{Errc::corrupt, they are no deflate data}
template <Inflater I>
[[nodiscard]] Result<std::optional<WindowUse>> find_window_use(
    unsigned bits, std::byte first, std::span<std::byte const> compressed, AfterBytes after) {
  Bytes low(gzip_window_size);
  Bytes not_low(gzip_window_size);
  Bytes high(gzip_window_size);
  for (std::size_t i = 0; i < gzip_window_size; ++i) {
    low[i] = static_cast<std::byte>(i & 0xff);
    not_low[i] = ~low[i];
    high[i] = static_cast<std::byte>(i >> 8);
  }
  auto const decode = [&](Bytes const& window) {
    return detail::decode_one_window<I>(
        bits, first, std::span<std::byte const, gzip_window_size>(window), compressed, after);
  };
  auto const a = decode(low);
  if (!a) return fail(a.error());
  if (!*a) return std::optional<WindowUse>{};
  auto const b = decode(not_low);
  if (!b) return fail(b.error());
  auto const c = decode(high);
  if (!c) return fail(c.error());

  WindowUse use;
  for (std::size_t i = 0; i < (*a)->size(); ++i) {
    if ((**a)[i] == (**b)[i]) continue;
    use.set(std::to_integer<std::size_t>((**a)[i]) | std::to_integer<std::size_t>((**c)[i]) << 8);
  }
  return std::optional(use);
}

/// A window with zeros in place of all unused bytes, compressed; empty if nothing is used.
[[nodiscard]] inline Bytes pack_window(std::span<std::byte const, gzip_window_size> window,
                                       WindowUse const& use) {
  if (use.none()) return {};
  Bytes sparse(gzip_window_size);
  for (std::size_t i = 0; i < gzip_window_size; ++i) {
    if (use[i]) sparse[i] = window[i];
  }
  return deflate_bytes(sparse);
}

/// The inverse of pack_window().
/// @error{Errc::corrupt, `packed` is no packed window}
[[nodiscard]] inline Result<void> unpack_window(std::span<std::byte const> packed,
                                                std::span<std::byte, gzip_window_size> window) {
  if (packed.empty()) {
    std::ranges::fill(window, std::byte{0});
    return {};
  }
  ZlibInflater inflater;
  if (auto const ok = inflater.start(0, std::byte{0}, {}); !ok) return ok;
  Bytes out(gzip_window_size + 1);  // one more, to notice what is too long
  auto const step = inflater.inflate(packed, out);
  if (!step) return fail(step.error(), "packed window");
  if (step->end && step->produced == window.size() && step->consumed == packed.size()) {
    std::copy_n(out.begin(), window.size(), window.begin());
    return {};
  }
  return fail(Errc::corrupt, "packed window: not 32 KiB of data");
}

}  // namespace erofs_oci
