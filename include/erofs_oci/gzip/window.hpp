// SPDX-License-Identifier: Apache-2.0
/// @file
/// Windows made small: only the bytes that a span really looks back at, compressed.
#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
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

/// The first `most` bytes that decode behind `window`, or fewer if the member or the span ends, or
/// nothing if the compressed bytes do not reach that far.
template <Inflater I>
[[nodiscard]] Result<std::optional<Bytes>> decode_behind(
    I& inflater, unsigned bits, std::byte first,
    std::span<std::byte const, gzip_window_size> window, std::span<std::byte const> compressed,
    AfterBytes after, std::size_t most = gzip_window_size) {
  EROFS_OCI_TRY(inflater.start(bits, first, window));
  Bytes out(most);
  std::size_t size = 0;
  while (size < out.size()) {
    EROFS_OCI_TRY_ASSIGN(auto const step,
                         inflater.inflate(compressed, std::span(out).subspan(size)));
    compressed = compressed.subspan(step.consumed);
    size += step.produced;
    if (step.end) break;
    if (!compressed.empty() || step.produced > 0) continue;
    if (after == AfterBytes::more) return std::optional<Bytes>{};
    break;
  }
  out.resize(size);
  return std::optional(std::move(out));
}

/// Windows in which what a byte is tells where it is.
struct MadeUpWindows {
  std::array<std::byte, gzip_window_size> low{};
  std::array<std::byte, gzip_window_size> not_low{};
  std::array<std::byte, gzip_window_size> high{};

  MadeUpWindows() noexcept {
    for (std::size_t i = 0; i < gzip_window_size; ++i) {
      low[i] = static_cast<std::byte>(i & 0xff);
      not_low[i] = ~low[i];
      high[i] = static_cast<std::byte>(i >> 8);
    }
  }
};

}  // namespace detail

/// Finds out which bytes of the window before a checkpoint are used by what follows, by decoding it
/// behind three made-up windows: a byte that comes out different behind a window and its complement
/// is a copy from the window, and what it is tells from where. Only the first 32 KiB can reach back
/// so far.
/// @spec{RFC 1951 2: distances are at most 32 KiB, and do not cross a member's start}
///
/// Yields nothing if `compressed` is too short for 32 KiB, does not end the member, and more may
/// come.
/// @param inflater      in any state
/// @param bits, first   of the checkpoint; see Inflater::start()
/// @param compressed    the bytes from the checkpoint's `in` on
/// @error{Errc::corrupt, they are no deflate data}
template <Inflater I>
[[nodiscard]] Result<std::optional<WindowUse>> find_window_use(
    I& inflater, unsigned bits, std::byte first, std::span<std::byte const> compressed,
    AfterBytes after) {
  static detail::MadeUpWindows const windows;
  auto const decode = [&](std::span<std::byte const, gzip_window_size> window) {
    return detail::decode_behind(inflater, bits, first, window, compressed, after);
  };
  EROFS_OCI_TRY_ASSIGN(auto const a, decode(windows.low));
  if (!a) return std::optional<WindowUse>{};
  EROFS_OCI_TRY_ASSIGN(auto const b, decode(windows.not_low));
  EROFS_OCI_TRY_ASSIGN(auto const c, decode(windows.high));

  WindowUse use;
  for (std::size_t i = 0; i < a->size(); ++i) {
    if ((*a)[i] == (*b)[i]) continue;
    use.set(std::to_integer<std::size_t>((*a)[i]) | std::to_integer<std::size_t>((*c)[i]) << 8);
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
  EROFS_OCI_TRY_ASSIGN(auto const step, inflater.inflate(packed, out), "packed window");
  if (step.end && step.produced == window.size() && step.consumed == packed.size()) {
    std::copy_n(out.begin(), window.size(), window.begin());
    return {};
  }
  return fail(Errc::corrupt, "packed window: not 32 KiB of data");
}

}  // namespace erofs_oci
