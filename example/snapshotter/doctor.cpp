// SPDX-License-Identifier: Apache-2.0
#include "doctor.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/posix/text_file.hpp>

#include <mount_table.hpp>

#include "id_mapping.hpp"
#include "mount_view.hpp"
#include "run_to_end.hpp"
#include "stacks.hpp"
#include "store.hpp"

namespace oci_snapshotter {

using State = Finding::State;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {

constexpr ContainerdVersion with_exports{1, 7, 16};       // exports.root has its effect
constexpr ContainerdVersion with_new_tables{2, 0, 0};     // CRI's keys are in another table
constexpr ContainerdVersion with_mapped_mounts{2, 0, 0};  // overlays with mapped owners
constexpr ContainerdVersion with_transfer{2, 1, 0};       // CRI pulls by the transfer service

/// Whether this machine's images can be mounted with mapped owners, by the configuration's word.
bool can_map_owners(Config const& config) {
  return config.tool.attach != "fuse-tree";
}

std::string joined(std::vector<std::string> const& words) {
  std::string all;
  for (auto const& word : words) all += (all.empty() ? "" : ", ") + word;
  return all;
}

}  // namespace

// ---------------------------------------------------------------- containerd's configuration

std::string containerd_snippet(std::optional<ContainerdVersion> const& version,
                               std::string const& name, Config const& config) {
  auto const is_at_least = [&](ContainerdVersion const& least) {
    return version && *version >= least;
  };
  auto const is_new = is_at_least(with_new_tables);
  auto text = std::string("version = ") + (is_new ? "3" : "2") + "\n[proxy_plugins." + name +
              "]\n  type = \"snapshot\"\n  address = \"" + config.address + "\"\n";
  if (is_at_least(with_mapped_mounts) && can_map_owners(config)) {
    text += "  capabilities = [\"remap-ids\"]\n";
  }
  if (is_at_least(with_exports)) {
    text += "  [proxy_plugins." + name + ".exports]\n    root = \"" + config.root + "\"\n";
    if (is_at_least(with_transfer)) text += "    enable_remote_snapshot_annotations = \"true\"\n";
  }
  text += is_new ? "[plugins.\"io.containerd.cri.v1.images\"]\n"
                 : "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n";
  text += "  snapshotter = \"" + name + "\"\n";
  if (is_at_least(with_transfer)) {
    return text + "[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n" +
           "  platform = \"linux\"\n  snapshotter = \"" + name + "\"\n";
  }
  return text + "  disable_snapshot_annotations = false\n";
}

namespace {

/// The checks that need the plugin's name.
class PluginCheck {
 public:
  PluginCheck(ContainerdConfig const& containerd, std::optional<ContainerdVersion> const& version,
              Config const& config, ProxyPlugin const& plugin)
      : containerd_(containerd), version_(version), config_(config), plugin_(plugin) {}

  [[nodiscard]] std::vector<Finding> all() const {
    std::vector<Finding> out{{"plugin", State::ok,
                              "containerd calls the snapshotter `" + plugin_.name +
                                  "`; never change "
                                  "that name, which its images' records have"}};
    if (cri_is_disabled()) {
      out.push_back({"images", State::skipped, "CRI is among containerd's disabled_plugins",
                     "if Kubernetes is to use this containerd, take it out of disabled_plugins"});
    } else {
      out.push_back(images());
      out.push_back(labels());
    }
    out.push_back(root());
    out.push_back(mapped_owners());
    return out;
  }

 private:
  [[nodiscard]] bool cri_is_disabled() const {
    return std::ranges::any_of(containerd_.disabled, [](auto const& name) {
      return name == "cri" || name.ends_with(".cri") || name.find(".cri.v1.") != name.npos;
    });
  }

  [[nodiscard]] Finding images() const {
    if (containerd_.snapshotter == plugin_.name) {
      return {"images", State::ok, "CRI's images use it"};
    }
    return {"images", State::failed,
            containerd_.snapshotter.empty()
                ? "CRI's images use the default snapshotter"
                : "CRI's images use the snapshotter `" + containerd_.snapshotter + "`",
            "set `snapshotter` in containerd's configuration:\n" + snippet()};
  }

