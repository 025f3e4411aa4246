// SPDX-License-Identifier: Apache-2.0
// Arguments of the commands that read an image.
#include <algorithm>
#include <array>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <erofs_oci/image/image_name.hpp>

#include "parsing.hpp"

namespace mount_oci {
namespace {

/// Words of find(1); those that come with a value are first.
constexpr std::array<std::string_view, 13> find_words{
    "-name", "-iname", "-path",  "-type",     "-perm",     "-size",  "-uid",
    "-gid",  "-links", "-newer", "-maxdepth", "-mindepth", "-print0"};

/// find(1) has long options behind one dash, and values that begin with one.
void double_dashes(std::vector<std::string>& words) {
  std::vector<std::string> out;
  for (auto word = words.begin(); word != words.end(); ++word) {
    if (!is_find_word(*word)) {
      out.push_back(*word);
      continue;
    }
    out.push_back("-" + *word);
    if (*word != find_words.back() && std::next(word) != words.end()) out.back() += "=" + *++word;
  }
  words = std::move(out);
}

/// What `find` is asked for, as texts.
struct FindTexts {
  std::string type, mode, size, uid, gid, links;

  void add(CLI::App& app, ReadOptions& read) {
    auto& tests = read.tests;
    app.add_option("--name", tests.name)->type_name("GLOB");
    app.add_option("--iname", tests.name_in_any_case)->type_name("GLOB");
    app.add_option("--path", tests.path)->type_name("GLOB");
    app.add_option("--type", type)->type_name("f|d|l|c|b|p|s");
    app.add_option("--perm", mode)->type_name("MODE");
    app.add_option("--size", size)->type_name("N");
    app.add_option("--uid", uid)->type_name("N");
    app.add_option("--gid", gid)->type_name("N");
    app.add_option("--links", links)->type_name("N");
    app.add_option("--newer", tests.newer)->type_name("PATH");
    app.add_option("--maxdepth", read.max_depth)->type_name("N");
    app.add_option("--mindepth", read.min_depth)->type_name("N");
    app.add_flag("--print0", read.print0);
  }

