// SPDX-License-Identifier: Apache-2.0
/// @file
/// EitherStop: two stop tokens as one.
#pragma once

#include <optional>
#include <stop_token>
#include <utility>

namespace erofs_oci {

/// A stop token that is requested once one of two is. Costs nothing while only one can be.
///
/// @par Thread safety
/// token(), from any thread. What it yields is requested no more once this object has ended.
class EitherStop {
 public:
  EitherStop(std::stop_token one, std::stop_token other) {
    if (!other.stop_possible()) {
      token_ = std::move(one);
    } else if (!one.stop_possible()) {
      token_ = std::move(other);
    } else {
      std::stop_source const both;
      token_ = both.get_token();
      at_one_.emplace(std::move(one), Request{both});
      at_other_.emplace(std::move(other), Request{both});
    }
  }

  EitherStop(EitherStop const&) = delete;
  EitherStop& operator=(EitherStop const&) = delete;

  [[nodiscard]] std::stop_token const& token() const noexcept { return token_; }

 private:
  struct Request {
    std::stop_source both;
    void operator()() noexcept { both.request_stop(); }
  };

  std::stop_token token_;
  std::optional<std::stop_callback<Request>> at_one_;
  std::optional<std::stop_callback<Request>> at_other_;
};

}  // namespace erofs_oci
