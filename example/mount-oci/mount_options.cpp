// SPDX-License-Identifier: Apache-2.0
// Arguments of mounts: making them, keeping them alive, ending them.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <sys/mount.h>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/digest.hpp>

#include "parsing.hpp"

namespace mount_oci {
namespace {

struct AttachName {
  std::string_view name;
  Attach attach;
};

constexpr std::array attach_names{
    AttachName{"auto", Attach::automatic},      AttachName{"netlink", Attach::netlink},
    AttachName{"ioctl", Attach::ioctl},         AttachName{"fuse-file", Attach::fuse_file},
    AttachName{"fuse-tree", Attach::fuse_tree},
};

std::string attach_choices() {
  std::string text;
  for (auto const& one : attach_names) text.append(text.empty() ? "" : "|").append(one.name);
  return text;
}

/// The ways that a type leaves open.
tl::expected<Attach, UsageError> parse_type(std::string const& type) {
  auto const dot = type.find('.');
  auto const base = type.substr(0, dot);
  if (base != "erofs") {
    return usage("invalid filesystem type `" + type + "`: not erofs.nbd or erofs.fuse");
  }
  if (dot == std::string::npos) return Attach::automatic;
  auto const subtype = type.substr(dot + 1);
  if (subtype == "nbd") return Attach::nbd;
  if (subtype == "fuse") return Attach::fuse;
  for (auto const* known : {"local", "fanotify", "ublk"}) {
    if (subtype == known) return usage("filesystem subtype `" + subtype + "` is not supported");
  }
  return usage("invalid filesystem subtype `" + subtype + "`");
}

/// The ways that both the type and `--attach` allow.
tl::expected<Attach, UsageError> choose_attach(std::string const& type, std::string const& how) {
  auto const family = parse_type(type);
  if (!family) return family;
  auto const named = std::ranges::find(attach_names, std::string_view(how), &AttachName::name);
  if (named == attach_names.end()) {
    return usage("--attach " + how + ": not one of auto, netlink, ioctl, fuse-file, fuse-tree");
  }
  if (named->attach == Attach::automatic) return *family;
  auto const by_fuse = named->attach == Attach::fuse_file || named->attach == Attach::fuse_tree;
  if (*family != Attach::automatic && by_fuse != (*family == Attach::fuse)) {
    return usage("--attach " + how + " does not go with -t " + type);
  }
  return named->attach;
}

/// Takes `--writable` and `--writable=DIR` out: a value behind a blank would be the image.
void take_writable(std::vector<std::string>& words, MountOptions& mount) {
  constexpr std::string_view flag = "--writable";
  std::erase_if(words, [&](std::string const& word) {
    if (!word.starts_with(flag)) return false;
    auto const rest = std::string_view(word).substr(flag.size());
    if (!rest.empty() && rest.front() != '=') return false;
    mount.writable = true;
    if (!rest.empty()) mount.writable_directory = std::string(rest.substr(1));
    return true;
  });
}

/// The arguments about supervising a mount.
class Keeping {
 public:
  explicit Keeping(CLI::App& app) {
    app.add_flag("--no-supervise", alone_);
    app.add_option("--dead-timeout", dead_timeout_)->type_name("SECONDS");
    app.add_option("--metrics", metrics_)->type_name("ADDRESS");
  }

  [[nodiscard]] Checked apply(KeepOptions& keep) const {
    keep.supervise = !alone_;
    keep.metrics = metrics_;
    if (dead_timeout_.empty()) return {};
    auto const time = parse_seconds(dead_timeout_, 0);
    if (!time) return usage("--dead-timeout " + dead_timeout_ + ": not seconds from 0 to 86400");
    keep.dead_timeout = *time;
    return {};
  }

 private:
  bool alone_ = false;
  std::string dead_timeout_;
  std::string metrics_;
};

/// The arguments of the old command line that mean another command.
struct OtherCommand {
  bool unmount = false;
  std::string disconnect;
  std::string reattach;

  void add(CLI::App& app) {
    app.add_flag("-u,--unmount", unmount);
    app.add_option("--disconnect", disconnect)->type_name("FILE");
    app.add_option("--reattach", reattach)->type_name("FILE");
  }

