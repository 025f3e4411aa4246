// SPDX-License-Identifier: Apache-2.0
/// @file
/// Result<T>, Error and the library's error codes.
#pragma once

#include <chrono>
#include <new>
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
  unavailable,       ///< a peer failed transiently: another attempt may succeed
  timed_out,         ///< a deadline passed; counts as transient
  unauthorized,      ///< credentials are missing, wrong or not enough
  not_found,         ///< the peer has no such object
  protocol,          ///< a peer broke its protocol; another attempt would not help
  unsupported,       ///< well formed, but not something that this library can do
  invalid_argument,  ///< a malformed text or option from the user
  mismatch,          ///< parts that do not belong together (index, blob, tarindex)
  stopping,          ///< a stop was requested
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
  /// Object, offset and cause, outermost first: "layer sha256:12…: span 3: …"
  std::string context;
  /// How long the peer asked us to wait (HTTP Retry-After); empty if it did not.
  std::optional<std::chrono::milliseconds> retry_after{};
  /// The context is a whole sentence, to which the code's text would add nothing.
  bool explained = false;

  /// The message for users: context, then the code's text unless the context is `explained`.
  [[nodiscard]] std::string message() const {
    if (context.empty()) return code.message();
    return explained ? context : context + ": " + code.message();
  }
};

/// A T or the Error that explains why there is none.
template <class T>
using Result = tl::expected<T, Error>;

/// An Error to keep or to hand on; fail() makes one to return.
[[nodiscard]] inline Error make_error(std::error_code code, std::string context) {
  return {code, std::move(context)};
}

/// The same for an Error that comes from below; `where` is put in front of its context.
[[nodiscard]] inline Error make_error(Error error, std::string where) {
  if (!where.empty()) {
    error.context = error.context.empty() ? std::move(where) : where + ": " + error.context;
  }
  return error;
}

/// An Error whose message is `sentence` and nothing else: what happened, to what, and why.
[[nodiscard]] inline Error explain(std::error_code code, std::string sentence) {
  return {code, std::move(sentence), {}, true};
}

/// What to return in place of a value.
[[nodiscard]] inline tl::unexpected<Error> fail(std::error_code code, std::string context) {
  return tl::unexpected(make_error(code, std::move(context)));
}

/// The same for an Error that comes from below; `where` is put in front of its context.
[[nodiscard]] inline tl::unexpected<Error> fail(Error error, std::string where = {}) {
  return tl::unexpected(make_error(std::move(error), std::move(where)));
}

/// The error of the system call that has just failed: reads errno's value from `number`.
[[nodiscard]] inline tl::unexpected<Error> fail_errno(int number, std::string context) {
  return fail(std::error_code(number, std::system_category()), std::move(context));
}

/// What `make()`, which yields a Result, returns; if it throws, an Error with the exception's code:
/// that of a std::system_error, std::errc::not_enough_memory for std::bad_alloc and
/// std::errc::io_error for all else. That Error takes no memory. For threads and guards, which have
/// no caller to pass an exception to.
template <class F>
[[nodiscard]] auto without_throwing(F&& make) noexcept -> std::invoke_result_t<F> {
  try {
    return std::forward<F>(make)();
  } catch (std::bad_alloc const&) {
    return tl::unexpected(Error{std::make_error_code(std::errc::not_enough_memory), {}});
  } catch (std::system_error const& error) {
    return tl::unexpected(Error{error.code(), {}});
  } catch (...) {
    return tl::unexpected(Error{std::make_error_code(std::errc::io_error), {}});
  }
}

/// Whether the same call may succeed later.
[[nodiscard]] inline bool is_transient(Error const& error) noexcept {
  return error.code == Errc::unavailable || error.code == Errc::timed_out;
}

}  // namespace erofs_oci

/// @cond
#define EROFS_OCI_DETAIL_JOIN_NOW(a, b) a##b
#define EROFS_OCI_DETAIL_JOIN(a, b) EROFS_OCI_DETAIL_JOIN_NOW(a, b)
#define EROFS_OCI_DETAIL_ASSIGN(result, target, expression, ...)                           \
  auto&& result = expression;                                                              \
  if (!result) {                                                                           \
    return ::erofs_oci::fail(std::forward<decltype(result)>(result).error() __VA_OPT__(, ) \
                                 __VA_ARGS__);                                             \
  }                                                                                        \
  target = *std::forward<decltype(result)>(result)
/// @endcond

/// Returns from the function with the error of a Result, if it is one; what it holds otherwise is
/// dropped.
///
///     EROFS_OCI_TRY(read_exactly(source, offset, bytes));
///     EROFS_OCI_TRY(read_exactly(source, offset, bytes), "superblock");
///
/// The optional second argument is the `where` of fail(), computed only in case of an error. The
/// function must return a Result. An expression with a comma outside of parentheses needs
/// parentheses of its own.
#define EROFS_OCI_TRY(expression, ...)                                                    \
  do {                                                                                    \
    if (auto&& erofs_oci_result = expression; !erofs_oci_result) {                        \
      return ::erofs_oci::fail(std::forward<decltype(erofs_oci_result)>(erofs_oci_result) \
                                   .error() __VA_OPT__(, ) __VA_ARGS__);                  \
    }                                                                                     \
  } while (false)

/// The same, and if there is a value, moves it into `target`: a declaration, or what can be
/// assigned to.
///
///     EROFS_OCI_TRY_ASSIGN(auto const header, read_header(bytes), name);
///
/// To move the value out of a named Result, write std::move() in the expression. These are several
/// statements: not the body of an `if` without braces, and at most one a line.
#define EROFS_OCI_TRY_ASSIGN(target, expression, ...)                                 \
  EROFS_OCI_DETAIL_ASSIGN(EROFS_OCI_DETAIL_JOIN(erofs_oci_result_, __LINE__), target, \
                          expression __VA_OPT__(, ) __VA_ARGS__)
