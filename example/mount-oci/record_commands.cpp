// SPDX-License-Identifier: Apache-2.0
// The commands about recorded mounts.
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/nbd/device.hpp>
#include <erofs_oci/oci/json.hpp>

#include "commands.hpp"
#include "control.hpp"
#include "indexing.hpp"
#include "merkle_tree.hpp"
#include "mount_journal.hpp"
#include "mount_table.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "records.hpp"
#include "supervise.hpp"
#include "upstream_mount.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::MountChannel;
using erofs_oci::MountMessage;
using erofs_oci::json::Value;

/// The mount that the options name, or all.
Result<std::vector<NotedMount>> wanted_mounts(Options const& options, std::string const& target) {
  if (target.empty()) return noted_mounts(options);
  EROFS_OCI_TRY_ASSIGN(auto one, noted_mount(options, target));
  return std::vector{std::move(one)};
}

/// Calls a function for each mount or place, also after errors; yields the first error and logs the
/// others.
template <class One, class Do>
Result<void> for_each(std::vector<One> const& all, Log const& log, Do const& act) {
  Result<void> first;
  for (auto const& one : all) {
    auto const done = act(one);
    if (!done && !first) log.say(Level::error, done.error().message());
    if (!done && first) first = done;
  }
  return first;
}

// ---------------------------------------------------------------- reattach

/// Waits until the new process reports that it serves the mount.
Result<void> wait_for_service(MountChannel const& link) {
  EROFS_OCI_TRY_ASSIGN(auto const message, link.receive(), "the serving process");
  if (message.kind != MountMessage::Kind::settled) return fail(message.error);
  return {};
}

Result<void> go_on(EarlierMount earlier, Options const& options, Log& log) {
  EROFS_OCI_TRY_ASSIGN(auto links, MountChannel::make());
  if (options.mount.foreground) {
    return supervise(options, std::move(links.first), Life::foreground, std::move(earlier), log);
  }
  auto const child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child == 0) {
    links.second.close();
    auto const done =
        supervise(options, std::move(links.first), Life::daemon, std::move(earlier), log);
    std::_Exit(done ? 0 : 2);
  }
  links.first.close();
  auto done = wait_for_service(links.second);
  if (!done) ::waitpid(child, nullptr, 0);
  return done;
}

// ---------------------------------------------------------------- what mount.erofs has left

/// Where a device's file system is mounted; the path that was named, if that is one.
std::optional<std::string> seen_at(std::vector<MountEntry> const& table, std::uint32_t index,
                                   std::string const& preferred) {
  std::optional<std::string> found;
  for (auto const& entry : table) {
    if (nbd_index_of(entry.device) != index) continue;
    auto const top = find_target(table, entry.target);
    if (top && top->device != entry.device) continue;  // another one covers it
    if (!found || entry.target == preferred) found = entry.target;
  }
  return found;
}

std::string note_on(UpstreamMount const& mount) {
  auto const device = erofs_oci::nbd_device_path(mount.index);
  auto note = device + " is served in place of mount.erofs, whose record " + mount.path +
              " is not used any more: remove it";
  if (mount.record.had_credentials) note += "; it holds a user name and a password";
  return note;
}

/// Takes over a device of mount.erofs, and makes a record of our own for it.
Result<void> import_mount(UpstreamMount const& mount, Options const& options, Log& log) {
  EROFS_OCI_TRY_ASSIGN(auto const directory, journal_path(options));
  EROFS_OCI_TRY_ASSIGN(auto image, upstream_options(mount.record, options.image), mount.path);
  EROFS_OCI_TRY_ASSIGN(auto const table, read_mount_table());
  auto const& target = options.record.target;
  auto const place = seen_at(table, mount.index, real_path(target).value_or(target));
  if (!place) {
    return fail(Errc::unsupported, erofs_oci::nbd_device_path(mount.index) +
                                       ": not mounted in this process's mount namespace, so the "
                                       "image cannot be compared with what is "
                                       "mounted; see nsenter(1)");
  }
  auto changed = options;
  changed.image = std::move(image);
  changed.image.native = true;  // as it was mounted
  changed.image.in_place_of = {mount.index, mount.backend, *place, note_on(mount)};
  EROFS_OCI_TRY(go_on({directory, "nbd" + std::to_string(mount.index), false}, changed, log),
                mount.path);
  return {};
}

// ---------------------------------------------------------------- status

Value status_of(NotedMount const& noted, std::string const& directory) {
  Value value;
  value["name"] = noted.name;
  value["served"] = noted.held;
  value["connected"] = noted.is_connected();
  if (!noted.record) {
    value["problem"] = noted.problem;
    return value;
  }
  value["device"] = noted.device();
  auto const places = noted.mount_points();
  value["mount_point"] = places.empty() ? std::string() : places.front();
  value["mount_points"] = places;
  value["image"] = noted.image();
  value["size"] = noted.record->image.device_size;
  value["supervisor"] = noted.record->daemon.pid;
  value["mismatch"] = noted.record->image.mismatch;
  value["verity"] = root_text(noted.record->image);
  if (!noted.held) return value;
  auto const answer = ask_control(control_path(directory, noted.name), "status");
  auto const live = answer ? erofs_oci::json::parse(erofs_oci::as_bytes(*answer), "status")
                           : Result<Value>(fail(answer.error()));
  if (live) {
    value.update(*live);
  } else {
    value["problem"] = live.error().message();
  }
  return value;
}

