// SPDX-License-Identifier: Apache-2.0
// Man pages in the macros of man(7).
#include <algorithm>
#include <cctype>

#include <erofs_oci/core/text.hpp>

#include "../page.hpp"
#include "documents.hpp"

namespace mount_oci {
namespace {

/// Text that roff prints as it is.
std::string escaped_roff(std::string_view text) {
  std::string out;
  for (auto const c : text) {
    switch (c) {
      case '\\': out += "\\e"; break;
      case '-': out += "\\-"; break;
      case '\'': out += "\\(aq"; break;
      case '`': out += "\\(ga"; break;
      case '^': out += "\\(ha"; break;
      case '~': out += "\\(ti"; break;
      default: out += c;
    }
  }
  return out;
}

/// The same at the beginning of a line, where a dot would be a command.
std::string roff_line(std::string_view text) {
  auto line = escaped_roff(text);
  if (line.starts_with('.')) line.insert(0, "\\&");
  return line;
}

std::string bold(std::string_view text) {
  return "\\fB" + escaped_roff(text) + "\\fR";
}

/// A page that "mount-oci COMMAND --help" means, as a reference of the manual; else the text.
std::string reference_or_bold(std::string_view text) {
  constexpr std::string_view help = " --help";
  constexpr std::string_view about = "mount-oci help ";
  auto name = std::string(text);
  if (text.ends_with(help)) {
    name = std::string(text.substr(0, text.size() - help.size()));
    std::ranges::replace(name, ' ', '-');
  } else if (text.starts_with(about)) {
    name = std::string(text.substr(about.size()));
  }
  for (auto const& page : manual_pages()) {
    if (name != text && page.name == name) {
      return bold(name) + "(" + std::to_string(page.section) + ")";
    }
  }
  return bold(text);
}

/// Running text: what stands between backquotes is bold, references to pages of the manual are.
std::string inline_roff(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    auto const begin = text.find('`');
    auto const end = begin == std::string_view::npos ? begin : text.find('`', begin + 1);
    if (end == std::string_view::npos) return out + escaped_roff(text);
    out += escaped_roff(text.substr(0, begin));
    out += reference_or_bold(text.substr(begin + 1, end - begin - 1));
    text.remove_prefix(end + 1);
  }
  return out;
}

/// A tag: placeholders, which are in capitals, are italic, the rest is bold.
std::string tag_roff(std::string_view tag) {
  std::string out;
  auto const letter = [](char c) { return std::isupper(static_cast<unsigned char>(c)) != 0; };
  while (!tag.empty()) {
    std::size_t capitals = 0;
    while (capitals < tag.size() && (letter(tag[capitals]) || tag[capitals] == '_')) ++capitals;
    auto const placeholder = capitals > 1 && (out.empty() || !out.ends_with('-'));
    std::size_t size = std::max<std::size_t>(capitals, 1);
    if (!placeholder) {
      while (size < tag.size() &&
             !(letter(tag[size]) && size + 1 < tag.size() && letter(tag[size + 1]))) {
        ++size;
      }
    }
    out += (placeholder ? "\\fI" : "\\fB") + escaped_roff(tag.substr(0, size)) + "\\fR";
    tag.remove_prefix(size);
  }
  return out;
}

/// Running text, a line a sentence.
std::string filled(std::string_view text) {
  std::string out;
  auto line = inline_roff(text);
  for (std::size_t end = 0; (end = line.find(". ")) != std::string::npos;) {
    auto sentence = line.substr(0, end + 1);
    if (sentence.starts_with('.')) sentence.insert(0, "\\&");
    out += sentence + "\n";
    line.erase(0, end + 2);
  }
  if (line.starts_with('.')) line.insert(0, "\\&");
  return out + line + "\n";
}

void put_verbatim(std::string& out, std::string_view text) {
  out += ".nf\n";
  while (!text.empty()) {
    out += roff_line(erofs_oci::take_part(text, '\n')) + "\n";
  }
  out += ".fi\n";
}

void put_section(std::string& out, PageSection const& section) {
  out += ".SH " + section.title + "\n";
  auto const* before = ".SH";
  for (auto const& block : section.blocks) {
    switch (block.kind) {
      case PageBlock::Kind::paragraph:
        if (before != std::string_view(".SH")) out += ".PP\n";
        out += filled(block.text);
        before = ".PP";
        break;
      case PageBlock::Kind::item:
        out += ".TP\n" + tag_roff(block.tag) + "\n" + filled(block.text);
        before = ".TP";
        break;
      case PageBlock::Kind::verbatim:
        if (before != std::string_view(".SH")) out += ".PP\n";
        put_verbatim(out, block.text);
        before = ".nf";
        break;
    }
  }
}

std::string see_also(ManualPage const& page) {
  std::string out = ".SH SEE ALSO\n";
  auto const all = page.name == "mount-oci";
  std::vector<std::string> names;
  for (auto const& other : manual_pages()) {
    auto const usual = other.name == "mount-oci" || other.name == "mount-oci-mount" ||
                       other.name == "mount-oci.conf";
    if (other.name == page.name || !(all || usual)) continue;
    names.push_back(".BR " + escaped_roff(other.name) + " (" + std::to_string(other.section) + ")");
  }
  if (all || page.name == "mount.erofs.nbd") names.emplace_back(".BR mount (8)");
  for (std::size_t i = 0; i < names.size(); ++i) {
    out += names[i] + (i + 1 < names.size() ? ",\n" : "\n");
  }
  return out;
}

std::string upper(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

}  // namespace

std::string man_page(ManualPage const& page, std::string_view date, std::string_view version) {
  auto const parsed = parse_page(page.text);
  std::string out = ".\\\" Made of what --help prints.\n";
  out += ".TH " + escaped_roff(upper(page.name)) + " " + std::to_string(page.section) + " " +
         std::string(date) + " \"erofs_oci " + std::string(version) + "\" \"mount\\-oci\"\n";
  out += ".SH NAME\n" + escaped_roff(page.name) + " \\- " + escaped_roff(parsed.summary) + "\n";
  for (auto const& section : parsed.sections) put_section(out, section);
  return out + see_also(page);
}

}  // namespace mount_oci
