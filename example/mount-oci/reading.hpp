// SPDX-License-Identifier: Apache-2.0
/// @file
/// The commands that read an image without mounting it.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <erofs_oci/host/host_support.hpp>

#include "image.hpp"
#include "matching_paths.hpp"
#include "options.hpp"
#include "output.hpp"
#include "process.hpp"
#include "push_index.hpp"

namespace mount_oci {

/// What such a command gets.
struct Reading {
  Options const& options;
  Log& log;
  ExitOnSignal const& guard;
  Output& output;
  erofs_oci::HostSupport host{};     ///< found before this process was confined; for doctor alone
  PushTarget const* push = nullptr;  ///< null: nothing is pushed; for index alone

  /// The image's files.
  [[nodiscard]] Result<ImageReader> open() const { return open_reader(options.image, log, &guard); }

  /// Logs an error that does not end the command.
  void complain(Error const& error) const { log.say(Level::error, error.message()); }
};

/// An exit status: 0, or 1 if something was not found or is not as it should be; of diff, as
/// diff(1) has it.
using Status = int;

/// Whether an error is about the path that was asked for, not about the image.
[[nodiscard]] bool is_about_path(Error const& error);

/// @name One a command; each writes to `output` and may leave the end of it in the buffer.
/// @{

[[nodiscard]] Result<Status> run_index(Reading const& reading);
[[nodiscard]] Result<Status> run_ls(Reading const& reading);
[[nodiscard]] Result<Status> run_cat(Reading const& reading);
[[nodiscard]] Result<Status> run_stat(Reading const& reading);
[[nodiscard]] Result<Status> run_find(Reading const& reading);
[[nodiscard]] Result<Status> run_tree(Reading const& reading);
[[nodiscard]] Result<Status> run_du(Reading const& reading);
[[nodiscard]] Result<Status> run_diff(Reading const& reading);
[[nodiscard]] Result<Status> run_cp(Reading const& reading);
[[nodiscard]] Result<Status> run_extract(Reading const& reading);
[[nodiscard]] Result<Status> run_fsck(Reading const& reading);
[[nodiscard]] Result<Status> run_image(Reading const& reading);
[[nodiscard]] Result<Status> run_doctor(Reading const& reading);
[[nodiscard]] Result<Status> run_pull(Reading const& reading);
[[nodiscard]] Result<Status> run_verify(Reading const& reading);
/// @}

/// Before `verify` is confined: where its image is a directory at which one is mounted, names that
/// by its digest, and reaches it as the mount does.
/// @error{Errc::not_found, a directory where nothing is mounted}
/// @error{as options_by_digest(), as there}
[[nodiscard]] Result<void> prepare_verify(Options& options);

/// The paths that were given, and those that match the patterns that were given; or "/".
/// @error{as matching_paths(), as it says}
[[nodiscard]] inline Result<std::vector<std::string>> paths_of(Reading const& reading,
                                                               ImageReader const& reader) {
  auto const& given = reading.options.read.paths;
  if (given.empty()) return std::vector<std::string>{"/"};
  std::vector<std::string> paths;
  for (auto const& pattern : given) {
    EROFS_OCI_TRY_ASSIGN(auto const found, matching_paths(reader, pattern));
    paths.insert(paths.end(), found.begin(), found.end());
  }
  return paths;
}

/// Calls `one` for each of paths_of(). Reports a path that does not exist, and goes on with the
/// others.
/// @param one  `(std::string const& path) -> Result<Status>`
template <class Do>
[[nodiscard]] Result<Status> for_each_path(Reading const& reading, ImageReader const& reader,
                                           Do const& one) {
  EROFS_OCI_TRY_ASSIGN(auto const paths, paths_of(reading, reader));
  Status status = 0;
  for (auto const& path : paths) {
    auto const done = one(path);
    if (!done && !is_about_path(done.error())) return erofs_oci::fail(done.error());
    if (!done) reading.complain(done.error());
    status = std::max(status, done.value_or(1));
  }
  return status;
}

/// Runs the command that `options` names; a signal ends it.
[[nodiscard]] Result<Status> run_reading(Options const& options, Log& log);

}  // namespace mount_oci
