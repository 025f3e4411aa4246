// SPDX-License-Identifier: Apache-2.0
#include "reading.hpp"

#include <cerrno>
#include <stop_token>
#include <system_error>
#include <utility>

#include <sys/stat.h>

#include "copy_command.hpp"
#include "reader.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;

Result<Status> dispatch(Reading const& reading) {
  switch (reading.options.command) {
    case Command::index: return run_index(reading);
    case Command::ls: return run_ls(reading);
    case Command::cat: return run_cat(reading);
    case Command::stat: return run_stat(reading);
    case Command::find: return run_find(reading);
    case Command::tree: return run_tree(reading);
    case Command::du: return run_du(reading);
    case Command::diff: return run_diff(reading);
    case Command::cp: return run_cp(reading);
    case Command::extract: return run_extract(reading);
    case Command::fsck: return run_fsck(reading);
    case Command::image: return run_image(reading);
    case Command::doctor: return run_doctor(reading);
    case Command::pull: return run_pull(reading);
    case Command::verify: return run_verify(reading);
    default: break;
  }
  return fail(Errc::invalid_argument, "no command that reads an image");
}

/// What a command does besides reading the image. Makes the directory that it writes to.
Result<Confinement> needs_of(Options& options) {
  Confinement needs;
  auto& read = options.read;
  auto const copies = options.command == Command::cp;
  if (copies) EROFS_OCI_TRY(prepare_copy(read));
  auto const extracts = (options.command == Command::extract || copies) && !read.tar;
  auto const layout = options.push.dry_run ? std::string() : options.push.layout;
  auto const& target = extracts ? read.directory : layout.empty() ? read.output : layout;
  if (target.empty()) return needs;
  if (::mkdir(target.c_str(), 0777) != 0 && errno != EEXIST) return fail_errno(errno, target);
  needs.own_user = false;
  needs.makes_files = extracts;
  needs.writes.push_back(target);
  return needs;
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

Result<Status> run_reading(Options const& given, Log& log) {
  auto options = given;
  erofs_oci::HostSupport host;
  if (options.command == Command::doctor) {
    host = erofs_oci::probe_host();
    options.image.cache_dir = "none";  // it is the registry that is looked at
  }
  if (options.command == Command::verify) EROFS_OCI_TRY(prepare_verify(options));
  EROFS_OCI_TRY_ASSIGN(auto needs, needs_of(options));
  EROFS_OCI_TRY_ASSIGN(auto const push, prepare_push(options, log));
  if (push || options.read.verity) {
    // Only what this user has read is told to others, or vouched for.
    options.image.take_no_index();
  }
  if (options.push.push) needs.network = true;
  if (options.other) EROFS_OCI_TRY(open_ways(*options.other, nullptr, needs, log));
  EROFS_OCI_TRY(become_reader(options.image, nullptr, std::move(needs), log));
  EROFS_OCI_TRY_ASSIGN(auto const signals, Signals::take());
  EROFS_OCI_TRY_ASSIGN(auto const guard, ExitOnSignal::make(signals));
  std::stop_callback const end(guard.stop_token(),
                               [&] { options.image.access.requests.request_stop(); });
  Output output;
  auto status = dispatch({options, log, guard, output, host, push ? &*push : nullptr});
  auto const flushed = output.flush();
  if (status && !flushed) return fail(flushed.error());
  return status;
}

}  // namespace mount_oci
