// SPDX-License-Identifier: Apache-2.0
/// @file
/// The record of a mount, for a takeover or handover.
#pragma once

#include <optional>
#include <string>

#include <erofs_oci/recovery/journal.hpp>
#include <erofs_oci/recovery/record.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Where this user's records are: as the options say, else /run/erofs_oci for root and
/// $XDG_RUNTIME_DIR/erofs_oci for others.
/// @error{Errc::unsupported, neither is known}
[[nodiscard]] Result<std::string> journal_directory(Options const& options);

/// The same as an absolute path.
/// @error{as journal_directory() says}
[[nodiscard]] Result<std::string> journal_path(Options const& options);

/// Where the indexes of one mount are that are in no store.
/// @param backend  identifier of the mount; of another tool's path, its last component counts
[[nodiscard]] inline std::string index_directory(std::string const& journal,
                                                 std::string const& backend) {
  return journal + "/" + backend.substr(backend.rfind('/') + 1) + ".index";
}

/// A mount's record, on disk if there is a place for it.
class MountJournal {
 public:
  /// Nowhere.
  MountJournal() = default;

  /// For a new mount, under a name that is good until the device is known. Where there is no place
  /// for records, one that keeps nothing; `log` is told.
  [[nodiscard]] static MountJournal begin(Options const& options, std::string const& name,
                                          Log const& log);

  /// For a mount that was there before.
  [[nodiscard]] static MountJournal resume(std::string directory, erofs_oci::JournalEntry entry) {
    MountJournal journal;
    journal.directory_ = std::move(directory);
    journal.entry_ = std::move(entry);
    return journal;
  }

  /// Whether anything is written.
  [[nodiscard]] bool keeps() const noexcept { return entry_.has_value(); }

  /// The directory, absolute, or empty.
  [[nodiscard]] std::string const& directory() const noexcept { return directory_; }

  /// The name of the record, or empty.
  [[nodiscard]] std::string name() const { return entry_ ? entry_->name() : std::string(); }

  /// @error{as erofs_oci::JournalEntry says}
  [[nodiscard]] Result<void> write(erofs_oci::Record const& record);
  [[nodiscard]] Result<void> rename(std::string const& name);

  /// To be called when the mount has ended: removes the record.
  void remove(Log const& log);

 private:
  std::string directory_;
  std::optional<erofs_oci::JournalEntry> entry_;
};

}  // namespace mount_oci
