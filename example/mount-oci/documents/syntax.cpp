// SPDX-License-Identifier: Apache-2.0
// What completions know: the parsers' options and words, with what the manual says of them.
#include <algorithm>
#include <cctype>
#include <map>

#include "../page.hpp"
#include "documents.hpp"

namespace mount_oci {
namespace {

/// The texts of all items of a page, by each option and word that their tags name.
std::map<std::string, PageBlock const*> items_of(Page const& page) {
  std::map<std::string, PageBlock const*> found;
  for (auto const& section : page.sections) {
    for (auto const& block : section.blocks) {
      if (block.kind != PageBlock::Kind::item) continue;
      std::string_view rest = block.tag;
      while (!rest.empty()) {
        auto const end = std::min(rest.find_first_of(" ,"), rest.size());
        auto const word = rest.substr(0, std::min(end, rest.find_first_of("=[")));
        if (!word.empty()) found.emplace(word, &block);
        rest.remove_prefix(std::min(end + 1, rest.size()));
      }
    }
  }
  return found;
}

/// The first sentence, for a menu.
std::string first_sentence(std::string_view text) {
  auto const end = std::min({text.find(". "), text.find("; "), text.find(": ")});
  auto sentence = std::string(text.substr(0, end));
  std::erase(sentence, '`');
  if (sentence.ends_with('.')) sentence.pop_back();
  return sentence;
}

bool is_placeholder(std::string_view value) {
  return !value.empty() && std::isupper(static_cast<unsigned char>(value.front())) != 0;
}

/// Reads the value of a tag such as oci.verify=lazy|off, oci.insecure[=0|1] or oci.store=DIR|none.
void read_value(std::string_view tag, WordSyntax& word) {
  auto const begin = tag.find(word.name) + word.name.size();
  auto rest = tag.substr(std::min(begin, tag.size()));
  auto const optional = rest.starts_with("[=");
  if (!optional && !rest.starts_with('=')) return;
  rest.remove_prefix(optional ? 2 : 1);
  word.takes_value = true;
  word.needs_value = !optional;
  rest = rest.substr(0, rest.find(' '));
  if (optional && rest.ends_with(']')) rest.remove_suffix(1);
  if (rest.find_first_of("[:/") != std::string_view::npos && !rest.starts_with("DIR")) return;
  while (!rest.empty()) {
    auto const end = std::min(rest.find('|'), rest.size());
    auto const value = rest.substr(0, end);
    if (value.starts_with("DIR") || value == "PATH" || value == "FILE") word.path = true;
    if (!is_placeholder(value)) word.choices.emplace_back(value);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

}  // namespace

std::vector<WordSyntax> word_syntax() {
  auto const page = parse_page(manual(Command::mount));
  auto const items = items_of(page);
  std::vector<WordSyntax> words;
  for (auto const& name : option_words()) {
    if (std::ranges::find(words, name, &WordSyntax::name) != words.end()) continue;
    WordSyntax word{.name = name, .choices = {}, .text = {}};
    if (auto const found = items.find(name); found != items.end()) {
      read_value(found->second->tag, word);
      if (name.starts_with("oci.") || name == "stack")
        word.text = first_sentence(found->second->text);
    }
    words.push_back(std::move(word));
  }
  return words;
}

std::vector<CommandPage> command_pages() {
  auto const overview = parse_page(manual(Command::help));
  auto const common = items_of(overview);
  auto const mount = parse_page(manual(Command::mount));
  auto const of_mount = items_of(mount);
  std::vector<CommandPage> out;
  for (auto const& name : command_names()) {
    auto const page = parse_page(manual(command_named(name).value_or(Command::help)));
    auto const own = items_of(page);
    CommandPage command{.name = name, .summary = page.summary, .options = {}};
    for (auto& [names, value] : option_syntax(name)) {
      CommandOption option{.names = names, .value = value, .text = {}};
      for (auto const* items : {&own, &common, &of_mount}) {
        for (auto const& one : names) {
          auto const found = items->find(one);
          if (option.text.empty() && found != items->end()) {
            option.text = first_sentence(found->second->text);
          }
        }
      }
      command.options.push_back(std::move(option));
    }
    out.push_back(std::move(command));
  }
  return out;
}

std::string config_example() {
  std::string out =
      "# Words of -o for all images, or for those of one registry: mount-oci.conf(5).\n"
      "# Each line below is commented out; values are examples or placeholders.\n";
  auto const page = parse_page(manual(Command::mount));
  auto const wrap = [&](std::string_view text) {
    std::string line = "#";
    while (!text.empty()) {
      auto const end = std::min(text.find(' '), text.size());
      if (line.size() + end > 98) out += std::exchange(line, "#") + "\n";
      line += " " + std::string(text.substr(0, end));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    out += line + "\n";
  };
  for (auto const& word : word_syntax()) {
    if (!word.name.starts_with("oci.")) continue;
    for (auto const& section : page.sections) {
      for (auto const& block : section.blocks) {
        auto const& tag = block.tag;
        if (section.title != "WORDS OF -o" || !tag.starts_with(word.name)) continue;
        auto const rest = std::string_view(tag).substr(word.name.size());
        if (!rest.starts_with('=') && !rest.starts_with('[')) continue;
        out += "\n";
        wrap(tag + ": " + block.text);
        auto const value =
            word.choices.empty() || word.path ? std::string("...") : word.choices.front();
        auto const number =
            !value.empty() && std::isdigit(static_cast<unsigned char>(value[0])) != 0;
        out += "#" + word.name + " = " + (number ? value : "\"" + value + "\"") + "\n";
      }
    }
  }
  return out +
         "\n# Tables of registries come last, and count more than what is above.\n"
         "#[registry.\"registry.example.com:5000\"]\n"
         "#oci.username = \"me\"\n"
         "#oci.password_file = \"/etc/mount-oci.password\"\n";
}

}  // namespace mount_oci
