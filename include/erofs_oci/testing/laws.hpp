// SPDX-License-Identifier: Apache-2.0
/// @file
/// The laws of RandomAccessSource as a test: call these inside a rapidcheck property.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <rapidcheck.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/testing/generators.hpp>

namespace erofs_oci::testing {

namespace detail {

[[nodiscard]] inline std::string where(std::uint64_t offset, std::uint64_t length) {
  return "[" + std::to_string(offset) + ", +" + std::to_string(length) + ")";
}

/// The error in a read of `length` bytes at `offset`; empty if there is none. `fill` is the
/// buffer's content before: two different ones show which bytes were written.
[[nodiscard]] inline std::string fault_of_read(AnySource const& source, Bytes const& oracle,
                                               std::uint64_t offset, std::size_t length,
                                               std::byte fill) {
  Bytes out(length, fill);
  auto const n = source.read_at(offset, out);
  if (!n) return "read " + where(offset, length) + " failed: " + n.error().message();

  auto const expected = slice_of(oracle, offset, length);
  if (*n != expected.size()) {
    return "S1: read " + where(offset, length) + " yields " + std::to_string(*n) + " bytes, not " +
           std::to_string(expected.size());
  }
  if (expected.empty() || std::memcmp(expected.data(), out.data(), expected.size()) == 0) return {};
  auto const differs = std::ranges::mismatch(expected, out).in1;  // slow where nothing is optimised
  return "read " + where(offset, length) + " has a wrong byte at " +
         std::to_string(differs - expected.begin());
}

/// S1 and S2 for one range: the right bytes, and again.
inline void read_twice(AnySource const& source, Bytes const& oracle, std::uint64_t offset,
                       std::size_t length) {
  auto const first = fault_of_read(source, oracle, offset, length, std::byte{0xA5});
  if (!first.empty()) RC_FAIL(first);
  auto const again = fault_of_read(source, oracle, offset, length, std::byte{0x5A});
  if (!again.empty()) RC_FAIL("S2: the second time, " + again);
}

/// S3 for one range: the two reads that it can be cut into, in either order.
inline void read_cut(AnySource const& source, Bytes const& oracle, std::uint64_t offset,
                     std::size_t length) {
  auto const cut = *rc::gen::inRange<std::size_t>(0, length + 1);
  if (offset > std::numeric_limits<std::uint64_t>::max() - cut) return;
  auto const backwards = *rc::gen::arbitrary<bool>();
  for (auto const second : {backwards, !backwards}) {
    auto const fault = second ? fault_of_read(source, oracle, offset + cut, length - cut, {})
                              : fault_of_read(source, oracle, offset, cut, {});
    if (!fault.empty()) RC_FAIL("S3: cut of " + where(offset, length) + ": " + fault);
  }
}

/// stream() hands over what read_at() would give, in order, and no more.
inline void stream_all(AnySource const& source, Bytes const& oracle, std::uint64_t offset,
                       std::uint64_t length) {
  Bytes got;
  auto const ok = source.stream(offset, length, [&](std::span<std::byte const> piece) {
    got.insert(got.end(), piece.begin(), piece.end());
    return got.size() <= oracle.size();
  });
  if (!ok) RC_FAIL("stream " + where(offset, length) + " failed: " + ok.error().message());
  if (got != slice_of(oracle, offset, length)) {
    RC_FAIL("stream " + where(offset, length) + " hands over wrong bytes");
  }
}

/// A sink that returns false ends the stream: no error, no further call.
inline void stream_some(AnySource const& source, Bytes const& oracle, std::uint64_t offset,
                        std::uint64_t length, std::size_t enough) {
  auto const expected = slice_of(oracle, offset, length);
  Bytes got;
  bool stopped = false;
  bool called_again = false;
  auto const ok = source.stream(offset, length, [&](std::span<std::byte const> piece) {
    called_again = called_again || stopped;
    got.insert(got.end(), piece.begin(), piece.end());
    stopped = got.size() >= enough;
    return !stopped;
  });
  if (!ok) RC_FAIL("stream stopped by its sink failed: " + ok.error().message());
  if (called_again) RC_FAIL("stream called its sink after the sink had stopped it");
  auto const complete = got.size() >= std::min(enough, expected.size());
  if (!complete || got.size() > expected.size() ||
      !std::ranges::equal(got, std::span(expected).first(got.size()))) {
    RC_FAIL("stream " + where(offset, length) + " stopped by its sink hands over wrong bytes");
  }
}

}  // namespace detail

/// Fails the property unless `source` reads as `oracle` and obeys the laws S1, S2 and S3 of
/// RandomAccessSource, through read_at() as well as stream().
///
/// Draws ranges, so it must run inside a rapidcheck property. About a hundred small reads a call.
inline void obeys_laws(AnySource const& source, Bytes const& oracle) {
  constexpr auto top = std::numeric_limits<std::uint64_t>::max();
  if (source.size() != oracle.size()) {
    RC_FAIL("size is " + std::to_string(source.size()) + ", not " + std::to_string(oracle.size()));
  }
  for (auto const offset : awkward_offsets(oracle.size())) {
    for (auto const length : {std::size_t{0}, std::size_t{1}, oracle.size() + 1}) {
      detail::read_twice(source, oracle, offset, length);
    }
    detail::stream_all(source, oracle, offset, top);
    detail::stream_all(source, oracle, offset, 0);
  }
  for (auto round = 0; round < 6; ++round) {
    auto const offset = *any_offset(oracle.size());
    auto const length = *any_length(oracle.size());
    detail::read_twice(source, oracle, offset, length);
    detail::read_cut(source, oracle, offset, length);
    detail::stream_all(source, oracle, offset, length);
    detail::stream_some(source, oracle, offset, length, 1 + length / 2);
  }
  detail::stream_some(source, oracle, 0, top, 1);
  if (source.size() != oracle.size()) RC_FAIL("S2: size has changed");
}

/// Fails the property unless `threads` threads that read at once all see `oracle` (law S4). Run it
/// under ThreadSanitizer: a data race that gives right bytes by luck is still broken.
inline void obeys_laws_concurrently(AnySource const& source, Bytes const& oracle,
                                    std::size_t threads = 4) {
  constexpr auto rounds = 32;
  auto const seed = *rc::gen::arbitrary<std::uint32_t>();
  std::vector<std::string> faults(threads);
  auto const reader = [&](std::size_t self) {
    std::mt19937_64 random(seed + self);
    for (auto round = 0; round < rounds && faults[self].empty(); ++round) {
      auto const offset = random() % (oracle.size() + 2);
      auto const length = static_cast<std::size_t>(random() % (oracle.size() + 2));
      faults[self] = detail::fault_of_read(source, oracle, offset, length, std::byte{0xA5});
    }
  };
  {
    std::vector<std::jthread> running;
    for (std::size_t i = 0; i < threads; ++i) running.emplace_back(reader, i);
  }
  for (auto const& fault : faults) {
    if (!fault.empty()) RC_FAIL("S4: " + fault);
  }
}

/// As obeys_laws_concurrently(), while another thread has the caches of `source` let go of what
/// they hold, again and again: that changes no byte of any read.
/// @param shrink_to  has them hold at most so many bytes
inline void obeys_laws_while_shrinking(AnySource const& source, Bytes const& oracle,
                                       std::function<void(std::uint64_t)> const& shrink_to,
                                       std::size_t threads = 4) {
  std::jthread const shrinker([&](std::stop_token const& stop) {
    std::mt19937_64 random(oracle.size());
    while (!stop.stop_requested()) {
      shrink_to(random() % (oracle.size() + 1));
      std::this_thread::yield();
    }
  });
  obeys_laws_concurrently(source, oracle, threads);
}

}  // namespace erofs_oci::testing
