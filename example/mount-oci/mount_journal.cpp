// SPDX-License-Identifier: Apache-2.0
#include "mount_journal.hpp"

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include <unistd.h>

namespace mount_oci {

using erofs_oci::fail;

Result<std::string> journal_directory(Options const& options) {
  if (!options.journal.empty()) return options.journal;
  if (::geteuid() == 0) return std::string(erofs_oci::default_journal_directory);
  auto const* const runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime == '/') return std::string(runtime) + "/erofs_oci";
  return fail(erofs_oci::explain(
      Errc::unsupported,
      "XDG_RUNTIME_DIR is not set: name the directory of the records of mounts by --journal"));
}

Result<std::string> journal_path(Options const& options) {
  EROFS_OCI_TRY_ASSIGN(auto const path, journal_directory(options));
  std::error_code error;
  auto const absolute = std::filesystem::absolute(path, error);
  if (error) return fail(error, path);
  return absolute.string();
}

MountJournal MountJournal::begin(Options const& options, std::string const& name, Log const& log) {
  auto made = [&]() -> Result<MountJournal> {
    EROFS_OCI_TRY_ASSIGN(auto path, journal_path(options));
    EROFS_OCI_TRY_ASSIGN(auto const journal, erofs_oci::Journal::open(path));
    EROFS_OCI_TRY_ASSIGN(auto entry, journal.acquire(name));
    return resume(std::move(path), std::move(entry));
  }();
  if (made) return *std::move(made);
  auto const asked_for = !options.journal.empty() || ::geteuid() == 0;
  log.say(asked_for ? Level::warning : Level::info,
          "the mount has no record: " + made.error().message());
  return {};
}

Result<void> MountJournal::write(erofs_oci::Record const& record) {
  return entry_ ? entry_->write(record) : Result<void>();
}

Result<void> MountJournal::rename(std::string const& name) {
  return entry_ ? entry_->rename(name) : Result<void>();
}

void MountJournal::remove(Log const& log) {
  if (!entry_) return;
  auto const done = std::move(*entry_).remove();
  entry_.reset();
  if (!done) log.say(Level::warning, "cannot remove the record: " + done.error().message());
}

}  // namespace mount_oci
