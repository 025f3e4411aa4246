// SPDX-License-Identifier: Apache-2.0
// Arguments of mounts: making them, keeping them alive, ending them.
#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <sys/mount.h>

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

/// Which way both the type and `--attach` mean.
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

/// How a mount is kept alive.
class Keeping {
 public:
  explicit Keeping(CLI::App& app) {
    app.add_flag("--no-supervise", alone_);
    app.add_option("--dead-timeout", dead_timeout_);
    app.add_option("--metrics", metrics_);
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
    app.add_option("--disconnect", disconnect);
    app.add_option("--reattach", reattach);
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

}  // namespace

Checked parse_mount(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  auto& mount = options.mount;
  std::string type = "erofs";
  std::string attach = "auto";
  std::vector<std::string> lists;
  OtherCommand other;
  bool ignored = false;
  app.add_option("-t,--types", type);
  add_lists(app, lists);
  app.add_option("-N,--namespace", mount.name_space);
  app.add_flag("-f,--fake", mount.fake);
  app.add_flag("-n,--no-mtab,-s,--sloppy", ignored);
  app.add_flag("--foreground", mount.foreground);
  app.add_option("--attach", attach);
  app.add_option("--journal", options.journal);
  other.add(app);
  Keeping const keeping(app);
  app.add_option("image", options.image.image);
  app.add_option("directory", mount.target);
  take_writable(words, mount);
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;
  if (auto ok = keeping.apply(options.keep); !ok) return ok;
  if (!other.reattach.empty()) {
    if (auto ok = apply_lists(lists, options); !ok) return ok;
  }
  if (other.wanted()) return other.apply(options);

  auto const way = choose_attach(type, attach);
  if (!way) return tl::unexpected(way.error());
  mount.attach = *way;
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  // What is served cannot be written to, whatever was asked for.
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
  prepare(app);
  Common const common(app);
  bool ignored = false;
  bool all = false;
  app.add_flag("-n,--no-mtab,-r,--read-only", ignored);
  app.add_flag("-a,--all", all);
  app.add_option("--journal", options.journal);
  app.add_option("target", options.umount.target);
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;
  return check_target(options.umount.target, all);
}

Checked parse_disconnect(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  app.add_option("--journal", options.journal);
  app.add_option("target", options.umount.target);
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  options.umount.disconnect = true;
  if (auto ok = common.apply(options); !ok) return ok;
  return check_target(options.umount.target, false);
}

Checked parse_reattach(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  bool all = false;
  std::vector<std::string> lists;
  app.add_flag("-a,--all", all);
  app.add_flag("--replace", options.record.replace);
  app.add_flag("--foreground", options.mount.foreground);
  app.add_option("--journal", options.journal);
  add_lists(app, lists);
  Keeping const keeping(app);
  app.add_option("target", options.record.target);
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;
  if (auto ok = keeping.apply(options.keep); !ok) return ok;
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  return check_target(options.record.target, all);
}

Checked parse_records(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  app.add_option("--journal", options.journal);
  if (options.command == Command::status) {
    app.add_flag("--json", options.read.json);
    app.add_option("target", options.record.target);
  }
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  return common.apply(options);
}

}  // namespace mount_oci