  /// Whether images come with the labels by which they are known.
  [[nodiscard]] Finding labels() const {
    // Where the version is not known, what the file says is a sign of it.
    auto const can_transfer =
        version_ ? *version_ >= with_transfer : !containerd_.unpacks_to.empty();
    auto const transfers =
        can_transfer && containerd_.disables_labels && !containerd_.pulls_locally;
    if (!transfers) {
      if (!containerd_.disables_labels)
        return {"labels", State::ok, "CRI says which image a layer is of"};
      return {
          "labels", State::failed,
          "disable_snapshot_annotations is true, so that nobody says which image a layer is of, "
          "and all are unpacked",
          "set `disable_snapshot_annotations = false` in containerd's configuration:\n" +
              snippet()};
    }
    auto const is_unpacked_to =
        std::ranges::find(containerd_.unpacks_to, plugin_.name) != containerd_.unpacks_to.end();
    if (plugin_.enables_labels == "true" && is_unpacked_to) {
      return {"labels", State::ok, "the transfer service says which image a layer is of"};
    }
    return {"labels", State::failed,
            is_unpacked_to
                ? "the plugin does not export enable_remote_snapshot_annotations, so that "
                  "nobody says which image a layer is of, and all are unpacked"
                : "the transfer service, by which this containerd pulls, has no "
                  "unpack_config with this snapshotter, so that pulls fail",
            "set both in containerd's configuration:\n" + snippet()};
  }

  /// Whether kubelet finds the file system of which it watches the free space.
  [[nodiscard]] Finding root() const {
    auto const is_exported = version_ ? *version_ >= with_exports : !plugin_.root.empty();
    auto const watched = is_exported
                             ? plugin_.root
                             : containerd_.root + "/io.containerd.snapshotter.v1." + plugin_.name;
    if (watched.empty()) {
      return {"exports.root", State::warning,
              "the plugin does not export `root`, so that kubelet sees no use of the disk, and "
              "removes no images when it is full",
              "set `exports.root` in containerd's configuration:\n" + snippet()};
    }
    struct stat about{};
    struct stat own{};
    auto const is_there = ::stat(watched.c_str(), &about) == 0;
    if (is_there && ::stat(config_.root.c_str(), &own) == 0 && about.st_dev == own.st_dev) {
      return {"exports.root", State::ok, "kubelet watches the file system of " + watched};
    }
    if (is_exported) {
      return {
          "exports.root", State::warning,
          "the plugin exports root = \"" + watched + "\", " +
              (is_there ? "on another file system than " + config_.root : "which is not there") +
              ", so that kubelet does not see the use of the disk",
          "set it to \"" + config_.root + "\", and start the snapshotter before containerd"};
    }
    return {"exports.root", State::warning,
            watched +
                (is_there ? " is on another file system than " + config_.root : " is missing") +
                ", where this containerd tells kubelet to look for the use of the disk",
            "make that directory, on the file system of " + config_.root};
  }

  /// What becomes of pods with user namespaces.
  [[nodiscard]] Finding mapped_owners() const {
    auto const is_able = version_ ? *version_ >= with_mapped_mounts : containerd_.version >= 3;
    std::string const copies =
        "containerd copies all files of an image for pods with user namespaces";
    if (!plugin_.has_remap_ids && is_able && can_map_owners(config_)) {
      return {"remap-ids", State::warning,
              copies + ", since the plugin does not declare the capability remap-ids",
              "set `capabilities = [\"remap-ids\"]` in containerd's configuration:\n" + snippet()};
    }
    if (!plugin_.has_remap_ids) return {"remap-ids", State::ok, copies};
    if (!is_able) {
      return {"remap-ids", State::failed,
              "the plugin declares the capability remap-ids, but containerd before 2.0 mounts "
              "nothing with mapped owners, so that pods with user namespaces do not start",
              "take `remap-ids` out of its capabilities"};
    }
    if (!can_map_owners(config_)) {
      return {"remap-ids", State::failed,
              "the plugin declares the capability remap-ids, but mount.attach is \"" +
                  config_.tool.attach +
                  "\", and owners of what FUSE serves cannot be mapped, so that pods with user "
                  "namespaces do not start",
              "set `mount.attach = \"auto\"` in the snapshotter's configuration, or take "
              "`remap-ids` out of the plugin's capabilities"};
    }
    return {"remap-ids", State::ok, "pods with user namespaces share an image's mount"};
  }

