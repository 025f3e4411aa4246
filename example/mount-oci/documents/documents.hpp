// SPDX-License-Identifier: Apache-2.0
/// @file
/// What is made at build time of the command line's own tables and of what --help prints, so that
/// none of it can say something else: man pages, completions, an example of the configuration file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "../manual.hpp"

namespace mount_oci {

/// A page for man(1).
/// @param date  YYYY-MM-DD
[[nodiscard]] std::string man_page(ManualPage const& page, std::string_view date,
                                   std::string_view version);

/// A word of -o for completions.
struct WordSyntax {
  std::string name;                  ///< "oci.verify"
  bool takes_value = false;          ///< may have one
  bool needs_value = false;          ///< makes no sense without
  std::vector<std::string> choices;  ///< values that are words
  bool path = false;                 ///< values may be paths
  std::string text;                  ///< what it means; may be empty
};

/// All words that -o knows, with what the manual page of mount says of their values.
[[nodiscard]] std::vector<WordSyntax> word_syntax();

/// An option of a command for completions.
struct CommandOption {
  std::vector<std::string> names;
  std::string value;  ///< as OptionSyntax
  std::string text;   ///< what it means; may be empty
};

struct CommandPage {
  std::string name;
  std::string summary;
  std::vector<CommandOption> options;
};

/// All commands, each with its options as its parser has them.
[[nodiscard]] std::vector<CommandPage> command_pages();

/// @name Scripts that complete mount-oci's arguments in a shell
/// @{
[[nodiscard]] std::string bash_completion();
[[nodiscard]] std::string zsh_completion();
[[nodiscard]] std::string fish_completion();
/// @}

/// /etc/mount-oci.conf, with every word commented out.
[[nodiscard]] std::string config_example();

}  // namespace mount_oci
