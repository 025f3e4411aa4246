// SPDX-License-Identifier: Apache-2.0
// Arguments of the commands that read an image.
#include <algorithm>
#include <string_view>
#include <utility>

#include "parsing.hpp"

namespace mount_oci {
namespace {

/// find(1) has long options behind one dash.
void double_dashes(std::vector<std::string>& words) {
  for (auto& word : words) {
    if (word == "-name" || word == "-type" || word == "-print0") word.insert(0, "-");
  }
}

void add_own(CLI::App& app, Command command, ReadOptions& read, std::string& type) {
  switch (command) {
    case Command::index:
      app.add_option("--output", read.output);
      app.add_flag("--verify", read.verify);
      break;
    case Command::ls:
      app.add_flag("-l,--long", read.long_form);
      app.add_flag("-R,--recursive", read.recursive);
      break;
    case Command::find:
      app.add_option("--name", read.name);
      app.add_option("--type", type);
      app.add_flag("--print0", read.print0);
      break;
    case Command::extract:
      app.add_option("-C,--directory", read.directory);
      app.add_flag("--tar", read.tar);
      break;
    case Command::fsck: app.add_flag("--data", read.data); break;
    default: break;
  }
  app.add_flag("--json", read.json);
}

Checked check_own(Command command, ReadOptions const& read) {
  if (command == Command::cat && read.paths.empty()) return usage("missing argument: PATH");
  if (command == Command::extract && read.tar == !read.directory.empty()) {
    return usage("extract: one of -C DIR and --tar is needed");
  }
  if (command == Command::extract && read.tar && read.json) {
    return usage("extract: --tar and --json both want standard output");
  }
  if (command == Command::find && read.print0 && read.json) {
    return usage("find: -print0 and --json cannot be set together");
  }
  return {};
}

bool takes_paths(Command command) {
  return command != Command::index && command != Command::fsck && command != Command::image;
}

}  // namespace

Checked parse_reading(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  auto const command = options.command;
  auto& read = options.read;
  std::vector<std::string> lists;
  std::string type;
  add_lists(app, lists);
  add_own(app, command, read, type);
  app.add_option("image", options.image.image);
  if (takes_paths(command)) app.add_option("paths", read.paths);
  if (command == Command::find) double_dashes(words);
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;
  if (!type.empty()) {
    constexpr std::string_view types = "fdlcbps";
    if (type.size() != 1 || types.find(type.front()) == std::string_view::npos) {
      return usage("find: -type " + type + ": not one of f d l c b p s");
    }
    read.type = type.front();
  }
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  if (options.image.image.empty()) return usage("missing argument: IMAGE");
  return check_own(command, read);
}

}  // namespace mount_oci