  [[nodiscard]] bool wanted() const { return unmount || !disconnect.empty() || !reattach.empty(); }

  [[nodiscard]] Checked apply(Options& options) const {
    auto const& extra = unmount ? options.mount.target : options.image.image;
    if (!extra.empty()) return usage("unexpected argument: " + extra);
    if (!reattach.empty()) {
      options.command = Command::reattach;
      options.record.target = reattach;
      return {};
    }
    options.command = unmount ? Command::umount : Command::disconnect;
    options.umount = {unmount ? options.image.image : disconnect, !unmount};
    if (options.umount.target.empty()) return usage("missing argument: TARGET");
    return {};
  }
};

/// A target or `--all`.
Checked check_target(std::string const& target, bool all) {
  if (all && !target.empty()) return usage("unexpected argument: " + target);
  if (!all && target.empty()) return usage("missing argument: TARGET");
  return {};
}

/// A size, such as 4G, or an age, such as 30d.
Checked parse_keep(std::string_view text, RecordOptions& record) {
  if (text.empty()) return {};
  record.keep_bytes = parse_size(text);
  if (record.keep_bytes) return {};
  constexpr std::array units{std::pair('h', 3600U), std::pair('d', 86'400U),
                             std::pair('w', 604'800U)};
  auto const unit = std::ranges::find(units, text.back(), &std::pair<char, unsigned>::first);
  text.remove_suffix(1);
  auto const number = erofs_oci::whole_number<std::uint32_t>(text);
  if (unit == units.end() || !number) {
    return usage("--keep: neither a size such as 4G nor an age such as 12h, 30d or 8w");
  }
  record.keep_used = std::chrono::seconds(std::uint64_t{*number} * unit->second);
  return {};
}

}  // namespace

Checked parse_mount(std::vector<std::string> words, Options& options) {
  CLI::App app;
  Common common(app);
  auto& mount = options.mount;
  std::string type = "erofs";
  std::string attach = "auto";
  std::vector<std::string> lists;
  OtherCommand other;
  bool ignored = false;
  app.add_option("-t,--types", type)->type_name("erofs|erofs.nbd|erofs.fuse");
  add_lists(app, lists, options);
  app.add_option("-N,--namespace", mount.name_space)->type_name("FILE");
  app.add_flag("-f,--fake", mount.fake);
  std::string start_list;
  add_start_list(app, start_list);
  app.add_flag("-n,--no-mtab", ignored);
  app.add_flag("-s,--sloppy", mount.sloppy);
  app.add_flag("--writable", ignored);  // for option_syntax(); take_writable() reads it
  app.add_flag("--foreground", mount.foreground);
  bool alone = false;
  app.add_flag("--no-share", alone);
  app.add_option("--attach", attach)->type_name(attach_choices());
  app.add_option("--journal", options.journal)->type_name("DIR");
  other.add(app);
  Keeping const keeping(app);
  app.add_option("image", options.image.image);
  app.add_option("directory", mount.target);
  take_writable(words, mount);
  if (auto ok = common.parse(app, std::move(words), options); !ok || common.ends()) return ok;
  if (auto ok = keeping.apply(options.keep); !ok) return ok;
  append_start_list(start_list, lists);
  if (alone) lists.emplace_back("oci.share=no");
  if (!other.reattach.empty()) {
    if (auto ok = apply_lists(lists, options); !ok) return ok;
  }
  if (other.wanted()) return other.apply(options);

  // By mount(8), erofs.nbd is any way: an fstab line is to work where there is no NBD, too.
  if (options.helper && options.program.ends_with(".fuse") && type == "erofs") type = "erofs.fuse";
  if (options.helper && type == "erofs.nbd") type = "erofs";
  auto const way = choose_attach(type, attach);
  if (!way) return tl::unexpected(way.error());
  mount.attach = *way;
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  // The image is read-only, with or without -o ro.
  if ((mount.flags & MS_MOVE) == 0) mount.flags |= MS_RDONLY;
  if (options.image.image.empty()) return usage("missing argument: IMAGE");
  if (mount.target.empty()) return usage("missing argument: MOUNTPOINT");
  if (mount.writable && !mount.name_space.empty()) {
    return usage("--writable and --namespace cannot be set together");
  }
  return {};
}

Checked parse_umount(std::vector<std::string> words, Options& options) {
  CLI::App app;
  Common common(app);
  bool ignored = false;
  bool all = false;
  app.add_flag("-n,--no-mtab,-r,--read-only", ignored);
  app.add_flag("-a,--all", all);
  app.add_option("--journal", options.journal)->type_name("DIR");
  app.add_option("target", options.umount.target);
  if (auto ok = common.parse(app, std::move(words), options); !ok || common.ends()) return ok;
  return check_target(options.umount.target, all);
}

Checked parse_disconnect(std::vector<std::string> words, Options& options) {
  CLI::App app;
  Common common(app);
  app.add_option("--journal", options.journal)->type_name("DIR");
  app.add_option("target", options.umount.target);
  if (auto ok = common.parse(app, std::move(words), options); !ok || common.ends()) return ok;
  options.umount.disconnect = true;
  return check_target(options.umount.target, false);
}

Checked parse_reattach(std::vector<std::string> words, Options& options) {
  CLI::App app;
  Common common(app);
  bool all = false;
  std::vector<std::string> lists;
  app.add_flag("-a,--all", all);
  app.add_flag("--replace", options.record.replace);
  app.add_flag("--foreground", options.mount.foreground);
  app.add_option("--journal", options.journal)->type_name("DIR");
  add_lists(app, lists, options);
  Keeping const keeping(app);
  app.add_option("target", options.record.target);
  if (auto ok = common.parse(app, std::move(words), options); !ok || common.ends()) return ok;
  if (auto ok = keeping.apply(options.keep); !ok) return ok;
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  return check_target(options.record.target, all);
}

Checked parse_cache(std::vector<std::string> words, Options& options) {
  CLI::App app;
  Common common(app);
  auto& cache = options.cache;
  std::string keep;
  std::vector<std::string> lists;
  app.add_flag("--json", options.read.json);
  app.add_flag("-a,--all", cache.all);
  app.add_option("--keep", keep)->type_name("SIZE|AGE");
  add_lists(app, lists, options);
  app.add_option("action", cache.action);
  app.add_option("digests", cache.digests);
  if (auto ok = common.parse(app, std::move(words), options); !ok || common.ends()) return ok;
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  constexpr std::array<std::string_view, 5> actions{"ls", "du", "verify", "prune", "rm"};
  if (std::ranges::find(actions, cache.action) == actions.end()) {
    return usage("cache: one of ls, du, verify, prune, rm is needed");
  }
  auto const names = cache.action == "rm" || cache.action == "verify";
  if (!names && !cache.digests.empty()) return usage("unexpected argument: " + cache.digests[0]);
  auto const removes = cache.all || (cache.action == "rm" && !cache.digests.empty());
  if ((cache.action == "rm") != removes) {
    return usage("cache: rm, and it alone, needs DIGEST or --all");
  }
  for (auto& digest : cache.digests) {
    if (digest.find(':') == digest.npos) digest.insert(0, "sha256:");
    if (!erofs_oci::Digest::parse(digest)) return usage("cache: " + digest + ": not a digest");
  }
  if ((cache.action == "prune") == keep.empty()) {
    return usage("cache: prune, and it alone, needs --keep SIZE or AGE");
  }
  return parse_keep(keep, options.record);
}

Checked parse_records(std::vector<std::string> words, Options& options) {
  CLI::App app;
  Common common(app);
  std::string keep;
  std::vector<std::string> lists;
  app.add_option("--journal", options.journal)->type_name("DIR");
  if (options.command == Command::status) {
    app.add_flag("--json", options.read.json);
    app.add_option("target", options.record.target);
  } else {
    app.add_option("--keep", keep)->type_name("SIZE|AGE");
    add_lists(app, lists, options);
  }
  if (auto ok = common.parse(app, std::move(words), options); !ok || common.ends()) return ok;
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  return parse_keep(keep, options.record);
}

}  // namespace mount_oci
