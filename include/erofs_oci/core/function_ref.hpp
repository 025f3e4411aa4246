// SPDX-License-Identifier: Apache-2.0
/// @file
/// FunctionRef: borrows a callable for the length of one call.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace erofs_oci {

template <class Signature>
class FunctionRef;

/// A reference to a callable. Never allocates and never owns: do not keep one beyond the call that
/// it was passed to.
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  /// Borrows `callable`, which must outlive this object; of a function, pass the address.
  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, FunctionRef>) &&
                std::is_object_v<std::remove_reference_t<F>> &&
                std::is_invocable_r_v<R, F&, Args...>
  FunctionRef(F&& callable) noexcept  // NOLINT: implicit, as a parameter type must be
      : object_(const_cast<void*>(static_cast<void const*>(std::addressof(callable)))),
        call_([](void* object, Args... args) -> R {
          return std::invoke(*static_cast<std::remove_reference_t<F>*>(object),
                             std::forward<Args>(args)...);
        }) {}

  /// Calls what was borrowed.
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

}  // namespace erofs_oci
