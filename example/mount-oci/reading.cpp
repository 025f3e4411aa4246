// SPDX-License-Identifier: Apache-2.0
#include "reading.hpp"

#include <system_error>

namespace mount_oci {
namespace {

using erofs_oci::fail;

Result<Status> dispatch(Reading const& reading) {
  switch (reading.options.command) {
    case Command::index: return run_index(reading);
    case Command::ls: return run_ls(reading);
    case Command::cat: return run_cat(reading);
    case Command::stat: return run_stat(reading);
    case Command::find: return run_find(reading);
    case Command::extract: return run_extract(reading);
    case Command::fsck: return run_fsck(reading);
    case Command::image: return run_image(reading);
    default: break;
  }
  return fail(Errc::invalid_argument, "no command that reads an image");
}

}  // namespace

bool is_about_path(Error const& error) {
  for (auto const code : {std::errc::no_such_file_or_directory, std::errc::not_a_directory,
                          std::errc::is_a_directory, std::errc::too_many_symbolic_link_levels,
                          std::errc::filename_too_long, std::errc::invalid_argument}) {
    if (error.code == std::make_error_code(code)) return true;
  }
  return false;
}

Result<Status> run_reading(Options const& options, Log& log) {
  auto const signals = Signals::take();
  if (!signals) return fail(signals.error());
  auto const guard = ExitOnSignal::make(*signals);
  if (!guard) return fail(guard.error());
  Output output;
  auto status = dispatch({options, log, *guard, output});
  auto const flushed = output.flush();
  if (status && !flushed) return fail(flushed.error());
  return status;
}

}  // namespace mount_oci
