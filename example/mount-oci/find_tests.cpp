// SPDX-License-Identifier: Apache-2.0
#include "find_tests.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>
#include <utility>

#include <erofs_oci/core/text.hpp>

namespace mount_oci {
namespace {

/// Takes a sign that is one of `signs` away, if there is one.
char take_sign(std::string_view& text, std::string_view signs) {
  if (text.empty() || signs.find(text.front()) == std::string_view::npos) return 0;
  auto const sign = text.front();
  text.remove_prefix(1);
  return sign;
}

}  // namespace

std::optional<FindNumber> FindNumber::parse(std::string_view text) {
  auto const sign = take_sign(text, "+-");
  auto const value = erofs_oci::whole_number<std::uint64_t>(text);
  if (!value) return std::nullopt;
  return FindNumber{*value, sign};
}

std::optional<FindSize> FindSize::parse(std::string_view text) {
  constexpr std::array<std::pair<char, std::uint64_t>, 6> units{
      {{'c', 1}, {'w', 2}, {'b', 512}, {'k', 1 << 10}, {'M', 1 << 20}, {'G', 1 << 30}}};
  FindSize size;
  if (text.empty()) return std::nullopt;
  auto const* const unit =
      std::ranges::find(units, text.back(), &decltype(units)::value_type::first);
  if (unit != units.end()) {
    size.unit = unit->second;
    text.remove_suffix(1);
  }
  auto const number = FindNumber::parse(text);
  if (!number) return std::nullopt;
  size.number = *number;
  return size;
}

std::optional<FindMode> FindMode::parse(std::string_view text) {
  FindMode mode;
  mode.sign = take_sign(text, "-/");
  auto const* const end = text.data() + text.size();
  auto const [at, problem] = std::from_chars(text.data(), end, mode.bits, 8);
  if (problem != std::errc() || at != end || mode.bits > 07777) return std::nullopt;
  return mode;
}

}  // namespace mount_oci
