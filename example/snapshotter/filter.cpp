// SPDX-License-Identifier: Apache-2.0
#include "filter.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include <re2/re2.h>

#include <erofs_oci/core/text.hpp>

#include "refusal.hpp"

namespace oci_snapshotter {

using erofs_oci::fail;
using erofs_oci::Result;

struct Filters::Test {
  enum class Operator : std::uint8_t { present, equal, unequal, matches };

  std::vector<std::string> field;
  Operator how = Operator::present;
  std::string value{};
  std::unique_ptr<re2::RE2> pattern{};

  [[nodiscard]] bool match(Info const& info) const {
    auto const found = value_of(info);
    switch (how) {
      case Operator::present: return found && !(field.size() == 1 && found->empty());
      case Operator::equal: return found && *found == value;
      case Operator::unequal: return found.value_or("") != value;
      case Operator::matches: return re2::RE2::PartialMatch(found.value_or(""), *pattern);
    }
    return false;
  }

 private:
  [[nodiscard]] std::optional<std::string> value_of(Info const& info) const {
    if (field.front() == "labels" && field.size() > 1) {
      auto name = field[1];
      for (std::size_t i = 2; i < field.size(); ++i) name += "." + field[i];
      auto const found = info.labels.find(name);
      if (found == info.labels.end()) return std::nullopt;
      return found->second;
    }
    if (field.size() != 1) return std::nullopt;
    if (field.front() == "name") return info.name;
    if (field.front() == "parent") return info.parent;
    if (field.front() != "kind") return std::nullopt;
    return info.kind == Kind::view ? "view" : info.kind == Kind::active ? "active" : "committed";
  }
};

namespace {

/// Appends a code point as UTF-8.
/// @return  whether it is one
bool append_rune(std::string& out, std::uint32_t rune) {
  if (rune > 0x10ffff || (rune >= 0xd800 && rune < 0xe000)) return false;
  auto const put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (rune < 0x80) {
    put(rune);
    return true;
  }
  if (rune < 0x800) {
    put(0xc0 | (rune >> 6));
  } else {
    if (rune < 0x10000) {
      put(0xe0 | (rune >> 12));
    } else {
      put(0xf0 | (rune >> 18));
      put(0x80 | ((rune >> 12) & 0x3f));
    }
    put(0x80 | ((rune >> 6) & 0x3f));
  }
  put(0x80 | (rune & 0x3f));
  return true;
}

/// Reads one filter from front to back.
class Parser {
 public:
  explicit Parser(std::string_view text) : all_(text), rest_(text) {}

