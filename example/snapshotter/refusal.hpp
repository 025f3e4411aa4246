// SPDX-License-Identifier: Apache-2.0
/// @file
/// Refusal: why a call of containerd's is not answered with what it asks for.
#pragma once

#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#include <erofs_oci/core/result.hpp>

namespace oci_snapshotter {

/// Why a call is refused, in the terms that containerd acts on. Every other error is "unknown" to
/// it.
enum class Refusal {
  not_found = 1,        ///< no snapshot of that name, or no such parent
  already_exists,       ///< the name is taken
  invalid_argument,     ///< the call means nothing
  failed_precondition,  ///< not in the state that the snapshot is in
  unavailable,          ///< not now; another attempt may succeed
};

/// The category of Refusal.
class RefusalCategory final : public std::error_category {
 public:
  [[nodiscard]] char const* name() const noexcept override { return "snapshotter"; }

  [[nodiscard]] std::string message(int value) const override {
    switch (static_cast<Refusal>(value)) {
      case Refusal::not_found: return "not found";
      case Refusal::already_exists: return "already exists";
      case Refusal::invalid_argument: return "invalid argument";
      case Refusal::failed_precondition: return "failed precondition";
      case Refusal::unavailable: return "unavailable";
    }
    return "unknown error";
  }
};

/// The one instance of RefusalCategory.
[[nodiscard]] inline std::error_category const& refusal_category() noexcept {
  static RefusalCategory const category;
  return category;
}

/// Found by argument-dependent lookup, so that a Refusal converts to std::error_code.
[[nodiscard]] inline std::error_code make_error_code(Refusal code) noexcept {
  return {static_cast<int>(code), refusal_category()};
}

/// What to return in place of a value: a whole sentence for the client.
[[nodiscard]] inline tl::unexpected<erofs_oci::Error> refuse(Refusal code, std::string sentence) {
  return tl::unexpected(erofs_oci::explain(make_error_code(code), std::move(sentence)));
}

}  // namespace oci_snapshotter

template <>
struct std::is_error_code_enum<oci_snapshotter::Refusal> : std::true_type {};
