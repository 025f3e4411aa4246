// SPDX-License-Identifier: Apache-2.0
// Lists of `-o` words: cutting, quoting, and taking secrets out of them.
#include <algorithm>
#include <cctype>
#include <limits>
#include <utility>

#include <erofs_oci/core/text.hpp>

#include "options.hpp"

namespace mount_oci {
namespace {

/// Classifies the characters of a list by its quotes and backslashes, one at a time.
class Scanner {
 public:
  enum class Kind {
    separator,  ///< a comma that ends the word
    syntax,     ///< a quote or a backslash that only shapes what follows
    text,       ///< a character of the word
  };

  /// What `c` is, given the character that comes after it (0 at the end).
  Kind take(char c, char next) noexcept {
    if (escaped_) {
      escaped_ = false;
      return Kind::text;
    }
    if (c == '\\' && (next == '"' || next == '\\' || (next == ',' && !quoted_))) {
      escaped_ = true;
      return Kind::syntax;
    }
    if (c == '"') {
      quoted_ = !quoted_;
      return Kind::syntax;
    }
    return c == ',' && !quoted_ ? Kind::separator : Kind::text;
  }

  [[nodiscard]] bool quoted() const noexcept { return quoted_; }

 private:
  bool quoted_ = false;
  bool escaped_ = false;
};

constexpr std::string_view secret_word = "oci.password=";

/// Cuts the values behind secret_word out of a list; NULs take their place at its end.
void scrub(char* list) noexcept {
  Scanner scanner;
  auto* end = list;
  bool cutting = false;
  auto const* from = list;
  for (; *from != '\0'; ++from) {
    if (scanner.take(from[0], from[1]) == Scanner::Kind::separator) cutting = false;
    if (cutting) continue;
    *end++ = *from;
    cutting = std::string_view(list, end).ends_with(secret_word);
  }
  std::fill(end, list + (from - list), '\0');
}

}  // namespace

tl::expected<std::vector<Word>, UsageError> split_list(std::string_view list) {
  std::vector<Word> words;
  Word word;
  Scanner scanner;
  auto const finish = [&] {
    if (!word.raw.empty()) words.push_back(std::move(word));
    word = {};
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto const c = list[i];
    auto const kind = scanner.take(c, i + 1 < list.size() ? list[i + 1] : '\0');
    if (kind == Scanner::Kind::separator) {
      finish();
      continue;
    }
    word.raw += c;
    if (kind == Scanner::Kind::syntax) continue;
    if (word.has_value || c != '=') (word.has_value ? word.value : word.key) += c;
    word.has_value = word.has_value || c == '=';
  }
  if (scanner.quoted()) return tl::unexpected(UsageError{"-o: a quote is not closed"});
  finish();
  return words;
}

std::string quote(std::string_view value) {
  std::string text = "\"";
  for (auto const c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  constexpr std::string_view units = "KMGT";
  unsigned shift = 0;
  if (!text.empty()) {
    auto const upper = static_cast<char>(std::toupper(static_cast<unsigned char>(text.back())));
    if (auto const unit = units.find(upper); unit != std::string_view::npos) {
      shift = 10 * (static_cast<unsigned>(unit) + 1);
      text.remove_suffix(1);
    }
  }
  auto const number = erofs_oci::whole_number<std::uint64_t>(text);
  if (!number || *number > std::numeric_limits<std::uint64_t>::max() >> shift) return std::nullopt;
  return *number << shift;
}

void scrub_secrets(int argc, char** argv) noexcept {
  for (int i = 1; i < argc; ++i) scrub(argv[i]);
}

}  // namespace mount_oci