  [[nodiscard]] std::string snippet() const {
    return containerd_snippet(version_, plugin_.name, config_);
  }

  ContainerdConfig const& containerd_;
  std::optional<ContainerdVersion> const& version_;
  Config const& config_;
  ProxyPlugin const& plugin_;
};

}  // namespace

std::vector<Finding> check_containerd(ContainerdConfig const& containerd,
                                      std::optional<ContainerdVersion> const& version,
                                      Config const& config) {
  auto const is_ours = [&](ProxyPlugin const& one) {
    return one.type == "snapshot" && one.address == config.address;
  };
  auto const plugin = std::ranges::find_if(containerd.plugins, is_ours);
  if (plugin != containerd.plugins.end()) {
    return PluginCheck(containerd, version, config, *plugin).all();
  }
  return {{"plugin", State::failed,
           "containerd has no proxy plugin of type \"snapshot\" with the address " + config.address,
           "add this to containerd's configuration, and restart it:\n" +
               containerd_snippet(version, "oci", config)}};
}

// ---------------------------------------------------------------- systemd

std::vector<Finding> check_unit(std::string_view shown) {
  std::map<std::string_view, std::string_view> properties;
  while (!shown.empty()) {
    auto line = erofs_oci::take_part(shown, '\n');
    auto const name = erofs_oci::take_part(line, '=');
    properties[name] = line;
  }
  auto const state = properties["LoadState"];
  if (state != "loaded") {
    return {{"unit", State::warning,
             "systemd has not loaded oci-snapshotter.service, but calls it " +
                 std::string(state.empty() ? "nothing" : state),
             "install the unit, or see to it that the snapshotter starts before containerd, and "
             "that its end does not end the processes that it has started"}};
  }
  std::vector<Finding> out;
  auto rest = properties["Before"];
  auto is_before = false;
  while (!rest.empty()) is_before |= erofs_oci::take_part(rest, ' ') == "containerd.service";
  if (is_before) {
    out.push_back({"unit", State::ok, "it starts before containerd"});
  } else {
    out.push_back({"unit", State::failed,
                   "it may start after containerd, which then forgets all images until they are "
                   "pulled again",
                   "add `Before=containerd.service` by systemctl edit oci-snapshotter.service"});
  }
  if (properties["KillMode"] == "process") {
    out.push_back({"restart", State::ok, "a restart leaves mounts alone"});
  } else {
    out.push_back({"restart", State::failed,
                   "its KillMode is " + std::string(properties["KillMode"]) +
                       ", so that a restart ends the processes that containers read from",
                   "set `KillMode=process` by systemctl edit oci-snapshotter.service"});
  }
  return out;
}

// ---------------------------------------------------------------- the machine

namespace {

/// What a program prints that ends with status 0 within ten seconds.
erofs_oci::Result<std::string> printed(std::vector<std::string> words) {
  auto const program = words.front();
  EROFS_OCI_TRY_ASSIGN(auto outcome,
                       run_to_end(std::move(words), {.deadline = steady_clock::now() + 10s}, {}));
  return output_of(std::move(outcome), program);
}

/// A process of containerd's; process 1 if there is none.
pid_t containerd_process() {
  std::error_code error;
  std::filesystem::directory_iterator entries("/proc", error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    auto const number = erofs_oci::whole_number<pid_t>(entries->path().filename().string());
    if (!number) continue;
    auto const name = erofs_oci::read_text_value(entries->path().string() + "/comm");
    if (name && *name == "containerd") return *number;
  }
  return 1;
}

/// Looks at everything, one thing after the other.
class Doctor {
 public:
  Doctor(Config const& config, DoctorOptions const& options) : config_(config), options_(options) {}

