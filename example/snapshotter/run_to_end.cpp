// SPDX-License-Identifier: Apache-2.0
#include "run_to_end.hpp"

#include <cerrno>
#include <system_error>
#include <thread>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/posix/memory_file.hpp>
#include <erofs_oci/posix/program.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace oci_snapshotter {

using erofs_oci::Errc;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::Result;
using erofs_oci::UniqueFd;
using namespace std::chrono_literals;

namespace {

/// What a program writes goes to a file in memory and not to a pipe, whose end the processes that
/// serve a mount might keep.
Result<UniqueFd> memory_file(char const* name) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd) return fail_errno(errno, "memfd_create");
  return fd;
}

Result<void> rewind(UniqueFd const& fd) {
  if (::lseek(fd.get(), 0, SEEK_SET) < 0) return fail_errno(errno, "lseek");
  return {};
}

Result<std::string> written(UniqueFd const& fd, std::string const& program) {
  EROFS_OCI_TRY(rewind(fd));
  return erofs_oci::read_text(fd, "what " + program + " says", 16u << 20);
}

std::string last_line(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  return std::string(text.substr(text.rfind('\n') + 1));
}

}  // namespace

Result<ProgramOutcome> run_to_end(std::vector<std::string> words, ProgramInput const& input,
                                  std::stop_token const& stop) {
  auto const program = words.front();
  EROFS_OCI_TRY_ASSIGN(auto const in, erofs_oci::to_memory_file(erofs_oci::as_bytes(input.text)));
  EROFS_OCI_TRY_ASSIGN(auto const out, memory_file("out"));
  EROFS_OCI_TRY_ASSIGN(auto const errors, memory_file("errors"));
  EROFS_OCI_TRY(rewind(in));
  EROFS_OCI_TRY_ASSIGN(
      auto child, erofs_oci::ChildProgram::start(std::move(words),
                                                 {.descriptors = {{in.get(), STDIN_FILENO},
                                                                  {out.get(), STDOUT_FILENO},
                                                                  {errors.get(), STDERR_FILENO}},
                                                  .variables = input.variables}));
  for (;;) {
    EROFS_OCI_TRY_ASSIGN(auto const status, child.poll(), program);
    if (status) {
      EROFS_OCI_TRY_ASSIGN(auto said, written(out, program));
      EROFS_OCI_TRY_ASSIGN(auto complaint, written(errors, program));
      return ProgramOutcome{*status, std::move(said), std::move(complaint)};
    }
    if (stop.stop_requested()) return fail(Errc::stopping, program);
    if (std::chrono::steady_clock::now() >= input.deadline) return fail(Errc::timed_out, program);
    std::this_thread::sleep_for(5ms);
  }
}

Result<std::string> output_of(ProgramOutcome outcome, std::string const& what) {
  if (outcome.status == 0) return std::move(outcome.output);
  return tl::unexpected(erofs_oci::explain(
      make_error_code(std::errc::io_error),
      outcome.errors.empty() ? what + ": ended with status " + std::to_string(outcome.status)
                             : last_line(outcome.errors)));
}

}  // namespace oci_snapshotter