  [[nodiscard]] Checked apply(FindTests& tests) const {
    constexpr std::string_view types = "fdlcbps";
    if (type.size() > 1 || types.find(type) == std::string_view::npos) {
      return usage("find: -type " + type + ": not one of f d l c b p s");
    }
    if (!type.empty()) tests.type = type.front();
    auto const read = [](auto& test, std::string const& text) {
      if (text.empty()) return true;
      test = std::remove_reference_t<decltype(*test)>::parse(text);
      return test.has_value();
    };
    if (!read(tests.mode, mode)) {
      return usage("find: -perm " + mode + ": not octal digits, or these behind - or /");
    }
    if (!read(tests.size, size)) {
      return usage("find: -size " + size + ": not a number, such as 10, +10k or -1M");
    }
    for (auto const& [word, text, test] :
         {std::tuple{"-uid ", &uid, &tests.uid}, std::tuple{"-gid ", &gid, &tests.gid},
          std::tuple{"-links ", &links, &tests.links}}) {
      if (!read(*test, *text)) return usage("find: " + (word + *text) + ": not a number, +N or -N");
    }
    return {};
  }
};

void add_own(CLI::App& app, Command command, Options& options, FindTexts& find) {
  auto& read = options.read;
  auto& push = options.push;
  switch (command) {
    case Command::index:
      app.add_option("--output", read.output)->type_name("DIR");
      app.add_flag("--verify", read.verify);
      app.add_flag("--verity", read.verity);
      app.add_flag("--push", push.push);
      app.add_option("--to", push.to);
      app.add_option("--sign-key", push.sign_key);
      app.add_option("--mount-from", push.mount_from)->allow_extra_args(false);
      app.add_flag("--all-platforms", push.all_platforms);
      app.add_flag("--with-start-list", push.with_start_list);
      app.add_flag("--dry-run", push.dry_run);
      break;
    case Command::ls:
      app.add_flag("-l,--long", read.long_form);
      app.add_flag("-R,--recursive", read.recursive);
      app.add_flag("-h,--human-readable", read.human);
      app.add_flag("-t", read.by_time);
      app.add_flag("-S", read.by_size);
      app.add_flag("-r,--reverse", read.reverse);
      app.add_flag("-a,--all,-A,-1", read.ignored);
      break;
    case Command::find: find.add(app, read); break;
    case Command::tree:
      app.add_option("-L,--level", read.max_depth)->type_name("LEVEL");
      app.add_flag("-d", read.directories_only);
      app.add_flag("-s", read.sizes);
      app.add_flag("-h", read.human);
      app.add_flag("-a", read.ignored);
      break;
    case Command::du:
      app.add_flag("-s,--summarize", read.summary);
      app.add_flag("-a,--all", read.all_files);
      app.add_flag("-h,--human-readable", read.human);
      app.add_flag("--apparent-size", read.apparent);
      app.add_flag("-b,--bytes", read.in_bytes);
      app.add_option("-d,--max-depth", read.max_depth)->type_name("DEPTH");
      app.add_flag("-c,--total", read.grand_total);
      break;
    case Command::diff:
      app.add_flag("--content", read.content);
      app.add_option("--ignore", read.ignored_differences)
          ->delimiter(',')
          ->allow_extra_args(false)
          ->type_name("time|mode|owner|attributes|links");
      break;
    case Command::cp:
      app.add_flag("-r,-R,--recursive", read.recursive);
      app.add_flag("-p,--preserve", read.preserve);
      app.add_flag_callback("-a,--archive", [&read] { read.recursive = read.preserve = true; });
      break;
    case Command::extract:
      app.add_option("-C,--directory", read.directory)->type_name("DIR");
      app.add_flag("--tar", read.tar);
      app.add_flag("--safe", read.safe);
      break;
    case Command::verify: app.add_option("--journal", options.journal)->type_name("DIR"); break;
    case Command::fsck: app.add_flag("--data", read.data); break;
    default: break;
  }
  app.add_flag("--json", read.json);
}

/// `--output oci:LAYOUT` is a place to push to.
void take_layout(PushIndexOptions& push, std::string& output) {
  constexpr std::string_view layout = "oci:";
  if (!output.starts_with(layout)) return;
  push.layout = output.substr(layout.size());
  output.clear();
}

Checked check_push(PushIndexOptions const& push, ImageOptions const& image) {
  auto const to_layout = !push.layout.empty();
  if (to_layout && (push.push || !push.to.empty() || !push.mount_from.empty())) {
    return usage("index: --push, --to and --mount-from mean a registry, not --output oci:LAYOUT");
  }
  auto const any = !push.to.empty() || !push.sign_key.empty() || !push.mount_from.empty() ||
                   push.all_platforms || push.dry_run || push.with_start_list;
  if (any && !push.push && !to_layout) {
    return usage(
        "index: --to, --sign-key, --mount-from, --all-platforms, --dry-run and --with-start-list "
        "belong to --push");
  }
  auto const in_registry =
      erofs_oci::ImageName::parse(image.image).place == erofs_oci::ImagePlace::registry;
  if (push.push && push.to.empty() && !in_registry) {
    return usage("index --push: the image is in no registry: --to REPOSITORY is needed");
  }
  if (push.all_platforms && !in_registry) {
    return usage("index --all-platforms: the image is in no registry");
  }
  if ((push.push || to_layout) && (image.layer || image.first_layers || !image.blob.empty())) {
    return usage(
        "index --push: of all layers, not of those that oci.layer, oci.blob or oci.first_layers "
        "choose");
  }
  if (push.all_platforms && !image.platform.empty()) {
    return usage("index: --all-platforms and oci.platform cannot be set together");
  }
  return {};
}

/// IMAGE:PATH and LOCAL of `cp`, which have been read as an image and a path of it.
Checked take_copy(Options& options) {
  auto& read = options.read;
  auto& image = options.image.image;
  if (image.empty()) return usage("missing argument: IMAGE:PATH");
  auto source = CopySource::parse(image);
  if (!source) {
    return usage(
        "cp: " + image +
        ": not IMAGE:PATH with a PATH that begins with a slash, such as app:1.2:/etc/passwd");
  }
  if (source->name() == "..") return usage("cp: " + image + ": a path that ends with ..");
  if (read.paths.empty()) return usage("missing argument: LOCAL");
  if (read.paths.size() > 1) return usage("unexpected argument: " + read.paths[1]);
  read.local = read.paths.front();
  if (read.local.empty()) return usage("cp: LOCAL is empty");
  read.tar = read.local == "-";
  if (read.tar && read.json) return usage("cp: a tar and --json both want standard output");
  image = source->image;
  read.copy = *std::move(source);
  read.paths.clear();
  return {};
}

/// The second image of `diff`: what `-o` says counts for both, but a login and mirrors that it
/// names are for the first one's registry, and another registry gets what the configuration file
/// has.
/// @param other  the options as they were before `lists`
Checked take_other(std::string const& name, std::vector<std::string> const& lists, Options other,
                   Options& options) {
  auto const& first = options.image;
  if (!first.tarindex.empty() || !first.zinfo.empty()) {
    return usage("diff: oci.tarindex and oci.zinfo belong to one image, and there are two");
  }
  other.image.image = name;
  auto without_lists = other;
  if (auto ok = apply_lists(lists, other); !ok) return ok;
  auto const registry = registry_of_image(name);
  auto const of_first = registry_of_image(first.image);
  if (!registry.empty() && !of_first.empty() && registry != of_first) {
    if (auto ok = apply_lists({}, without_lists); !ok) return ok;
    auto& own = without_lists.image;
    other.image.username = std::move(own.username);
    other.image.password = std::move(own.password);
    other.image.password_file = std::move(own.password_file);
    other.image.mirrors = std::move(own.mirrors);
  }
  options.other = std::move(other.image);
  return {};
}

Checked check_ignored(std::vector<std::string> const& ignored) {
  constexpr std::array<std::string_view, 5> known{"time", "mode", "owner", "attributes", "links"};
  for (auto const& word : ignored) {
    if (std::ranges::find(known, word) != known.end()) continue;
    return usage("diff: --ignore " + word + ": none of time, mode, owner, attributes, links");
  }
  return {};
}

Checked check_own(Command command, ReadOptions const& read) {
  if (command == Command::cat && read.paths.empty()) return usage("missing argument: PATH");
  if (command == Command::extract && read.tar == !read.directory.empty()) {
    return usage("extract: one of -C DIR and --tar is needed");
  }
  if (command == Command::extract && read.tar && read.safe) {
    return usage(
        "extract: --safe is for -C DIR; with --tar, leave things out when you unpack the tar");
  }
  if (command == Command::extract && read.tar && read.json) {
    return usage("extract: --tar and --json both want standard output");
  }
  if (command == Command::tree && read.max_depth == 0) {
    return usage("tree: -L 0: a level of at least 1 is needed");
  }
  auto const no_limit = ReadOptions().max_depth;
  if (read.summary && (read.all_files || read.max_depth != no_limit)) {
    return usage("du: -s does not go with -a or -d");
  }
  if (auto ok = check_ignored(read.ignored_differences); !ok) return ok;
  if (read.by_time && read.by_size) return usage("ls: -t and -S cannot be set together");
  if (command == Command::find && read.print0 && read.json) {
    return usage("find: -print0 and --json cannot be set together");
  }
  return {};
}

bool takes_paths(Command command) {
  return command != Command::index && command != Command::fsck && command != Command::image &&
         command != Command::doctor && command != Command::pull && command != Command::verify;
}

}  // namespace

bool is_find_word(std::string_view word) {
  return std::ranges::find(find_words, word) != find_words.end();
}

Checked parse_reading(std::vector<std::string> words, Options& options) {
  CLI::App app;
  auto const command = options.command;
  // To these, -h and -d are what they are to the programs that they are named after.
  auto const is = [&](std::initializer_list<Command> list) {
    return std::ranges::find(list, command) != list.end();
  };
  Common common(app, is({Command::ls, Command::tree, Command::du}) ? "--help" : "-h,--help",
                is({Command::tree, Command::du}) ? "--debug" : "-d,--debug");
  auto& read = options.read;
  std::vector<std::string> lists;
  FindTexts find;
  add_lists(app, lists, options);
  add_own(app, command, options, find);
  app.add_option("image", options.image.image);
  std::string other;
  if (command == Command::diff) app.add_option("other", other);
  if (takes_paths(command)) app.add_option("paths", read.paths);
  if (command == Command::find) double_dashes(words);
  if (auto ok = common.parse(app, std::move(words), options); !ok || common.ends()) return ok;
  if (auto ok = find.apply(read.tests); !ok) return ok;
  if (command == Command::cp) {
    if (auto ok = take_copy(options); !ok) return ok;
  }
  auto const before = options;
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  if (options.image.image.empty()) return usage("missing argument: IMAGE");
  if (command == Command::diff) {
    if (other.empty()) return usage("missing argument: IMAGE, the second one");
    if (auto ok = take_other(other, lists, before, options); !ok) return ok;
  }
  if (command == Command::index) take_layout(options.push, read.output);
  if (auto ok = check_push(options.push, options.image); !ok) return ok;
  if (auto ok = check_own(command, read); !ok) return ok;
  if (read.in_bytes) read.apparent = true;
  if (read.summary) read.max_depth = 0;
  return {};
}

}  // namespace mount_oci
