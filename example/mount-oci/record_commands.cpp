// SPDX-License-Identifier: Apache-2.0
// What can be done with mounts that are written down.
#include <cstdio>
#include <filesystem>
#include <functional>
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
#include "link.hpp"
#include "mount_journal.hpp"
#include "mount_table.hpp"
#include "output.hpp"
#include "records.hpp"
#include "supervise.hpp"
#include "upstream_mount.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::json::Value;

/// The mount that the options name, or all.
Result<std::vector<NotedMount>> wanted_mounts(Options const& options, std::string const& target) {
  if (target.empty()) return noted_mounts(options);
  auto one = noted_mount(options, target);
  if (!one) return fail(std::move(one).error());
  std::vector<NotedMount> result;
  result.push_back(*std::move(one));
  return result;
}

/// Does something to each, whatever becomes of the others; yields the first error, having told the
/// rest.
template <class Do>
Result<void> for_each_mount(std::vector<NotedMount> const& mounts, Log const& log, Do const& act) {
  Result<void> first;
  for (auto const& noted : mounts) {
    auto const done = act(noted);
    if (done) continue;
    if (first) {
      first = fail(done.error());
    } else {
      log.say(Level::error, done.error().message());
    }
  }
  return first;
}

// ---------------------------------------------------------------- reattach

/// Waits for the word of the process that serves from here on.
Result<void> wait_for_service(Link const& link) {
  auto const message = link.receive();
  if (!message) return fail(message.error(), "the serving process");
  if (message->kind != Message::Kind::settled) return fail(message->error);
  return {};
}

Result<void> go_on(EarlierMount earlier, Options const& options, Log& log) {
  auto links = Link::make();
  if (!links) return fail(std::move(links).error());
  if (options.mount.foreground) {
    return supervise(options, std::move(links->first), Life::foreground, std::move(earlier), log);
  }
  auto const child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child == 0) {
    links->second.close();
    auto const done =
        supervise(options, std::move(links->first), Life::daemon, std::move(earlier), log);
    std::_Exit(done ? 0 : 2);
  }
  links->first.close();
  auto done = wait_for_service(links->second);
  if (!done) ::waitpid(child, nullptr, 0);
  return done;
}

Result<void> reattach(NotedMount const& noted, Options const& options, Log& log) {
  auto const directory = journal_path(options);
  if (!directory) return fail(directory.error());
  if (!noted.record) return fail(Errc::corrupt, noted.name + ": " + noted.problem);
  return go_on({*directory, noted.name, options.record.replace && noted.held}, options, log);
}

// ---------------------------------------------------------------- what mount.erofs has left

/// Where a device's file system can be seen: at the path that was named, if it is there.
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
              " is of no use any more: remove it";
  if (mount.record.had_credentials) note += "; it holds a user name and a password";
  return note;
}

/// Goes on with a device of mount.erofs, whose record becomes one of ours.
Result<void> import_mount(UpstreamMount const& mount, Options const& options, Log& log) {
  auto const directory = journal_path(options);
  if (!directory) return fail(directory.error());
  auto image = options_of(mount.record, options.image);
  if (!image) return fail(std::move(image).error(), mount.path);
  auto const table = read_mount_table();
  if (!table) return fail(table.error());
  auto const& target = options.record.target;
  auto const place = seen_at(*table, mount.index, real_path(target).value_or(target));
  if (!place) {
    return fail(Errc::unsupported,
                erofs_oci::nbd_device_path(mount.index) +
                    ": not mounted where this process can see it, so that nothing shows what was "
                    "mounted; see nsenter(1)");
  }
  auto changed = options;
  changed.image = *std::move(image);
  changed.image.in_place_of = {mount.index, mount.backend, *place, note_on(mount)};
  auto done = go_on({*directory, "nbd" + std::to_string(mount.index), false}, changed, log);
  if (!done) return fail(std::move(done).error(), mount.path);
  return {};
}

