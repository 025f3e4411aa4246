// SPDX-License-Identifier: Apache-2.0
/// @file
/// NotFetched: stands for a blob of which nothing may be fetched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <erofs_oci/cache/blob_name.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// A source of which every read fails. A DiskCached over it reads what is kept of a blob and makes
/// no request.
///
/// @par Thread safety
/// All members, from any thread.
class NotFetched {
 public:
  explicit NotFetched(BlobName name) : name_(std::move(name)) {}

  /// @name RandomAccessSource
  /// @{

  /// @error{Errc::unavailable, always}
  [[nodiscard]] std::uint64_t size() const noexcept { return name_.size; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    if (readable(size(), offset, out.size()) == 0) return std::size_t{0};
    return fail(Errc::unavailable,
                describe() + ": offset " + std::to_string(offset) + ": not kept on this machine");
  }
  /// @}

  /// The blob's digest.
  [[nodiscard]] std::string describe() const { return name_.digest.to_string(); }

 private:
  BlobName name_;
};

}  // namespace erofs_oci
