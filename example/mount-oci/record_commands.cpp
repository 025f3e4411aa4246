// SPDX-License-Identifier: Apache-2.0
// What can be done with mounts that are written down.
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/json.hpp>

#include "commands.hpp"
#include "control.hpp"
#include "link.hpp"
#include "mount_journal.hpp"
#include "output.hpp"
#include "records.hpp"
#include "supervise.hpp"

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

Result<void> reattach(NotedMount const& noted, Options const& options, Log& log) {
  auto const directory = journal_path(options);
  if (!directory) return fail(directory.error());
  if (!noted.record) return fail(Errc::corrupt, noted.name + ": " + noted.problem);
  auto links = Link::make();
  if (!links) return fail(std::move(links).error());
  EarlierMount earlier{*directory, noted.name, options.record.replace && noted.held};
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
    if (!connected && record != nullptr) indexes.push_back(record->attach.backend + ".index");
    return connected;
  });
  if (!removed) return fail(removed.error());
  for (auto const& index : indexes) std::filesystem::remove_all(*directory + "/" + index, ignored);
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
