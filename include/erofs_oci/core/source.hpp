// SPDX-License-Identifier: Apache-2.0
/// @file
/// RandomAccessSource: the one concept that the whole library composes.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// An immutable sequence of bytes of known size, readable at any offset from any thread.
///
/// The compiler checks the syntax; testing/laws.hpp checks what the words promise:
///   - S1 exact: a read yields readable(size(), offset, out.size()) bytes, short only at the end
///   - S2 pure: size() and the bytes never change
///   - S3 splittable: a read equals the two reads that it can be cut into
///   - S4 concurrent: const members need no lock around them
///   - S5 honest: on an error `out` is unspecified, the source stays usable, and bytes
///     that are known to be wrong are never returned as a success
///   - S6 bounded: every call ends; who waits for a peer has a deadline
template <class S>
concept RandomAccessSource =
    requires(S const& source, std::uint64_t offset, std::span<std::byte> out) {
      { source.size() } noexcept -> std::same_as<std::uint64_t>;
      { source.read_at(offset, out) } -> std::same_as<Result<std::size_t>>;
    } && std::movable<S>;  // last: asking Result<AnySource> this first would ask AnySource again

/// How many of `wanted` bytes at `offset` a source of `size` bytes holds.
[[nodiscard]] constexpr std::size_t readable(std::uint64_t size, std::uint64_t offset,
                                             std::size_t wanted) noexcept {
  if (offset >= size) return 0;
  auto const left = size - offset;
  return left < wanted ? static_cast<std::size_t>(left) : wanted;
}

/// Fills all of `out`.
/// @error{Errc::truncated, the source ends first}
[[nodiscard]] Result<void> read_exact(RandomAccessSource auto const& source, std::uint64_t offset,
                                      std::span<std::byte> out) {
  auto const n = source.read_at(offset, out);
  if (!n) return tl::unexpected(n.error());
  if (*n < out.size()) {
    return fail(Errc::truncated, "wanted " + std::to_string(out.size()) + " bytes at offset " +
                                     std::to_string(offset) + ", there are " + std::to_string(*n));
  }
  return {};
}

namespace detail {

/// Whether a source has a layer below that it shows. inner() yields a reference, which is no
/// source.
template <class S>
inline constexpr bool has_inner = false;
template <class S>
  requires requires(S source) {
    requires RandomAccessSource<std::remove_cvref_t<decltype(source.inner())>>;
  }
inline constexpr bool has_inner<S> = true;

}  // namespace detail

/// Takes the next bytes of a stream, in order; false ends the stream early, without an error.
using ByteSink = FunctionRef<bool(std::span<std::byte const>)>;

/// A read_at() for a source of `size` bytes whose native way is to hand bytes on: `fetch(offset,
/// length, sink)` is asked for just the bytes that are there, and not at all for none.
template <class Fetch>
[[nodiscard]] Result<std::size_t> read_by(std::uint64_t size, std::uint64_t offset,
                                          std::span<std::byte> out, Fetch const& fetch) {
  auto const wanted = readable(size, offset, out.size());
  if (wanted == 0) return std::size_t{0};
  auto rest = out.first(wanted);
  auto const copy = [&rest](std::span<std::byte const> bytes) {
    std::ranges::copy(bytes, rest.begin());
    rest = rest.subspan(bytes.size());
    return true;
  };
  Result<void> ok = fetch(offset, std::uint64_t{wanted}, ByteSink(copy));
  if (!ok) return fail(std::move(ok).error());
  return wanted;
}

/// @name Optional powers of a source
/// Each is a free function with a default; a source that can do better has a member of that name.
/// @{

/// The unit, in bytes, in which reads are cheapest. Default: 1.
[[nodiscard]] std::uint64_t granularity(RandomAccessSource auto const& source) {
  if constexpr (requires {
                  { source.granularity() } -> std::same_as<std::uint64_t>;
                }) {
    return source.granularity();
  } else {
    return 1;
  }
}

/// Whether a read costs a round trip to a peer, so that it pays to ask for much at once and to let
/// others work meanwhile. Default: what the source below says, else no.
[[nodiscard]] bool is_remote(RandomAccessSource auto const& source) {
  if constexpr (requires {
                  { source.is_remote() } -> std::same_as<bool>;
                }) {
    return source.is_remote();
  } else if constexpr (detail::has_inner<decltype(source)>) {
    return is_remote(source.inner());
  } else {
    return false;
  }
}

/// A hint that these bytes will be wanted soon; returns at once. Default: does nothing.
void prefetch(RandomAccessSource auto const& source, std::uint64_t offset, std::uint64_t length) {
  if constexpr (requires { source.prefetch(offset, length); }) {
    source.prefetch(offset, length);
  }
}

/// What the source is, for messages: "gzip over sha256:12…". Default: "source".
[[nodiscard]] std::string describe(RandomAccessSource auto const& source) {
  if constexpr (requires {
                  { source.describe() } -> std::convertible_to<std::string>;
                }) {
    return source.describe();
  } else if constexpr (detail::has_inner<decltype(source)>) {
    return describe(source.inner());
  } else {
    return "source";
  }
}

/// Hands the bytes [offset, offset + length), cut at the source's end, to `sink` in order, in
/// pieces, as soon as each is there: one request to a remote source, however long.
///
/// Default: reads of 128 KiB. After an error the sink may have had some of the bytes, all right.
[[nodiscard]] Result<void> stream(RandomAccessSource auto const& source, std::uint64_t offset,
                                  std::uint64_t length, ByteSink sink) {
  if constexpr (requires {
                  { source.stream(offset, length, sink) } -> std::same_as<Result<void>>;
                }) {
    return source.stream(offset, length, sink);
  } else {
    constexpr std::uint64_t piece = 128 * 1024;
    if (offset >= source.size()) return {};
    length = std::min(length, source.size() - offset);
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min(length, piece)));
    while (length > 0) {
      auto const part =
          std::span(buffer).first(static_cast<std::size_t>(std::min<std::uint64_t>(length, piece)));
      if (auto const ok = read_exact(source, offset, part); !ok) return ok;
      if (!sink(part)) return {};
      offset += part.size();
      length -= part.size();
    }
    return {};
  }
}
/// @}

/// The source at the bottom of a stack of combinators.
[[nodiscard]] auto const& innermost(RandomAccessSource auto const& source) noexcept {
  if constexpr (detail::has_inner<decltype(source)>) {
    return innermost(source.inner());
  } else {
    return source;
  }
}

}  // namespace erofs_oci
