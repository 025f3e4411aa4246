// SPDX-License-Identifier: Apache-2.0
#include "manual.hpp"  // first: proves that the header stands alone

#include <algorithm>
#include <set>

#include <catch.hpp>

#include "page.hpp"

namespace mount_oci {
namespace manual_test {

using Kind = PageBlock::Kind;

/// The options that a page's items are about, and those of all items.
std::set<std::string> options_in(std::string_view text) {
  std::set<std::string> found;
  for (auto const& section : parse_page(text).sections) {
    for (auto const& block : section.blocks) {
      if (block.kind != Kind::item || !block.tag.starts_with('-')) continue;
      std::string_view rest = block.tag;
      while (!rest.empty()) {
        auto const end = std::min(rest.find(' '), rest.size());
        auto const word = rest.substr(0, std::min(end, rest.find_first_of(",=[")));
        if (word.starts_with('-')) found.emplace(word);
        rest.remove_prefix(std::min(end + 1, rest.size()));
      }
    }
  }
  return found;
}

TEST_CASE("A page is read as sections, paragraphs and items", "[tool][manual]") {
  auto const page = parse_page(R"(tool - do things

SYNOPSIS
  tool [-a]  FILE
  tool -b

DESCRIPTION
  One paragraph
  of two lines.

    kept   as it is

  Another one.

OPTIONS
  -a, --all     everything
                there is
  -b
                more
  one two
  three
    for all
)");
  CHECK(page.name == "tool");
  CHECK(page.summary == "do things");
  REQUIRE(page.sections.size() == 3);
  CHECK(page.section("SYNOPSIS")->blocks.at(0).text == "tool [-a]  FILE\ntool -b\n");
  auto const& description = page.section("DESCRIPTION")->blocks;
  REQUIRE(description.size() == 3);
  CHECK(description[0].text == "One paragraph of two lines.");
  CHECK(description[1].kind == Kind::verbatim);
  CHECK(description[1].text == "  kept   as it is\n");
  CHECK(description[2].text == "Another one.");
  auto const& options = page.section("OPTIONS")->blocks;
  REQUIRE(options.size() == 3);
  CHECK(options[0].tag == "-a, --all");
  CHECK(options[0].text == "everything there is");
  CHECK(options[1].tag == "-b");
  CHECK(options[1].text == "more");
  CHECK(options[2].tag == "one two three");
  CHECK(options[2].text == "for all");
  CHECK(page.section("NOTHING") == nullptr);
  CHECK(parse_page("").sections.empty());
}

TEST_CASE("Every page has a name, a summary, and no item that is read as text", "[tool][manual]") {
  for (auto const& page : manual_pages()) {
    INFO(page.name);
    auto const parsed = parse_page(page.text);
    CHECK_FALSE(parsed.summary.empty());
    CHECK(parsed.section("SYNOPSIS") != nullptr);
    if (page.section == 8) CHECK(parsed.section("EXIT STATUS") != nullptr);
    for (auto const& section : parsed.sections) {
      for (auto const& block : section.blocks) {
        if (block.kind == Kind::verbatim) continue;
        CAPTURE(section.title, block.tag, block.text);
        CHECK_FALSE(block.text.empty());
        if (block.kind != Kind::paragraph) continue;
        CHECK_FALSE(block.text.starts_with("-"));
        auto const first = block.text.substr(0, block.text.find(' '));
        CHECK_FALSE((first.starts_with("oci.") && first.find('=') != std::string::npos));
      }
    }
  }
}

TEST_CASE("A command's page has the options that its parser reads, and no other",
          "[tool][manual]") {
  auto const common = options_in(manual(Command::help));
  auto const of_mount = options_in(manual(Command::mount));
  for (auto const& name : command_names()) {
    auto const own = options_in(manual(command_named(name).value()));
    std::set<std::string> read;
    for (auto const& option : option_syntax(name)) {
      read.insert(option.names.begin(), option.names.end());
      // -o and what goes with it is the same everywhere.
      auto const shared = std::ranges::any_of(option.names, [](auto const& one) {
        return one == "-o" || one == "--config" || one == "--allow-unconfined";
      });
      for (auto const& one : option.names) {
        INFO(name << ": " << one);
        CHECK((own.contains(one) || common.contains(one) || (shared && of_mount.contains(one))));
      }
    }
    CHECK_FALSE(read.empty());
    for (auto const& one : own) {
      INFO(name << ": " << one);
      CHECK(read.contains(one));
    }
  }
  CHECK(option_syntax("nothing").empty());
}

TEST_CASE("The words of -o in the manual are those that are read", "[tool][manual]") {
  auto const page = parse_page(manual(Command::mount));
  std::set<std::string> described;
  for (auto const& block : page.section("WORDS OF -o")->blocks) {
    std::string_view rest = block.tag;
    while (!rest.empty()) {
      auto const end = std::min(rest.find(' '), rest.size());
      described.emplace(rest.substr(0, std::min(end, rest.find_first_of("=["))));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  described.erase("x-*");
  auto const words = option_words();
  std::set<std::string> read(words.begin(), words.end());
  for (auto const* internal : {"uhelper", "helper", "comment"})
    read.erase(internal);  // of mount(8)
  CHECK(described == read);
}

TEST_CASE("A page is found by its name", "[tool][manual]") {
  CHECK(manual_named("mount-oci-ls") == manual(Command::ls));
  CHECK(manual_named("mount-oci") == manual(Command::help));
  CHECK(manual_named("mount-oci.conf").starts_with("mount-oci.conf - "));
  CHECK(manual_named("nothing").empty());
}

}  // namespace manual_test
}  // namespace mount_oci