std::string number(Value const& status, char const* name) {
  auto const* const found = erofs_oci::json::find(status, name);
  return found == nullptr ? "?" : found->dump();
}

std::string word(Value const& status, char const* name) {
  return escaped(erofs_oci::json::text(status, name).value_or(""));
}

/// How many layers are proved, and what is to be said of the others.
std::string layers_text(Value const& status) {
  auto const* const layers = erofs_oci::json::find(status, "layers");
  if (layers == nullptr || !layers->is_array() || layers->empty()) return {};
  std::map<std::string, std::size_t> counts;
  std::string problems;
  for (auto const& layer : *layers) {
    ++counts[word(layer, "state")];
    auto const problem = word(layer, "problem");
    if (problem.empty()) continue;
    problems += "            " + word(layer, "digest") + ": " + word(layer, "state") + ": " +
                problem + "\n";
  }
  return "  layers:   " + std::to_string(counts["proved"]) + " proved, " +
         std::to_string(counts["pending"]) + " pending, " + std::to_string(counts["failed"]) +
         " failed\n" + problems;
}

/// The files that were read before a layer failed.
std::string served_text(Value const& status) {
  auto const* const served = erofs_oci::json::find(status, "read_before");
  if (served == nullptr) return {};
  auto text = "            " + number(*served, "files") + " files of it were read before:";
  auto const* const names = erofs_oci::json::find(*served, "names");
  for (auto const& name : *names) text += " " + escaped(name.get<std::string>());
  return text + "\n";
}

/// Where it is mounted besides.
std::vector<std::string> others_of(Value const& status) {
  std::vector<std::string> others;
  auto const* const places = erofs_oci::json::find(status, "mount_points");
  if (places == nullptr) return others;
  for (auto const& place : *places) others.push_back(escaped(place.get<std::string>()));
  if (!others.empty()) others.erase(others.begin());
  return others;
}

/// Some lines about one mount.
std::string status_text(Value const& status) {
  auto const device = word(status, "device");
  auto const target = word(status, "mount_point");
  std::string text = device.empty() ? word(status, "name") : device;
  if (!target.empty()) text += " on " + target;
  for (auto const& place : others_of(status)) text += "\n            and " + place;
  text += "\n  image:    " + word(status, "image") + "\n  served:   ";
  if (!status["served"].get<bool>()) {
    if (!status["connected"].get<bool>()) return text + "no, the device or mount is gone\n";
    return text + (device.empty() ? "no; `mount-oci umount " + target + "` removes it\n"
                                  : "no; `mount-oci reattach " + device + "` serves it again\n");
  }
  text += "by worker " + number(status, "worker") + ", supervisor " + number(status, "supervisor") +
          ", " + word(status, "way") + ", replaced " + number(status, "restarts") + " times\n";
  if (status.contains("requests")) {
    auto const in_flight =
        status.contains("in_flight") ? number(status, "in_flight") + " in flight, " : "";
    text += "  reads:    " + number(status, "requests") + ", " + number(status, "bytes") +
            " bytes, " + in_flight + number(status, "errors") + " failed\n";
  }
  if (status.contains("cached")) {
    text += "  cached:   " + number(status, "cached") + " of " + number(status, "size") + " bytes" +
            (status["complete"].get<bool>() ? ", complete" : "") + "\n";
  }
  if (auto const* const disk = erofs_oci::json::find(status, "disk")) {
    text += "  on disk:  " + number(*disk, "kept") + " of " + number(*disk, "total") +
            " bytes of the layers" + (disk->value("complete", false) ? ", complete" : "") + "; " +
            number(*disk, "hits") + " hits, " + number(*disk, "misses") + " misses\n";
  }
  if (auto const* const proof = erofs_oci::json::find(status, "proof")) {
    text += "  proof:    " +
            (proof->value("proved", false)
                 ? std::string("the digest of all bytes is right")
                 : "none yet; " + number(*proof, "seen") + " of " + number(*proof, "total") +
                       " bytes of the layer have been read") +
            "\n";
  }
  if (auto const* const start = erofs_oci::json::find(status, "start_list");
      start != nullptr && number(*start, "fetched") != "0") {
    text += "  ahead:    " + number(*start, "fetched") + " bytes fetched by the start list, " +
            number(*start, "used") + " of them needed in the first minute\n";
  }
  if (auto const* const hedges = erofs_oci::json::find(status, "hedges");
      hedges != nullptr && number(*hedges, "sent") != "0") {
    text += "  hedged:   " + number(*hedges, "sent") + " of " + number(*hedges, "requests") +
            " requests were sent twice, " + number(*hedges, "won") + " answered sooner so\n";
  }
  text += layers_text(status);
  if (auto const root = word(status, "verity"); !root.empty()) {
    text += "  kernel:   checks by dm-verity, root hash " + root + "\n";
  }
  auto const mismatch = word(status, "mismatch");
  if (!mismatch.empty()) {
    text += "  MISMATCH: " + mismatch +
            "\n            all reads of it fail; what was read before may be wrong: unmount it\n" +
            served_text(status);
  }
  auto const error = word(status, "last_error");
  if (!error.empty()) text += "  last error: " + error + "\n";
  auto const problem = word(status, "problem");
  if (!problem.empty()) text += "  problem:  " + problem + "\n";
  return text;
}

