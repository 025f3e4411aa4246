// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the parsers of all commands' arguments share.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "options.hpp"

namespace mount_oci {

/// Nothing, or the error in the arguments.
using Checked = tl::expected<void, UsageError>;

[[nodiscard]] inline tl::unexpected<UsageError> usage(std::string text) {
  return tl::unexpected(UsageError{std::move(text)});
}

/// The candidate that `word` may be a misspelling of, or nothing: one letter is wrong, missing, too
/// much or swapped with the next; from five letters on, two. Words of three letters and less are
/// taken as they are.
[[nodiscard]] std::optional<std::string_view> close_to(
    std::string_view word, std::span<std::string_view const> candidates);

/// A number of seconds from `least` to a day.
[[nodiscard]] std::optional<std::chrono::seconds> parse_seconds(std::string_view text,
                                                                std::uint32_t least);

/// Turns off CLI11's own help and its errors for extra arguments.
void prepare(CLI::App& app);

/// Adds the arguments of each command that reads an image: `-o`, which takes one value each time it
/// is given, `--config` and `--allow-unconfined`.
void add_lists(CLI::App& app, std::vector<std::string>& lists, Options& options);

/// Adds `--start-list` of the commands that serve an image.
void add_start_list(CLI::App& app, std::string& start_list);

/// Puts its value behind the words of -o, if it was given.
void append_start_list(std::string const& start_list, std::vector<std::string>& lists);

/// Parses; what the grammar does not know is an error.
[[nodiscard]] Checked run_parser(CLI::App& app, std::vector<std::string> words);

/// The registry of an image, as Reference::registry has it; empty if it is in none.
[[nodiscard]] std::string registry_of_image(std::string const& image);

/// Takes the words of the configuration file, of it those of the image's registry last, then all
/// `-o` lists, the later ones last.
[[nodiscard]] Checked apply_lists(std::vector<std::string> const& lists, Options& options);

/// The options of every command: help, version, verbosity.
class Common {
 public:
  /// Prepares `app` and adds the options; must not move while `app` parses.
  /// @param help   the names of the option that asks for help
  /// @param debug  the names of the option that says which messages are written
  explicit Common(CLI::App& app, std::string const& help = "-h,--help",
                  std::string const& debug = "-d,--debug");

  /// Parses and, unless ends(), applies these options.
  [[nodiscard]] Checked parse(CLI::App& app, std::vector<std::string> words,
                              Options& options) const;

  /// Whether, after parse(), the rest of the command line does not matter.
  [[nodiscard]] bool ends() const noexcept { return help_ || version_; }

 private:
  bool help_ = false;
  bool version_ = false;
  int verbose_ = 0;
  bool quiet_ = false;
  std::string level_;
  std::string log_;
  std::string log_file_;
};

/// @name The arguments of mounts and what becomes of them
/// @{
[[nodiscard]] Checked parse_mount(std::vector<std::string> words, Options& options);
[[nodiscard]] Checked parse_umount(std::vector<std::string> words, Options& options);
[[nodiscard]] Checked parse_disconnect(std::vector<std::string> words, Options& options);
[[nodiscard]] Checked parse_reattach(std::vector<std::string> words, Options& options);
[[nodiscard]] Checked parse_cache(std::vector<std::string> words, Options& options);
[[nodiscard]] Checked parse_records(std::vector<std::string> words, Options& options);
/// @}

/// Whether a word is an option of find that has one dash, as find(1) has it.
[[nodiscard]] bool is_find_word(std::string_view word);

/// The arguments of the commands that read an image: `options.command` says which.
[[nodiscard]] Checked parse_reading(std::vector<std::string> words, Options& options);

}  // namespace mount_oci
