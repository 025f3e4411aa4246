// SPDX-License-Identifier: Apache-2.0
/// @file
/// Journal: the records of all mounts on disk, and a lock for each, which its daemon holds.
/// The daemon is the process that keeps the mount: the supervisor, or a worker without one.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/clock.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/recovery/journal_directory.hpp>
#include <erofs_oci/recovery/record_codec.hpp>

namespace erofs_oci {

/// Where records are kept unless the user says otherwise. It must not outlive a boot.
inline constexpr std::string_view default_journal_directory = "/run/erofs_oci";

class Journal;

/// One name in a journal, and the lock on it: while this object lives, here or in a child that
/// inherited it, no other process can take the name. A daemon holds it for its life, and the kernel
/// releases it when the daemon ends in any way. The record stays until remove().
///
/// After fork(2) the child has the lock too, and the parent destroys its object. exec(2) drops the
/// lock.
///
/// @par Thread safety
/// None: one thread at a time.
class JournalEntry {
 public:
  [[nodiscard]] std::string const& name() const noexcept { return name_; }

  /// Replaces the record: after an error, a crash or a loss of power it is the old or the new one.
  /// @error{Errc::invalid_argument, check() refuses it}
  /// @error{an errno, as JournalDirectory::replace(); ENOSPC on a full disk}
  [[nodiscard]] Result<void> write(Record const& record) {
    EROFS_OCI_TRY_ASSIGN(auto const bytes, encode_record(record), directory_.path_of(name_));
    return directory_.replace(record_file(name_), temporary_file(name_), as_bytes(bytes));
  }

  /// Renames the record, for a device whose number was not known before. Takes the lock on the new
  /// name first, and replaces a record there whose daemon has ended. After a crash the record has
  /// one of the two names.
  /// @error{std::errc::device_or_resource_busy, a daemon lives under the new name}
  /// @error{Errc::invalid_argument, it is no plain name}
  /// @error{an errno, as rename(2)}
  [[nodiscard]] Result<void> rename(std::string const& name) {
    if (name == name_) return {};
    if (!is_plain_name(name)) {
      return fail(Errc::invalid_argument, "journal: \"" + name + "\" is no plain name");
    }
    EROFS_OCI_TRY_ASSIGN(auto lock, directory_.lock(lock_file(name)));
    if (!lock) {
      return fail(make_error_code(std::errc::device_or_resource_busy), directory_.path_of(name));
    }
    EROFS_OCI_TRY(directory_.rename(record_file(name_), record_file(name)));
    // gc() removes what is left of the old name, so errors here are ignored.
    static_cast<void>(directory_.remove(temporary_file(name_)));
    static_cast<void>(directory_.remove(lock_file(name_)));
    lock_ = *std::move(lock);
    name_ = name;
    return {};
  }

  /// Removes the record and releases the name. Only for a device that the kernel has disconnected:
  /// without its record no takeover is possible.
  /// @error{an errno, as unlink(2) and fsync(2)}
  [[nodiscard]] Result<void> remove() && {
    auto const lock = std::move(lock_);  // until the names are gone
    for (auto const& file : {record_file(name_), temporary_file(name_), lock_file(name_)}) {
      EROFS_OCI_TRY(directory_.remove(file));
    }
    return directory_.sync();
  }

 private:
  friend Journal;

  JournalEntry(JournalDirectory directory, std::string name, UniqueFd lock) noexcept
      : directory_(std::move(directory)), name_(std::move(name)), lock_(std::move(lock)) {}

  static std::string record_file(std::string const& name) { return name + ".record"; }
  static std::string lock_file(std::string const& name) { return name + ".lock"; }
  static std::string temporary_file(std::string const& name) { return name + ".new"; }

  JournalDirectory directory_;
  std::string name_;
  UniqueFd lock_;
};

/// The records in one directory, each under a plain name such as "nbd0".
///
/// @par Thread safety
/// All const members, from any thread and any process.
class Journal {
 public:
  /// Opens the directory, or makes it.
  /// @error{as JournalDirectory::open(), as there}
  [[nodiscard]] static Result<Journal> open(
      std::string path = std::string(default_journal_directory)) {
    EROFS_OCI_TRY_ASSIGN(auto directory, JournalDirectory::open(std::move(path)), "journal");
    return Journal(std::move(directory));
  }

  /// Takes a name, with or without a record under it. Removes files that a crash has left half
  /// written.
  /// @param wait  how long to wait for the daemon that has the name to end; at least 20 ms, since
  /// is_locked() of another process may hold the lock for a moment
  /// @error{std::errc::device_or_resource_busy, its daemon lives}
  /// @error{Errc::invalid_argument, no plain name}
  /// @error{an errno, as open(2) and flock(2)}
  template <Clock Time = SteadyClock>
  [[nodiscard]] Result<JournalEntry> acquire(std::string const& name,
                                             std::chrono::milliseconds wait = {},
                                             Time time = {}) const {
    EROFS_OCI_TRY(check_name(name));
    auto const deadline = time.now() + std::max(wait, std::chrono::milliseconds(20));
    for (;;) {
      EROFS_OCI_TRY_ASSIGN(auto entry, try_acquire(name), "journal");
      if (entry) return *std::move(entry);
      if (time.now() >= deadline) return fail(busy(name));
      time.sleep(std::chrono::milliseconds(5));
    }
  }

