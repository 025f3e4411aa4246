// SPDX-License-Identifier: Apache-2.0
#include "parsing.hpp"

#include <algorithm>
#include <utility>

#include <erofs_oci/core/text.hpp>

namespace mount_oci {
namespace {

/// Letters to change, add, take away or swap with the next to make `b` of `a`.
std::size_t edits_between(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> table(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t k = 0; k <= b.size(); ++k) {
      auto& least = table[i][k] = std::max(i, k);
      if (i == 0 || k == 0) continue;
      least = std::min({table[i - 1][k] + 1, table[i][k - 1] + 1,
                        table[i - 1][k - 1] + (a[i - 1] == b[k - 1] ? 0 : 1)});
      if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1]) {
        least = std::min(least, table[i - 2][k - 2] + 1);
      }
    }
  }
  return table[a.size()][b.size()];
}

/// Adds the options of a parser that have a name, in their order.
void describe(CLI::App const& app, std::vector<OptionSyntax>& out) {
  for (auto const* option : app.get_options()) {
    if (option->get_positional()) continue;
    OptionSyntax one;
    for (auto const& name : option->get_snames()) one.names.push_back("-" + name);
    for (auto const& name : option->get_lnames()) one.names.push_back("--" + name);
    if (option->get_items_expected_max() > 0) one.value = option->get_type_name();
    out.push_back(std::move(one));
  }
}

}  // namespace

std::optional<std::string_view> close_to(std::string_view word,
                                         std::span<std::string_view const> candidates) {
  constexpr std::size_t longest = 64;
  if (word.size() < 4 || word.size() > longest) return std::nullopt;
  auto const most = word.size() < 5 ? 1U : 2U;
  std::optional<std::string_view> best;
  auto fewest = most + 1UL;
  for (auto const candidate : candidates) {
    auto const edits = edits_between(word, candidate);
    if (candidate.size() < 3 || edits >= fewest) continue;
    best = candidate;
    fewest = edits;
  }
  return best;
}

std::optional<std::chrono::seconds> parse_seconds(std::string_view text, std::uint32_t least) {
  auto const number = erofs_oci::whole_number<std::uint32_t>(text);
  if (!number || *number < least || *number > 86'400) return std::nullopt;
  return std::chrono::seconds(*number);
}

void prepare(CLI::App& app) {
  app.set_help_flag("");
  app.allow_extras();
}

void add_lists(CLI::App& app, std::vector<std::string>& lists, Options& options) {
  app.add_option("--config", options.config)->type_name("FILE|none");
  app.add_flag("--allow-unconfined", options.image.allow_unconfined);
  app.add_option("-o,--options", lists)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("LIST")
      ->allow_extra_args(false);
}

void add_start_list(CLI::App& app, std::string& start_list) {
  app.add_option("--start-list", start_list);
}

void append_start_list(std::string const& start_list, std::vector<std::string>& lists) {
  if (!start_list.empty()) lists.push_back("oci.start_list=" + quote(start_list));
}

Checked run_parser(CLI::App& app, std::vector<std::string> words) {
  std::ranges::reverse(words);  // CLI11 takes them from the back
  try {
    app.parse(std::move(words));
  } catch (CLI::ParseError const& error) {
    return usage(error.what());
  }
  if (auto const extra = app.remaining(); !extra.empty()) {
    return usage("unexpected argument: " + extra.front());
  }
  return {};
}

Common::Common(CLI::App& app, std::string const& help, std::string const& debug) {
  prepare(app);
  app.add_flag(help, help_);
  app.add_flag("-V,--version", version_);
  app.add_flag("-v,--verbose", verbose_);
  app.add_flag("-q,--quiet", quiet_);
  app.add_option(debug, level_)->type_name("0|2|3|7");
  app.add_option("--log", log_)->type_name("text|json");
  app.add_option("--log-file", log_file_)->type_name("FILE");
}

Checked Common::parse(CLI::App& app, std::vector<std::string> words, Options& options) const {
  if (options.syntax != nullptr) describe(app, *options.syntax);
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (help_) options.topic = options.command;
  if (ends()) {
    options.command = help_ ? Command::help : Command::version;
    return {};
  }
  options.log.json = log_ == "json";
  options.log.file = log_file_;
  if (!log_.empty() && log_ != "json" && log_ != "text") {
    return usage("--log " + log_ + ": neither text nor json");
  }
  if (quiet_ && (verbose_ > 0 || !level_.empty())) {
    return usage("--quiet does not go with --verbose or --debug");
  }
  if (quiet_) options.verbosity = 0;
  if (verbose_ > 0) options.verbosity = verbose_ > 1 ? 7 : 3;
  if (level_.empty()) return {};
  auto const level = erofs_oci::whole_number<int>(level_);
  if (!level || *level > 9) return usage("invalid debug level " + level_ + " (0 to 9)");
  options.verbosity = *level;
  return {};
}

}  // namespace mount_oci
