// SPDX-License-Identifier: Apache-2.0
/// @file
/// Finding: what a doctor has found, and how it is printed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <erofs_oci/oci/json.hpp>

namespace mount_oci {

/// How one thing is.
struct Finding {
  enum class State : std::uint8_t {
    ok,
    skipped,  ///< it could not be looked at, or is of no interest here
    warning,  ///< it works, but something is lost
    failed,
  };

  std::string check;  ///< a word: what was looked at
  State state = State::ok;
  std::string text;      ///< what was found
  std::string advice{};  ///< what to do; empty: nothing

  friend bool operator==(Finding const&, Finding const&) = default;
};

/// Whether anything has failed.
[[nodiscard]] bool has_failed(std::vector<Finding> const& findings);

/// A line of what was found, and below it the lines of the advice.
[[nodiscard]] std::string finding_text(Finding const& finding);

/// An array of objects: check, state, text and, unless it is empty, advice.
[[nodiscard]] erofs_oci::json::Value findings_value(std::vector<Finding> const& findings);

}  // namespace mount_oci
