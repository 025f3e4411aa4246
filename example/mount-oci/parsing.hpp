// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the parsers of all commands' arguments share.
#pragma once

#include <charconv>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "options.hpp"

namespace mount_oci {

/// Nothing, or why the arguments mean nothing.
using Checked = tl::expected<void, UsageError>;

[[nodiscard]] inline tl::unexpected<UsageError> usage(std::string text) {
  return tl::unexpected(UsageError{std::move(text)});
}

/// ASCII letters in lower case.
[[nodiscard]] std::string lower(std::string_view text);

/// All of `text` as a decimal number without a sign.
template <class T>
[[nodiscard]] std::optional<T> parse_number(std::string_view text) {
  T number = 0;
  if (text.empty() || text.front() == '-') return std::nullopt;
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// A number of seconds from `least` to a day.
[[nodiscard]] std::optional<std::chrono::seconds> parse_seconds(std::string_view text,
                                                                std::uint32_t least);

/// Makes the grammar empty: our own help, and arguments too many are ours to name.
void prepare(CLI::App& app);

/// Adds `-o`, which takes one value each time it is given.
void add_lists(CLI::App& app, std::vector<std::string>& lists);

/// Parses; what the grammar does not know is an error.
[[nodiscard]] Checked run_parser(CLI::App& app, std::vector<std::string> words);

/// Takes all `-o` lists, the later ones last.
[[nodiscard]] Checked apply_lists(std::vector<std::string> const& lists, Options& options);

/// What every command has: help, version, how much to say.
class Common {
 public:
  /// Adds the options; must not move while `app` parses.
  explicit Common(CLI::App& app);

  /// Whether the rest of the command line does not matter.
  [[nodiscard]] bool ends(Options& options) const;

  [[nodiscard]] Checked apply(Options& options) const;

 private:
  bool help_ = false;
  bool version_ = false;
  int verbose_ = 0;
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
[[nodiscard]] Checked parse_records(std::vector<std::string> words, Options& options);
/// @}

/// The arguments of the commands that read an image: `options.command` says which.
[[nodiscard]] Checked parse_reading(std::vector<std::string> words, Options& options);

}  // namespace mount_oci