  std::vector<Finding> run() {
    look_at_containerd();
    look_at_socket();
    look_at_unit();
    look_at_view();
    look_at_mounts();
    return std::move(findings_);
  }

 private:
  void add(std::string check, State state, std::string text, std::string advice = {}) {
    findings_.push_back({std::move(check), state, std::move(text), std::move(advice)});
  }

  void look_at_containerd() {
    auto const said = printed({options_.program, "--version"});
    auto const version = said ? ContainerdVersion::find(*said) : std::nullopt;
    if (version) {
      add("containerd", State::ok, "version " + version->text());
    } else {
      add("containerd", State::warning,
          options_.program + " --version: " + (said ? "prints no version" : said.error().message()),
          "name the program by --containerd; until then what is said here is for version 1.6");
    }
    // With all defaults of the version, and the files that it imports.
    auto text = printed({options_.program, "-c", options_.containerd_config, "config", "dump"});
    auto const is_dumped = text.has_value();
    if (!text) text = erofs_oci::read_text_file(options_.containerd_config);
    if (!text) {
      add("configuration", State::failed, text.error().message(),
          "name containerd's configuration file by --containerd-config");
      return;
    }
    auto const parsed = ContainerdConfig::parse(*text, options_.containerd_config);
    if (!parsed) {
      add("configuration", State::failed, parsed.error().message(), "correct the file");
      return;
    }
    if (!is_dumped && !parsed->imports.empty()) {
      add("configuration", State::warning,
          "read without the files that it imports: " + joined(parsed->imports),
          "name containerd's program by --containerd, which can print all of it");
    }
    declares_remap_ids_ = std::ranges::any_of(parsed->plugins, [&](ProxyPlugin const& one) {
      return one.address == config_.address && one.has_remap_ids;
    });
    auto list = check_containerd(*parsed, version, config_);
    findings_.insert(findings_.end(), list.begin(), list.end());
  }

  void look_at_socket() {
    auto const answer = options_.ask ? options_.ask() : erofs_oci::Result<void>();
    if (answer) {
      add("snapshotter", State::ok, "it answers at " + config_.address);
    } else {
      add("snapshotter", State::failed,
          "it does not answer at " + config_.address + ": " + answer.error().message(),
          "start it, and read its log: systemctl status oci-snapshotter");
    }
  }

  void look_at_unit() {
    if (::access(options_.systemd.c_str(), F_OK) != 0) {
      return add("unit", State::skipped, "systemd does not run here");
    }
    auto const shown = printed({"systemctl", "show", "--property", "LoadState,Before,KillMode",
                                "oci-snapshotter.service"});
    if (!shown) return add("unit", State::skipped, shown.error().message());
    auto list = check_unit(*shown);
    findings_.insert(findings_.end(), list.begin(), list.end());
  }

  void look_at_view() {
    if (::access(config_.root.c_str(), W_OK) != 0) {
      return add("mounts", State::skipped, config_.root + " is not there, or another user's",
                 "run this as root, once the snapshotter has been started");
    }
    auto const process = containerd_process();
    auto const seen = check_mounts_are_seen(config_.root + "/doctor", process);
    if (seen) {
      return add(
          "mounts", State::ok,
          (process == 1 ? std::string("process 1") : "containerd") + " sees what is mounted here");
    }
    add("mounts", State::failed, seen.error().message(),
        "run the snapshotter in containerd's mount namespace: in its unit no PrivateMounts, "
        "PrivateTmp or ProtectSystem; in a container mountPropagation Bidirectional");
  }

