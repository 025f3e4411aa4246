// SPDX-License-Identifier: Apache-2.0
// argv -> Options.
#include "options.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "manual.hpp"
#include "parsing.hpp"

namespace mount_oci {
namespace {

Checked parse_serve(std::vector<std::string> words, Options& options) {
  CLI::App app;
  Common common(app);
  std::vector<std::string> lists;
  std::string start_list;
  add_lists(app, lists, options);
  add_start_list(app, start_list);
  app.add_option("--socket", options.serve.socket)->type_name("FILE");
  app.add_option("--listen", options.serve.listen)->type_name("HOST:PORT");
  app.add_option("image", options.image.image);
  if (auto ok = common.parse(app, std::move(words), options); !ok || common.ends()) return ok;
  append_start_list(start_list, lists);
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  if (options.serve.socket.empty() == options.serve.listen.empty()) {
    return usage("serve: one of --socket PATH and --listen HOST:PORT is needed");
  }
  if (options.image.image.empty()) return usage("missing argument: IMAGE");
  return {};
}

struct Entry {
  std::string_view name;
  Command command;
  Checked (*parse)(std::vector<std::string>, Options&);
};

constexpr std::array entries{
    Entry{"mount", Command::mount, parse_mount},
    Entry{"umount", Command::umount, parse_umount},
    Entry{"disconnect", Command::disconnect, parse_disconnect},
    Entry{"reattach", Command::reattach, parse_reattach},
    Entry{"status", Command::status, parse_records},
    Entry{"gc", Command::gc, parse_records},
    Entry{"serve", Command::serve, parse_serve},
    Entry{"index", Command::index, parse_reading},
    Entry{"ls", Command::ls, parse_reading},
    Entry{"cat", Command::cat, parse_reading},
    Entry{"stat", Command::stat, parse_reading},
    Entry{"find", Command::find, parse_reading},
    Entry{"tree", Command::tree, parse_reading},
    Entry{"du", Command::du, parse_reading},
    Entry{"diff", Command::diff, parse_reading},
    Entry{"cp", Command::cp, parse_reading},
    Entry{"extract", Command::extract, parse_reading},
    Entry{"fsck", Command::fsck, parse_reading},
    Entry{"image", Command::image, parse_reading},
    Entry{"doctor", Command::doctor, parse_reading},
    Entry{"pull", Command::pull, parse_reading},
    Entry{"verify", Command::verify, parse_reading},
    Entry{"cache", Command::cache, parse_cache},
};

/// `help [TOPIC]`: a command, or the name of a manual page.
Checked parse_help(std::vector<std::string> const& words, Options& options) {
  options.command = Command::help;
  if (words.size() < 2) return {};
  if (words.size() > 2) return usage("unexpected argument: " + words[2]);
  auto const& topic = words[1];
  auto const named = std::ranges::find(entries, topic, &Entry::name);
  if (named != entries.end()) {
    options.topic = named->command;
    return {};
  }
  if (manual_named(topic).empty()) return usage("help: no page about `" + topic + "`");
  options.page = topic;
  return {};
}

/// What to say of a first word that is no command but looks like one; empty: it is an image.
std::string not_a_command(std::string const& word) {
  if (word.find_first_of("-/.:@") != std::string::npos) return {};
  std::array<std::string_view, entries.size()> names;
  std::ranges::transform(entries, names.begin(), &Entry::name);
  auto const meant = close_to(word, names);
  if (!meant) return {};
  return "unknown command `" + word + "`: did you mean `" + std::string(*meant) +
         "`? (An image of that name is docker.io/library/" + word + ")";
}

/// Whether mount(8) runs us as a helper: then the first word is a source, whatever it is called.
bool is_helper(std::string_view program) {
  auto const name = program.substr(program.find_last_of('/') + 1);
  return name == "mount.erofs" || name.starts_with("mount.erofs.");
}

}  // namespace

tl::expected<Options, UsageError> parse_options(std::vector<std::string> const& arguments,
                                                ConfigReader config) {
  Options options;
  options.config_reader = std::move(config);
  options.program = arguments.empty() ? "mount-oci" : arguments.front();
  auto words =
      std::vector<std::string>(arguments.begin() + (arguments.empty() ? 0 : 1), arguments.end());
  if (words.empty() && !is_helper(options.program)) return usage("missing argument: IMAGE");

  auto const* entry = &entries.front();
  if (!is_helper(options.program)) {
    if (words.front() == "-h" || words.front() == "--help" || words.front() == "help") {
      if (auto ok = parse_help(words, options); !ok) return tl::unexpected(ok.error());
      return options;
    }
    auto const named = std::ranges::find(entries, words.front(), &Entry::name);
    if (named != entries.end()) {
      entry = &*named;
      words.erase(words.begin());
    } else if (auto problem = not_a_command(words.front()); !problem.empty()) {
      return usage(std::move(problem));
    }
  }
  options.command = entry->command;
  options.helper = is_helper(options.program);
  if (auto ok = entry->parse(std::move(words), options); !ok) {
    auto error = std::move(ok).error();
    error.command = entry->name;
    return tl::unexpected(std::move(error));
  }
  if (options.helper && options.command == Command::help) options.page = "mount.erofs.nbd";
  options.config_reader = {};
  return options;
}

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (auto const& entry : entries) names.emplace_back(entry.name);
  return names;
}

std::optional<Command> command_named(std::string_view name) {
  auto const found = std::ranges::find(entries, name, &Entry::name);
  return found == entries.end() ? std::nullopt : std::optional(found->command);
}

std::vector<OptionSyntax> option_syntax(std::string const& command) {
  std::vector<OptionSyntax> found;
  Options options;
  auto const entry = std::ranges::find(entries, std::string_view(command), &Entry::name);
  if (entry == entries.end()) return found;
  options.command = entry->command;
  options.syntax = &found;
  static_cast<void>(entry->parse({"--help"}, options));
  for (auto& option : found) {
    for (auto& name : option.names) {
      if (command == "find" && is_find_word(name.substr(1))) name.erase(0, 1);
    }
  }
  return found;
}

}  // namespace mount_oci
