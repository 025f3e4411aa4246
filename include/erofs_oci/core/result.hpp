// SPDX-License-Identifier: Apache-2.0
/// @file
/// Result<T>, Error and the library's error codes.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#include <tl/expected.hpp>

namespace erofs_oci {

/// What went wrong, as far as a caller can act on it. Everything else is a std::errc or an errno.
enum class Errc {
  corrupt = 1,       ///< bytes that no correct writer makes
  digest_mismatch,   ///< bytes that are not what their digest names
  truncated,         ///< a source ended before its size
  unavailable,       ///< a peer failed in a way that may pass: worth another attempt
  timed_out,         ///< a deadline passed; counts as transient
  unauthorized,      ///< credentials are missing, wrong or not enough
  not_found,         ///< a peer says that there is no such object
  protocol,          ///< a peer broke its protocol; another attempt would not help
  unsupported,       ///< well formed, but not something that this library can do
  invalid_argument,  ///< a text or option from the user that means nothing
  mismatch,          ///< parts that do not belong together (index, blob, tarindex)
  stopping,          ///< the operation was told to end
};

/// The category of Errc; its messages are what users read.
class ErrcCategory final : public std::error_category {
 public:
  [[nodiscard]] char const* name() const noexcept override { return "erofs_oci"; }

  [[nodiscard]] std::string message(int value) const override {
    switch (static_cast<Errc>(value)) {
      case Errc::corrupt: return "corrupt data";
      case Errc::digest_mismatch: return "digest mismatch";
      case Errc::truncated: return "unexpected end of data";
      case Errc::unavailable: return "temporarily unavailable";
      case Errc::timed_out: return "deadline exceeded";
      case Errc::unauthorized: return "not authorized";
      case Errc::not_found: return "not found";
      case Errc::protocol: return "protocol error";
      case Errc::unsupported: return "not supported";
      case Errc::invalid_argument: return "invalid argument";
      case Errc::mismatch: return "parts do not belong together";
      case Errc::stopping: return "stopping";
    }
    return "unknown error";
  }
};

/// The one instance of ErrcCategory.
[[nodiscard]] inline std::error_category const& errc_category() noexcept {
  static ErrcCategory const category;
  return category;
}

/// Found by argument-dependent lookup, so that an Errc converts to std::error_code.
[[nodiscard]] inline std::error_code make_error_code(Errc code) noexcept {
  return {static_cast<int>(code), errc_category()};
}

}  // namespace erofs_oci

/// @cond
template <>
struct std::is_error_code_enum<erofs_oci::Errc> : std::true_type {};
/// @endcond

namespace erofs_oci {

/// A failure as a value: a code to branch on and a text that says where and why.
struct Error {
  std::error_code code;  ///< never zero
  std::string
      context;  ///< object, offset and cause, outermost first: "layer sha256:12…: span 3: …"
  /// How long the peer asked us to wait (HTTP Retry-After); empty if it did not.
  std::optional<std::chrono::milliseconds> retry_after{};

  /// The whole line that a user reads: context, then the code's own words.
  [[nodiscard]] std::string message() const {
    return context.empty() ? code.message() : context + ": " + code.message();
  }
};

/// A T or the Error that explains why there is none.
template <class T>
using Result = tl::expected<T, Error>;

/// What to return in place of a value.
[[nodiscard]] inline tl::unexpected<Error> fail(std::error_code code, std::string context) {
  return tl::unexpected(Error{code, std::move(context)});
}

/// The same for an Error that comes from below; `where` is put in front of its context.
[[nodiscard]] inline tl::unexpected<Error> fail(Error error, std::string where = {}) {
  if (!where.empty()) {
    error.context = error.context.empty() ? std::move(where) : where + ": " + error.context;
  }
  return tl::unexpected(std::move(error));
}

/// The error of the system call that has just failed: reads errno's value from `number`.
[[nodiscard]] inline tl::unexpected<Error> fail_errno(int number, std::string context) {
  return fail(std::error_code(number, std::system_category()), std::move(context));
}

/// Whether the same call may succeed later.
[[nodiscard]] inline bool is_transient(Error const& error) noexcept {
  return error.code == Errc::unavailable || error.code == Errc::timed_out;
}

}  // namespace erofs_oci
