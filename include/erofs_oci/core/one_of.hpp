// SPDX-License-Identifier: Apache-2.0
/// @file
/// OneOf: a choice among known source types, made at run time without an allocation.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

/// Owns a source of one of the types `Sources`. AnySource is the default choice; this one is for
/// closed choices where an allocation is unwelcome.
///
/// @par Thread safety
/// All const members, from any thread, as the owned source promises.
template <RandomAccessSource... Sources>
  requires(sizeof...(Sources) > 0)
class OneOf {
 public:
  /// Owns `source` from here on.
  template <class S>
    requires(std::same_as<S, Sources> || ...)
  explicit OneOf(S source) : source_(std::in_place_type<S>, std::move(source)) {}

  /// @name RandomAccessSource
  /// @{

  /// Forwarded to the owned source, as are all optional powers.
  [[nodiscard]] std::uint64_t size() const noexcept {
    return std::visit([](auto const& source) { return source.size(); }, source_);
  }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return std::visit([&](auto const& source) { return source.read_at(offset, out); }, source_);
  }

  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return std::visit(
        [&](auto const& source) { return erofs_oci::stream(source, offset, length, sink); },
        source_);
  }

  void prefetch(std::uint64_t offset, std::uint64_t length) const {
    std::visit([&](auto const& source) { erofs_oci::prefetch(source, offset, length); }, source_);
  }

  [[nodiscard]] std::uint64_t granularity() const {
    return std::visit([](auto const& source) { return erofs_oci::granularity(source); }, source_);
  }

  [[nodiscard]] bool is_remote() const {
    return std::visit([](auto const& source) { return erofs_oci::is_remote(source); }, source_);
  }

  [[nodiscard]] std::string describe() const {
    return std::visit([](auto const& source) { return erofs_oci::describe(source); }, source_);
  }
  /// @}

  /// The owned source, if it is an S.
  template <class S>
    requires(std::same_as<S, Sources> || ...)
  [[nodiscard]] S const* get_if() const noexcept {
    return std::get_if<S>(&source_);
  }

 private:
  std::variant<Sources...> source_;
};

}  // namespace erofs_oci
