// SPDX-License-Identifier: Apache-2.0
/// @file
/// JSON from strangers: parsed without exceptions, with limits, read member by member.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci::json {

/// A parsed value.
using Value = nlohmann::json;

/// Deepest nesting that parse() accepts. What we read needs 6.
inline constexpr std::size_t max_depth = 64;

namespace detail {

/// Whether brackets outside strings nest deeper than max_depth.
inline bool too_deep(std::string_view text) noexcept {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto const c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if ((c == '{' || c == '[') && ++depth > max_depth) return true;
    if ((c == '}' || c == ']') && depth > 0) --depth;
  }
  return false;
}

}  // namespace detail

/// Parses a text whose top is an object.
/// @param what  its name in messages
/// @error{Errc::corrupt, not JSON\, nested too deeply\, or no object}
[[nodiscard]] inline Result<Value> parse(std::span<std::byte const> bytes, std::string_view what) {
  auto const text = as_text(bytes);
  if (detail::too_deep(text)) {
    return fail(Errc::corrupt, std::string(what) + ": JSON nested too deeply");
  }
  auto value = Value::parse(text.begin(), text.end(), nullptr, false);
  if (value.is_discarded()) return fail(Errc::corrupt, std::string(what) + ": not JSON");
  if (!value.is_object()) return fail(Errc::corrupt, std::string(what) + ": not a JSON object");
  return value;
}

/// A member, or nullptr if it is missing or null.
[[nodiscard]] inline Value const* find(Value const& object, char const* name) {
  if (!object.is_object()) return nullptr;
  auto const found = object.find(name);
  if (found == object.end() || found->is_null()) return nullptr;
  return &*found;
}

/// A member's text; empty if it is missing.
/// @error{Errc::corrupt, it is no string}
[[nodiscard]] inline Result<std::string> text(Value const& object, char const* name) {
  auto const* const member = find(object, name);
  if (member == nullptr) return std::string();
  if (!member->is_string()) return fail(Errc::corrupt, std::string(name) + " is not a string");
  return member->get_ref<std::string const&>();
}

/// A member that is a count.
/// @error{Errc::corrupt, it is missing\, or not a whole number from 0 to 2^63 - 1}
[[nodiscard]] inline Result<std::uint64_t> count(Value const& object, char const* name) {
  auto const* const member = find(object, name);
  if (member == nullptr || !member->is_number_unsigned()) {
    return fail(Errc::corrupt, std::string(name) + " is not a whole number");
  }
  auto const value = member->get<std::uint64_t>();
  if (!std::in_range<std::int64_t>(value)) {
    return fail(Errc::corrupt, std::string(name) + " is too large");
  }
  return value;
}

/// A member that maps texts to texts; empty if it is missing.
/// @error{Errc::corrupt, it is something else}
[[nodiscard]] inline Result<std::map<std::string, std::string>> text_map(Value const& object,
                                                                         char const* name) {
  std::map<std::string, std::string> out;
  auto const* const member = find(object, name);
  if (member == nullptr) return out;
  if (!member->is_object()) return fail(Errc::corrupt, std::string(name) + " is not an object");
  for (auto const& [key, value] : member->items()) {
    if (!value.is_string()) return fail(Errc::corrupt, std::string(name) + ": not a string");
    out.emplace(key, value.template get_ref<std::string const&>());
  }
  return out;
}

/// A member that lists texts; empty if it is missing.
/// @error{Errc::corrupt, it is something else}
[[nodiscard]] inline Result<std::vector<std::string>> text_list(Value const& object,
                                                                char const* name) {
  std::vector<std::string> out;
  auto const* const member = find(object, name);
  if (member == nullptr) return out;
  if (!member->is_array()) return fail(Errc::corrupt, std::string(name) + " is not a list");
  for (auto const& value : *member) {
    if (!value.is_string()) return fail(Errc::corrupt, std::string(name) + ": not a string");
    out.push_back(value.get_ref<std::string const&>());
  }
  return out;
}

/// As text. What is not UTF-8 in it is replaced.
[[nodiscard]] inline std::string dump(Value const& value) {
  return value.dump(-1, ' ', false, Value::error_handler_t::replace);
}

}  // namespace erofs_oci::json
