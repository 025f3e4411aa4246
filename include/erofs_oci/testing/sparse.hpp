// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sparse: a source of any size whose bytes are zeros but for a few extents.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci::testing {

/// `size` zero bytes with extents written over them: terabytes for tests, in no memory.
class Sparse {
 public:
  /// @param size     bytes
  /// @param extents  by offset; they do not overlap and lie within `size`
  explicit Sparse(std::uint64_t size, std::map<std::uint64_t, Bytes> extents = {})
      : size_(size), extents_(std::move(extents)) {}

  /// @name RandomAccessSource
  /// @{

  /// Never fails.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size_, offset, out.size());
    out = out.first(n);
    std::ranges::fill(out, std::byte{0});
    auto extent = extents_.upper_bound(offset);
    if (extent != extents_.begin()) --extent;
    for (; extent != extents_.end() && extent->first < offset + n; ++extent) {
      auto const begin = std::max(offset, extent->first);
      auto const end = std::min(offset + n, extent->first + extent->second.size());
      if (begin >= end) continue;
      auto const part = std::span(extent->second)
                            .subspan(static_cast<std::size_t>(begin - extent->first),
                                     static_cast<std::size_t>(end - begin));
      std::ranges::copy(part, out.begin() + static_cast<std::ptrdiff_t>(begin - offset));
    }
    return n;
  }
  /// @}

  [[nodiscard]] std::string describe() const { return "sparse"; }

 private:
  std::uint64_t size_;
  std::map<std::uint64_t, Bytes> extents_;
};

static_assert(RandomAccessSource<Sparse>);

}  // namespace erofs_oci::testing