// ---------------------------------------------------------------- gc

Result<void> remove_records(Options const& options, Log const& log) {
  EROFS_OCI_TRY_ASSIGN(auto const directory, journal_path(options));
  std::error_code ignored;
  if (!std::filesystem::exists(directory, ignored)) return {};
  EROFS_OCI_TRY_ASSIGN(auto const journal, erofs_oci::Journal::open(directory));
  std::vector<std::string> indexes;
  auto const is_needed = [&](std::string const& name, erofs_oci::Record const* record) {
    if (record == nullptr) return true;  // not known: assume that its device exists
    auto const connected = NotedMount{name, *record, {}, false}.is_connected();
    if (!connected) indexes.push_back(index_directory(directory, record->attach.backend));
    return connected;
  };
  EROFS_OCI_TRY_ASSIGN(auto const removed, journal.gc(is_needed));
  for (auto const& index : indexes) std::filesystem::remove_all(index, ignored);
  for (auto const& name : removed) {
    std::filesystem::remove(control_path(directory, name), ignored);
    std::printf("%s\n", name.c_str());
  }
  log.say(Level::info, counted(removed.size(), "record") + " removed");
  return {};
}

}  // namespace

Result<void> run_reattach(Options const& options, Log& log) {
  auto const mounts = wanted_mounts(options, options.record.target);
  auto const all = options.record.target.empty();
  if (!mounts && mounts.error().code == Errc::not_found && !all) {
    if (auto const index = nbd_index_of_target(options.record.target)) {
      EROFS_OCI_TRY_ASSIGN(auto const other, find_upstream_mount(*index));
      if (other) return import_mount(*other, options, log);
    }
  }
  if (!mounts) return fail(mounts.error());
  return for_each(*mounts, log, [&](NotedMount const& noted) -> Result<void> {
    auto const busy = noted.held && !options.record.replace;
    if (all && (busy || !noted.is_connected())) return {};
    EROFS_OCI_TRY_ASSIGN(auto const directory, journal_path(options));
    if (!noted.record) return fail(Errc::corrupt, noted.name + ": " + noted.problem);
    return go_on({directory, noted.name, options.record.replace && noted.held}, options, log);
  });
}

Result<void> run_status(Options const& options, Log&) {
  EROFS_OCI_TRY_ASSIGN(auto const mounts, wanted_mounts(options, options.record.target));
  EROFS_OCI_TRY_ASSIGN(auto const directory,
                       mounts.empty() ? Result<std::string>("") : journal_path(options));
  auto list = Value::array();
  for (auto const& noted : mounts) list.push_back(status_of(noted, directory));
  if (options.read.json) {
    auto const text = list.dump(2, ' ', false, Value::error_handler_t::replace);
    std::printf("%s\n", text.c_str());
  } else {
    for (auto const& status : list) std::fputs(status_text(status).c_str(), stdout);
    if (list.empty()) std::puts("no mounts");
  }
  return {};
}

Result<void> run_gc(Options const& options, Log& log) {
  EROFS_OCI_TRY(remove_records(options, log));
  auto const& record = options.record;
  if (!record.keep_bytes && !record.keep_used) return {};
  EROFS_OCI_TRY_ASSIGN(auto const store, open_store(options.image, log));
  if (!store) return {};
  EROFS_OCI_TRY_ASSIGN(auto const pruned,
                       store->prune({.bytes = record.keep_bytes, .used = record.keep_used}));
  for (auto const& [name, bytes] : pruned) {
    std::printf("%s/%s %llu\n", store->root().c_str(), name.c_str(),
                static_cast<unsigned long long>(bytes));
  }
  return {};
}

Result<void> run_umount_all(Options const& options, Log& log) {
  EROFS_OCI_TRY_ASSIGN(auto const mounts, noted_mounts(options));
  return for_each(mounts, log, [&](NotedMount const& noted) -> Result<void> {
    if (!noted.record || !noted.is_connected()) return {};
    auto places = noted.mount_points();
    if (places.empty()) places.push_back(noted.device());
    return for_each(places, log,
                    [&](std::string const& place) { return run_umount({place, false}, log); });
  });
}

}  // namespace mount_oci