  /// The record under a name, locked or not.
  /// @error{Errc::not_found, there is none}
  /// @error{std::errc::permission_denied, its file is not one that this user alone could have made}
  /// @error{as parse_record(), it is not a record}
  [[nodiscard]] Result<Record> read(std::string const& name) const {
    EROFS_OCI_TRY(check_name(name));
    auto const file = JournalEntry::record_file(name);
    auto const bytes = directory_.read(file, most_record_bytes);
    if (!bytes && bytes.error().code == std::errc::no_such_file_or_directory) {
      return fail(Errc::not_found, "journal: " + directory_.path_of(file));
    }
    if (!bytes) return fail(bytes.error(), "journal");
    EROFS_OCI_TRY_ASSIGN(auto record, parse_record(*bytes), "journal: " + directory_.path_of(file));
    return record;
  }

  /// The names that have a record, readable or not, sorted.
  /// @error{an errno, as readdir(3)}
  [[nodiscard]] Result<std::vector<std::string>> list() const { return names({".record"}); }

  /// Whether a daemon has the name.
  /// @error{Errc::invalid_argument, no plain name}
  /// @error{an errno, as open(2) and flock(2)}
  [[nodiscard]] Result<bool> is_held(std::string const& name) const {
    EROFS_OCI_TRY(check_name(name));
    return directory_.is_locked(JournalEntry::lock_file(name));
  }

  /// Removes records whose device is gone, and leftovers of crashes. Leaves names alone that a
  /// daemon has.
  /// @param connected  whether the device of a record is still there; the record is null if it
  /// cannot be read. When in doubt: true, since a device without a record cannot be taken over.
  /// @return the names whose record is gone, sorted
  /// @error{an errno, as readdir(3) and unlink(2)}
  [[nodiscard]] Result<std::vector<std::string>> gc(
      FunctionRef<bool(std::string const&, Record const*)> connected) const {
    EROFS_OCI_TRY_ASSIGN(auto const all, names({".record", ".lock", ".new"}));
    std::vector<std::string> removed;
    for (auto const& name : all) {
      EROFS_OCI_TRY_ASSIGN(auto entry, try_acquire(name), "journal");
      if (!entry) continue;
      auto const record = read(name);
      auto const has_record = record || record.error().code != Errc::not_found;
      if (has_record && connected(name, record ? &*record : nullptr)) continue;
      EROFS_OCI_TRY((*std::move(entry)).remove());
      if (has_record) removed.push_back(name);
    }
    return removed;
  }

  /// Of the directory, as given.
  [[nodiscard]] std::string const& path() const noexcept { return directory_.path(); }

 private:
  explicit Journal(JournalDirectory directory) noexcept : directory_(std::move(directory)) {}

  static Result<void> check_name(std::string const& name) {
    if (is_plain_name(name)) return {};
    return fail(Errc::invalid_argument, "journal: \"" + printable(name) + "\" is no plain name");
  }

  // It may come from sysfs, where other tools write too.
  static std::string printable(std::string_view text) {
    std::string out(text.substr(0, 160));
    std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
    return out;
  }

  Result<std::optional<JournalEntry>> try_acquire(std::string const& name) const {
    EROFS_OCI_TRY_ASSIGN(auto lock, directory_.lock(JournalEntry::lock_file(name)));
    if (!lock) return std::optional<JournalEntry>();
    EROFS_OCI_TRY(directory_.remove(JournalEntry::temporary_file(name)));
    EROFS_OCI_TRY_ASSIGN(auto directory, directory_.clone());
    return std::optional(JournalEntry(std::move(directory), name, *std::move(lock)));
  }

  Error busy(std::string const& name) const {
    auto const record = read(name);
    auto const who = record && record->daemon.pid != 0
                         ? ": its daemon, process " + std::to_string(record->daemon.pid) + ", lives"
                         : ": its daemon lives";
    return {make_error_code(std::errc::device_or_resource_busy), "journal: " + name + who};
  }

  Result<std::vector<std::string>> names(std::vector<std::string_view> const& suffixes) const {
    EROFS_OCI_TRY_ASSIGN(auto const files, directory_.list(), "journal");
    std::vector<std::string> found;
    for (auto const& file : files) {
      for (auto const suffix : suffixes) {
        if (!file.ends_with(suffix)) continue;
        auto name = file.substr(0, file.size() - suffix.size());
        if (is_plain_name(name)) found.push_back(std::move(name));
      }
    }
    std::ranges::sort(found);
    auto const rest = std::ranges::unique(found);
    found.erase(rest.begin(), rest.end());
    return found;
  }

  JournalDirectory directory_;
};

}  // namespace erofs_oci
