// SPDX-License-Identifier: Apache-2.0
/// @file
/// Memory: a source over bytes that it owns.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// Bytes in memory.
class Memory {
 public:
  /// Owns `bytes`.
  explicit Memory(Bytes bytes) noexcept : bytes_(std::move(bytes)) {}

  /// @name RandomAccessSource
  /// @{

  /// Never fails.
  [[nodiscard]] std::uint64_t size() const noexcept { return bytes_.size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size(), offset, out.size());
    if (n > 0) std::copy_n(bytes_.data() + offset, n, out.data());
    return n;
  }
  /// @}

  [[nodiscard]] std::string describe() const { return "memory"; }

 private:
  Bytes bytes_;
};

static_assert(RandomAccessSource<Memory>);

}  // namespace erofs_oci