  [[nodiscard]] bool is_at_end() const noexcept { return rest_.empty(); }
  [[nodiscard]] bool take(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  [[nodiscard]] Result<std::vector<std::string>> field() {
    std::vector<std::string> out;
    do {
      if (rest_.starts_with('"')) {
        EROFS_OCI_TRY_ASSIGN(out.emplace_back(), quoted());
        continue;
      }
      auto const end = std::ranges::find_if_not(
          rest_, [](char c) { return erofs_oci::is_letter_or_digit(c) || c == '_'; });
      auto const word = rest_.substr(0, static_cast<std::size_t>(end - rest_.begin()));
      if (word.empty()) return refuse("a field is expected");
      rest_.remove_prefix(word.size());
      out.emplace_back(word);
    } while (take("."));
    return out;
  }

  /// @param delimiters  that a value may stand between, besides quotes
  [[nodiscard]] Result<std::string> value(std::string_view delimiters) {
    if (rest_.starts_with('"')) return quoted();
    if (!rest_.empty() && delimiters.find(rest_.front()) != delimiters.npos) return delimited();
    std::string out(rest_.substr(0, rest_.find_first_of(", \t\r\n\"")));
    if (out.empty()) return refuse("a value is expected");
    rest_.remove_prefix(out.size());
    return out;
  }

  [[nodiscard]] tl::unexpected<erofs_oci::Error> refuse(std::string const& why) const {
    return fail(Refusal::invalid_argument, "filter `" + std::string(all_) + "`, at character " +
                                               std::to_string(all_.size() - rest_.size()) + ": " +
                                               why);
  }

 private:
  /// A string as Go writes it.
  [[nodiscard]] Result<std::string> quoted() {
    std::string out;
    rest_.remove_prefix(1);
    for (;;) {
      if (rest_.empty()) return refuse("a quote without its end");
      auto const c = rest_.front();
      rest_.remove_prefix(1);
      if (c == '"') return out;
      if (c != '\\') {
        out += c;
      } else if (!escape(out)) {
        return refuse("an escape that Go does not have");
      }
    }
  }

  /// What stands between two of the same character, which a backslash makes a plain one.
  [[nodiscard]] Result<std::string> delimited() {
    std::string out;
    auto const delimiter = rest_.front();
    for (rest_.remove_prefix(1); !rest_.empty(); rest_.remove_prefix(1)) {
      if (rest_.front() == delimiter) {
        rest_.remove_prefix(1);
        return out;
      }
      if (rest_.size() > 1 && rest_[0] == '\\' && rest_[1] == delimiter) rest_.remove_prefix(1);
      out += rest_.front();
    }
    return refuse("a value without its end");
  }

  [[nodiscard]] bool escape(std::string& out) {
    constexpr std::string_view letters = "abfnrtv\\\"";
    constexpr std::string_view meant = "\a\b\f\n\r\t\v\\\"";
    if (rest_.empty()) return false;
    auto const c = rest_.front();
    if (auto const at = letters.find(c); at != letters.npos) {
      out += meant[at];
      rest_.remove_prefix(1);
      return true;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
      rest_.remove_prefix(1);
      auto const value = number(16, c == 'x' ? 2 : c == 'u' ? 4 : 8);
      if (!value) return false;
      if (c != 'x') return append_rune(out, *value);
      out += static_cast<char>(*value);
      return true;
    }
    auto const value = number(8, 3);
    if (!value || *value > 255) return false;
    out += static_cast<char>(*value);
    return true;
  }

  [[nodiscard]] std::optional<std::uint32_t> number(std::uint32_t base, std::size_t digits) {
    if (rest_.size() < digits) return std::nullopt;
    std::uint32_t value = 0;
    for (auto const c : rest_.substr(0, digits)) {
      auto const digit = std::string_view("0123456789abcdef").find(erofs_oci::to_lower(c));
      if (digit >= base) return std::nullopt;
      value = value * base + static_cast<std::uint32_t>(digit);
    }
    rest_.remove_prefix(digits);
    return value;
  }

  std::string_view all_;
  std::string_view rest_;
};

}  // namespace

Result<Filters> Filters::parse(std::span<std::string const> texts) {
  using Operator = Test::Operator;
  Filters out;
  for (auto const& text : texts) {
    Parser parser(text);
    auto& all = out.any_.emplace_back();
    if (parser.is_at_end()) continue;  // fits everything
    for (;;) {
      auto test = std::make_shared<Test>();
      EROFS_OCI_TRY_ASSIGN(test->field, parser.field());
      test->how = parser.take("==")   ? Operator::equal
                  : parser.take("!=") ? Operator::unequal
                  : parser.take("~=") ? Operator::matches
                                      : Operator::present;
      auto const is_pattern = test->how == Operator::matches;
      if (test->how != Operator::present) {
        EROFS_OCI_TRY_ASSIGN(test->value, parser.value(is_pattern ? "/|" : ""));
      }
      if (is_pattern) {
        test->pattern = std::make_unique<re2::RE2>(test->value, re2::RE2::Quiet);
        if (!test->pattern->ok()) return parser.refuse(test->pattern->error());
      }
      all.push_back(std::move(test));
      if (parser.is_at_end()) break;
      if (!parser.take(",")) return parser.refuse("a comma is expected");
    }
  }
  return out;
}

bool Filters::match(Info const& info) const {
  if (any_.empty()) return true;
  return std::ranges::any_of(any_, [&](auto const& all) {
    return std::ranges::all_of(all, [&](auto const& test) { return test->match(info); });
  });
}

}  // namespace oci_snapshotter
