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
#include <vector>

#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// An immutable sequence of bytes of known size, readable at any offset from any thread.
///
/// The compiler checks the syntax; testing/laws.hpp checks these laws:
///   - S1 exact: a read yields readable(size(), offset, out.size()) bytes, short only at the end
///   - S2 pure: size() and the bytes never change
///   - S3 splittable: a read equals the two reads that it can be cut into
///   - S4 concurrent: const members need no lock around them
///   - S5 honest: on an error `out` is unspecified, the source stays usable, and bytes
///     that are known to be wrong are never returned as a success
///   - S6 bounded: every call ends; a call that waits for a peer has a deadline
template <class S>
concept RandomAccessSource =
    requires(S const& source, std::uint64_t offset, std::span<std::byte> out) {
      { source.size() } noexcept -> std::same_as<std::uint64_t>;
      { source.read_at(offset, out) } -> std::same_as<Result<std::size_t>>;
    } && std::movable<S>;  // last: asking Result<AnySource> this first would ask AnySource again

/// How many of `length` bytes at `offset` a source of `size` bytes holds.
[[nodiscard]] constexpr std::uint64_t streamable(std::uint64_t size, std::uint64_t offset,
                                                 std::uint64_t length) noexcept {
  return offset >= size ? 0 : std::min(length, size - offset);
}

/// The same for bytes that are `wanted` in memory.
[[nodiscard]] constexpr std::size_t readable(std::uint64_t size, std::uint64_t offset,
                                             std::size_t wanted) noexcept {
  return static_cast<std::size_t>(streamable(size, offset, wanted));
}

/// Fills all of `out`.
/// @error{Errc::truncated, the source ends first}
[[nodiscard]] Result<void> read_exact(RandomAccessSource auto const& source, std::uint64_t offset,
                                      std::span<std::byte> out) {
  EROFS_OCI_TRY_ASSIGN(auto const n, source.read_at(offset, out));
  if (n < out.size()) {
    return fail(Errc::truncated, "wanted " + std::to_string(out.size()) + " bytes at offset " +
                                     std::to_string(offset) + ", there are " + std::to_string(n));
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

/// Takes the next bytes of a stream, in order; false ends the stream early, without an error. A
/// piece may be empty: it only asks whether to go on.
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
    bytes = bytes.first(std::min(bytes.size(), rest.size()));
    std::ranges::copy(bytes, rest.begin());
    rest = rest.subspan(bytes.size());
    return true;
  };
  EROFS_OCI_TRY(fetch(offset, std::uint64_t{wanted}, ByteSink(copy)));
  if (rest.empty()) return wanted;
  return fail(Errc::truncated, "the stream ended " + std::to_string(rest.size()) + " bytes early");
}

/// @name Optional powers of a source
/// Each is a free function with a default; a source that can do better has a member of that name.
/// @{

/// Whether a read costs a round trip to a peer, so that long reads and several threads are
/// worthwhile. Default: as the source below, else no.
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

/// Drops what the source keeps on disk of the bytes [offset, offset + length), for they have turned
/// out to be wrong. Yields whether something of it was kept before this source had fetched it: then
/// another read may get other bytes. Default: nothing is kept.
bool forget(RandomAccessSource auto const& source, std::uint64_t offset, std::uint64_t length) {
  if constexpr (requires {
                  { source.forget(offset, length) } -> std::same_as<bool>;
                }) {
    return source.forget(offset, length);
  } else {
    return false;
  }
}

/// Calls `read`, which reads all of the source. If its bytes turn out to be wrong, drops what is
/// kept of them, and calls it once more if they may then be others.
/// @param is_wrong  tells by an outcome that the bytes are to blame
[[nodiscard]] auto read_past_kept(RandomAccessSource auto const& source, auto const& read,
                                  auto const& is_wrong) {
  auto done = read();
  if (is_wrong(done) && forget(source, 0, source.size())) {
    done = read();
    if (is_wrong(done)) forget(source, 0, source.size());
  }
  return done;
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
    length = streamable(source.size(), offset, length);
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min(length, piece)));
    while (length > 0) {
      auto const part = std::span(buffer).first(readable(length, 0, buffer.size()));
      if (auto const ok = read_exact(source, offset, part); !ok) return ok;
      if (!sink(part)) return {};
      offset += part.size();
      length -= part.size();
    }
    return {};
  }
}
/// @}

}  // namespace erofs_oci
