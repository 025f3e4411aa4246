// SPDX-License-Identifier: Apache-2.0
/// @file
/// The text that --help prints, as sections, paragraphs and items: what man pages and completions
/// are made of.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mount_oci {

/// A paragraph, an item of a list, or lines that stay as they are.
struct PageBlock {
  enum class Kind {
    paragraph,
    item,      ///< `tag` and what it means
    verbatim,  ///< lines, each with its newline
  };
  Kind kind = Kind::paragraph;
  std::string tag;   ///< "-l, --long", "oci.layer=N", ...
  std::string text;  ///< words with one blank between them, or lines
};

struct PageSection {
  std::string title;  ///< in capitals
  std::vector<PageBlock> blocks;
};

struct Page {
  std::string name;     ///< as the page has it: "mount-oci index"
  std::string summary;  ///< what stands behind the dash
  std::vector<PageSection> sections;

  /// Of a title, or null.
  [[nodiscard]] PageSection const* section(std::string_view title) const;
};

/// Reads a page. Its first line is "NAME - SUMMARY"; titles begin in the first column; an item is a
/// tag and, two blanks or a line further, its text; lines that are indented by four stay as they
/// are, and so do those of SYNOPSIS and EXAMPLES.
[[nodiscard]] Page parse_page(std::string_view text);

}  // namespace mount_oci