/// The device of mount.erofs that a target means, if it is one.
Result<std::optional<UpstreamMount>> upstream_mount(std::string const& target) {
  auto const index = target.empty() ? std::nullopt : nbd_index_of_target(target);
  if (!index) return std::optional<UpstreamMount>();
  return find_upstream_mount(*index);
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
  value["mount_point"] = noted.record->mount_point;
  value["image"] = noted.image();
  value["size"] = noted.record->image.device_size;
  value["supervisor"] = noted.record->daemon.pid;
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
  return erofs_oci::json::text(status, name).value_or("");
}

/// Some lines about one mount.
std::string status_text(Value const& status) {
  auto const device = word(status, "device");
  auto const target = word(status, "mount_point");
  std::string text = device.empty() ? word(status, "name") : device;
  if (!target.empty()) text += " on " + target;
  text += "\n  image:    " + word(status, "image") + "\n  served:   ";
  if (!status["served"].get<bool>()) {
    if (!status["connected"].get<bool>()) return text + "no, and gone\n";
    return text + (device.empty() ? "no; `mount-oci umount " + target + "` takes it away\n"
                                  : "no; `mount-oci reattach " + device + "` serves it again\n");
  }
  text += "by process " + number(status, "worker") + ", kept by " + number(status, "supervisor") +
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
  auto const error = word(status, "last_error");
  if (!error.empty()) text += "  last error: " + error + "\n";
  auto const problem = word(status, "problem");
  if (!problem.empty()) text += "  problem:  " + problem + "\n";
  return text;
}

}  // namespace

Result<void> run_reattach(Options const& options, Log& log) {
  auto const mounts = wanted_mounts(options, options.record.target);
  if (!mounts && mounts.error().code == Errc::not_found) {
    auto const other = upstream_mount(options.record.target);
    if (!other) return fail(other.error());
    if (*other) return import_mount(**other, options, log);
  }
  if (!mounts) return fail(mounts.error());
  auto const all = options.record.target.empty();
  return for_each_mount(*mounts, log, [&](NotedMount const& noted) -> Result<void> {
    auto const busy = noted.held && !options.record.replace;
    if (all && (busy || !noted.is_connected())) return {};
    return reattach(noted, options, log);
  });
}

Result<void> run_status(Options const& options, Log&) {
  auto const mounts = wanted_mounts(options, options.record.target);
  if (!mounts) return fail(mounts.error());
  auto const directory = mounts->empty() ? Result<std::string>("") : journal_path(options);
  if (!directory) return fail(directory.error());
  auto list = Value::array();
  for (auto const& noted : *mounts) list.push_back(status_of(noted, *directory));
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
  auto const directory = journal_path(options);
  if (!directory) return fail(directory.error());
  std::error_code ignored;
  if (!std::filesystem::exists(*directory, ignored)) return {};
  auto const journal = erofs_oci::Journal::open(*directory);
  if (!journal) return fail(journal.error());
  std::vector<std::string> indexes;
  auto const removed = journal->gc([&](std::string const& name, erofs_oci::Record const* record) {
    NotedMount noted;
    noted.name = name;
    if (record != nullptr) noted.record = *record;
    auto const connected = noted.is_connected();
    if (!connected && record != nullptr) {
      indexes.push_back(index_directory(*directory, record->attach.backend));
    }
    return connected;
  });
  if (!removed) return fail(removed.error());
  for (auto const& index : indexes) std::filesystem::remove_all(index, ignored);
  for (auto const& name : *removed) {
    std::filesystem::remove(control_path(*directory, name), ignored);
    std::printf("%s\n", name.c_str());
  }
  log.say(Level::info, std::to_string(removed->size()) + " records removed");
  return {};
}

Result<void> run_umount_all(Options const& options, Log& log) {
  auto const mounts = noted_mounts(options);
  if (!mounts) return fail(mounts.error());
  return for_each_mount(*mounts, log, [&](NotedMount const& noted) -> Result<void> {
    if (!noted.record || !noted.is_connected()) return {};
    auto const& target = noted.record->mount_point;
    return run_umount({target.empty() ? noted.device() : target, false}, log);
  });
}

}  // namespace mount_oci
