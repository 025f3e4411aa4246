// SPDX-License-Identifier: Apache-2.0
#include "page.hpp"

#include <algorithm>
#include <span>
#include <utility>

#include <erofs_oci/core/text.hpp>

namespace mount_oci {
namespace {

constexpr std::size_t margin = 2;  // of all text below a title

bool is_capital(char c) {
  return c >= 'A' && c <= 'Z';
}

bool is_title(std::string_view line) {
  return line.size() > 1 && is_capital(line[0]) && is_capital(line[1]);
}

std::size_t indent_of(std::string_view line) {
  return std::min(line.find_first_not_of(' '), line.size());
}

std::string_view trimmed(std::string_view line) {
  line.remove_prefix(indent_of(line));
  while (line.ends_with(' ')) line.remove_suffix(1);
  return line;
}

/// Where the tag of an item that has text on the same line ends, or npos.
std::size_t end_of_tag(std::string_view line) {
  return trimmed(line).find("  ");
}

void add_words(std::string& text, std::string_view line) {
  if (!text.empty()) text += ' ';
  text += trimmed(line);
}

class SectionReader {
 public:
  explicit SectionReader(std::span<std::string_view const> lines) : lines_(lines) {}

  std::vector<PageBlock> read() {
    while (next_ < lines_.size()) {
      auto const line = lines_[next_];
      if (trimmed(line).empty()) {
        ++next_;
      } else if (indent_of(line) > margin) {
        blocks_.push_back(verbatim());
      } else {
        blocks_.push_back(is_item() ? item() : paragraph());
      }
    }
    return std::move(blocks_);
  }

  /// All lines, without their margin.
  std::vector<PageBlock> as_they_are() {
    blocks_.push_back(verbatim_until([](std::string_view) { return false; }));
    return std::move(blocks_);
  }

 private:
  [[nodiscard]] bool at_text() const {
    return next_ < lines_.size() && !trimmed(lines_[next_]).empty();
  }
  [[nodiscard]] bool at_margin() const { return at_text() && indent_of(lines_[next_]) <= margin; }
  [[nodiscard]] bool at_deeper() const { return at_text() && indent_of(lines_[next_]) > margin; }

  /// Lines at the margin, the last of them with its text or with a deeper line behind it.
  [[nodiscard]] bool is_item() const {
    for (auto i = next_; i < lines_.size() && !trimmed(lines_[i]).empty(); ++i) {
      if (indent_of(lines_[i]) > margin) return true;
      if (end_of_tag(lines_[i]) != std::string_view::npos) return i == next_;
    }
    return false;
  }

  PageBlock item() {
    PageBlock block{.kind = PageBlock::Kind::item, .tag = {}, .text = {}};
    while (at_margin()) {
      auto const line = trimmed(lines_[next_++]);
      auto const end = end_of_tag(line);
      add_words(block.tag, line.substr(0, end));
      if (end == std::string_view::npos) continue;
      add_words(block.text, line.substr(end));
      break;
    }
    while (at_deeper()) add_words(block.text, lines_[next_++]);
    return block;
  }

  PageBlock paragraph() {
    PageBlock block;
    while (at_margin() && end_of_tag(lines_[next_]) == std::string_view::npos) {
      add_words(block.text, lines_[next_++]);
    }
    return block;
  }

  PageBlock verbatim() {
    return verbatim_until(
        [](std::string_view line) { return !trimmed(line).empty() && indent_of(line) <= margin; });
  }

  PageBlock verbatim_until(auto const& ends) {
    PageBlock block{.kind = PageBlock::Kind::verbatim, .tag = {}, .text = {}};
    for (; next_ < lines_.size() && !ends(lines_[next_]); ++next_) {
      auto const line = lines_[next_];
      block.text += line.substr(std::min(margin, indent_of(line)));
      block.text += '\n';
    }
    while (block.text.ends_with("\n\n")) block.text.pop_back();
    return block;
  }

  std::span<std::string_view const> lines_;
  std::size_t next_ = 0;
  std::vector<PageBlock> blocks_;
};

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    lines.push_back(erofs_oci::take_part(text, '\n'));
  }
  return lines;
}

}  // namespace

PageSection const* Page::section(std::string_view title) const {
  auto const found = std::ranges::find(sections, title, &PageSection::title);
  return found == sections.end() ? nullptr : &*found;
}

Page parse_page(std::string_view text) {
  Page page;
  auto const lines = lines_of(text);
  if (lines.empty()) return page;
  auto const dash = lines.front().find(" - ");
  page.name = lines.front().substr(0, dash);
  if (dash != std::string_view::npos) page.summary = lines.front().substr(dash + 3);
  for (std::size_t i = 1; i < lines.size();) {
    if (!is_title(lines[i])) {
      ++i;
      continue;
    }
    PageSection section{.title = std::string(lines[i]), .blocks = {}};
    auto const begin = ++i;
    while (i < lines.size() && !is_title(lines[i])) ++i;
    SectionReader reader({lines.data() + begin, i - begin});
    auto const fixed = section.title == "SYNOPSIS" || section.title.starts_with("EXAMPLE");
    section.blocks = fixed ? reader.as_they_are() : reader.read();
    page.sections.push_back(std::move(section));
  }
  return page;
}

}  // namespace mount_oci
