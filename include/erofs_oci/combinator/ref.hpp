// SPDX-License-Identifier: Apache-2.0
/// @file
/// Ref and Shared: sources that borrow or share another one.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// Borrows a source, which must outlive it.
template <RandomAccessSource Inner>
class Ref {
 public:
  /// Borrows `inner`.
  explicit Ref(Inner const& inner) noexcept : inner_(std::addressof(inner)) {}
  explicit Ref(Inner const&&) = delete;

  /// @name RandomAccessSource
  /// @{

  /// As the borrowed source; all optional powers are forwarded.
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_->size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return inner_->read_at(offset, out);
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return erofs_oci::stream(*inner_, offset, length, sink);
  }

  bool forget(std::uint64_t offset, std::uint64_t length) const {
    return erofs_oci::forget(*inner_, offset, length);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return *inner_; }

 private:
  Inner const* inner_;
};

/// Shares a source with other Shared ones; the last one ends it. Copyable.
template <RandomAccessSource Inner>
class Shared {
 public:
  /// Owns `inner`, together with all later copies of this object.
  explicit Shared(Inner inner) : inner_(std::make_shared<Inner const>(std::move(inner))) {}

  /// @name RandomAccessSource
  /// @{

  /// As the shared source; all optional powers are forwarded.
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_->size(); }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return inner_->read_at(offset, out);
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return erofs_oci::stream(*inner_, offset, length, sink);
  }

  bool forget(std::uint64_t offset, std::uint64_t length) const {
    return erofs_oci::forget(*inner_, offset, length);
  }
  /// @}

  /// The layer below.
  [[nodiscard]] Inner const& inner() const noexcept { return *inner_; }

 private:
  std::shared_ptr<Inner const> inner_;
};

}  // namespace erofs_oci
