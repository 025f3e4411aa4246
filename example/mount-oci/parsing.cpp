// SPDX-License-Identifier: Apache-2.0
#include "parsing.hpp"

#include <algorithm>
#include <cctype>
#include <utility>

namespace mount_oci {

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

std::optional<std::chrono::seconds> parse_seconds(std::string_view text, std::uint32_t least) {
  auto const number = parse_number<std::uint32_t>(text);
  if (!number || *number < least || *number > 86'400) return std::nullopt;
  return std::chrono::seconds(*number);
}

void prepare(CLI::App& app) {
  app.set_help_flag("");
  app.allow_extras();
}

void add_lists(CLI::App& app, std::vector<std::string>& lists) {
  app.add_option("-o,--options", lists)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
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

Common::Common(CLI::App& app) {
  app.add_flag("-h,--help", help_);
  app.add_flag("-V,--version", version_);
  app.add_flag("-v,--verbose", verbose_);
  app.add_option("-d,--debug", level_);
  app.add_option("--log", log_);
  app.add_option("--log-file", log_file_);
}

bool Common::ends(Options& options) const {
  if (help_) {
    options.topic = options.command;
    options.command = Command::help;
  } else if (version_) {
    options.command = Command::version;
  }
  return help_ || version_;
}

Checked Common::apply(Options& options) const {
  options.log.json = log_ == "json";
  options.log.file = log_file_;
  if (!log_.empty() && log_ != "json" && log_ != "text") {
    return usage("--log " + log_ + ": neither text nor json");
  }
  if (verbose_ > 0) options.verbosity = verbose_ > 1 ? 7 : 3;
  if (level_.empty()) return {};
  auto const level = parse_number<int>(level_);
  if (!level || *level > 9) return usage("invalid debug level " + level_ + " (0 to 9)");
  options.verbosity = *level;
  return {};
}

}  // namespace mount_oci
