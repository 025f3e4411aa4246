// SPDX-License-Identifier: Apache-2.0
/// @file
/// Small documents that registries answer with: errors, and lists of tags.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/reference.hpp>

namespace erofs_oci::detail {

/// The first error in the body of a refusal.
struct Refusal {
  std::string code;     ///< as MANIFEST_UNKNOWN; empty: it has none
  std::string message;  ///< empty: it has none

  /// As "CODE: message", in quotes; empty if there is neither.
  [[nodiscard]] std::string text() const {
    if (code.empty() && message.empty()) return {};
    return quote(code.empty() || message.empty() ? code + message : code + ": " + message);
  }
};

/// Reads a refusal's body; what it does not say stays empty.
/// @spec{OCI distribution-spec 1.1, error codes}
[[nodiscard]] inline Refusal read_refusal(std::span<std::byte const> body) {
  auto const value = json::parse(body, "answer");
  if (!value) return {};
  auto const* const errors = json::find(*value, "errors");
  if (errors == nullptr || !errors->is_array() || errors->empty()) return {};
  return {json::text(errors->front(), "code").value_or(""),
          json::text(errors->front(), "message").value_or("")};
}

/// Reads an answer to `tags/list`.
/// @spec{OCI distribution-spec 1.1, listing tags}
/// @error{Errc::corrupt, it is no such list}
[[nodiscard]] inline Result<std::vector<std::string>> read_tag_list(
    std::span<std::byte const> body) {
  EROFS_OCI_TRY_ASSIGN(auto const value, json::parse(body, "tags"));
  auto const* const tags = json::find(value, "tags");
  if (tags == nullptr || tags->is_null()) return std::vector<std::string>();
  return json::text_list(value, "tags");
}

/// For the message of a tag that is not there: at most `most` of those that are.
[[nodiscard]] inline std::string list_tags(std::span<std::string const> tags, std::size_t most) {
  if (tags.empty()) return "it has no tags";
  std::string out = "it has ";
  for (auto const& tag : tags.first(std::min(tags.size(), most))) {
    out += (&tag == tags.data() ? "" : ", ") + quote(tag);
  }
  return out + (tags.size() > most ? " and others" : "");
}

}  // namespace erofs_oci::detail