  /// Whether a snapshotter has the root directory.
  [[nodiscard]] bool is_running() const {
    erofs_oci::UniqueFd const lock(
        ::open((config_.root + "/lock").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    return lock && ::flock(lock.get(), LOCK_SH | LOCK_NB) != 0;
  }

  /// Stacks that are needed; empty: the table cannot be read.
  [[nodiscard]] std::optional<std::set<std::string>> needed() {
    auto const path = config_.root + "/" + metadata_name;
    if (::access(path.c_str(), F_OK) != 0) return std::set<std::string>();
    auto const store = SnapshotStore::open(path);
    if (store) return needed_stacks(**store);
    add("table", State::failed, store.error().message(), "see what is said in brackets");
    return std::nullopt;
  }

  void look_at_mounts() {
    std::error_code error;
    auto const top = std::filesystem::canonical(config_.root, error).string() + "/mounts/";
    if (error) return;
    auto const table = mount_oci::read_mount_table();
    if (!table) return add("leaks", State::skipped, table.error().message());
    std::set<std::string> places;
    for (auto const& entry : *table) {
      if (entry.target.starts_with(top)) places.insert(entry.target);
    }
    look_for_dead(places);
    if (declares_remap_ids_) look_for_unmappable(places, *table);
    auto const known = needed();
    if (!known) return;
    std::vector<std::string> leaked;
    for (auto const& place : places) {
      auto const name = place.substr(top.size(), place.find('/', top.size()) - top.size());
      if (!known->contains(name)) leaked.push_back(place);
    }
    if (leaked.empty()) {
      return add("leaks", State::ok,
                 "no mount without a snapshot; mounts: " + std::to_string(places.size()));
    }
    auto const seconds = std::to_string(config_.unmount_after.count());
    if (is_running()) {
      return add("leaks", State::warning, "no snapshot needs these mounts: " + joined(leaked),
                 "wait " + seconds +
                     " seconds, in which the snapshotter unmounts them; if they stay, "
                     "its log says why");
    }
    add("leaks", State::failed, "no snapshot needs these mounts: " + joined(leaked),
        "start the snapshotter, which unmounts them after " + seconds + " seconds, or do it by " +
            config_.tool.program + " umount");
  }

  /// A kernel without EROFS serves by FUSE, whatever the configuration says.
  void look_for_unmappable(std::set<std::string> const& places,
                           std::vector<mount_oci::MountEntry> const& table) {
    std::vector<std::string> found;
    for (auto const& place : places) {
      if (is_unmappable(table, place)) found.push_back(place);
    }
    if (found.empty()) return;
    add("owners", State::warning,
        "the plugin declares remap-ids, but pods with user namespaces do not start on these "
        "images, which are mounted by FUSE: " +
            joined(found),
        "have them mounted by the kernel's EROFS (modprobe erofs; then restart the pods that use "
        "them), or take `remap-ids` out of the plugin's capabilities");
  }

  void look_for_dead(std::set<std::string> const& places) {
    auto const status = MountTool(config_.tool).status();
    if (!status) {
      return add("servers", State::failed, status.error().message(),
                 "set `mount.program` and `mount.journal` in the snapshotter's configuration");
    }
    std::vector<std::string> dead;
    for (auto const& place : places) {
      auto const lives = std::ranges::any_of(*status, [&](MountStatus const& one) {
        return one.mount_point == place && one.is_served;
      });
      if (!lives) dead.push_back(place);
    }
    if (dead.empty()) return add("servers", State::ok, "all mounts are served");
    add("servers", State::failed, "nobody serves these mounts: " + joined(dead),
        "restart the pods that use them; the next container of an image has it mounted anew");
  }

  Config const& config_;
  DoctorOptions const& options_;
  bool declares_remap_ids_ = false;
  std::vector<Finding> findings_;
};

}  // namespace

std::vector<Finding> diagnose(Config const& config, DoctorOptions const& options) {
  return Doctor(config, options).run();
}

// ---------------------------------------------------------------- the report

std::string findings_text(std::vector<Finding> const& findings) {
  std::string out;
  for (auto const& one : findings) out += mount_oci::finding_text(one);
  return out;
}

std::string findings_json(std::vector<Finding> const& findings) {
  return erofs_oci::json::dump({{"checks", mount_oci::findings_value(findings)}}) + "\n";
}

}  // namespace oci_snapshotter
