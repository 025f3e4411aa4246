// SPDX-License-Identifier: Apache-2.0
/// @file
/// Archetype: a source with nothing beyond the concept.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci::testing {

/// Bytes as a source with only what RandomAccessSource requires: it can only be moved, has no
/// optional member, and cannot be used after it was moved from. Code that works with it depends on
/// the concept alone.
class Archetype {
 public:
  /// Owns `bytes`.
  explicit Archetype(Bytes bytes) : bytes_(std::make_unique<Bytes>(std::move(bytes))) {}

  void operator&() const = delete;
  template <class T>
  void operator,(T&&) const = delete;

  /// @name RandomAccessSource
  /// @{

  /// Never fails.
  [[nodiscard]] std::uint64_t size() const noexcept {
    assert(bytes_ && "used after it was moved from");
    return bytes_->size();
  }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size(), offset, out.size());
    if (n > 0) std::copy_n(bytes_->data() + offset, n, out.data());
    return n;
  }
  /// @}

 private:
  std::unique_ptr<Bytes> bytes_;
};

static_assert(RandomAccessSource<Archetype>);
static_assert(!std::copyable<Archetype> && !std::default_initializable<Archetype>);

}  // namespace erofs_oci::testing
