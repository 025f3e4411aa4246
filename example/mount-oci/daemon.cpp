// SPDX-License-Identifier: Apache-2.0
#include "daemon.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/text_file.hpp>
#include <erofs_oci/recovery/service_notifier.hpp>

namespace mount_oci {

using erofs_oci::fail;
using erofs_oci::fail_errno;

namespace {

/// Reads all of the program and its libraries into memory, for good.
/// @return 0, or an errno
int lock_program() {
  int error = 0;
  auto const lock = [](dl_phdr_info* object, std::size_t, void* result) {
    for (std::size_t i = 0; i < object->dlpi_phnum; ++i) {
      auto const& part = object->dlpi_phdr[i];
      if (part.p_type != PT_LOAD || part.p_filesz == 0) continue;
      // mlock(2) starts at the page; NOLINTNEXTLINE(performance-no-int-to-ptr)
      auto const* const begin = reinterpret_cast<void const*>(object->dlpi_addr + part.p_vaddr);
      if (::mlock(begin, part.p_filesz) != 0) return *static_cast<int*>(result) = errno;
    }
    return 0;
  };
  ::dl_iterate_phdr(lock, &error);
  return error;
}

}  // namespace

Result<void> leave_caller(std::vector<int> keep) {
  ::setsid();
  UniqueFd const null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null || ::dup2(null.get(), STDIN_FILENO) < 0 || ::dup2(null.get(), STDOUT_FILENO) < 0) {
    return fail_errno(errno, "/dev/null");
  }
  keep.push_back(null.get());  // closed by its owner
  erofs_oci::close_all_but(std::move(keep));
  return {};
}

void leave_streams(Log& log) noexcept {
  log.detach();
  UniqueFd const null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (null) ::dup2(null.get(), STDERR_FILENO);
}

void lock_memory(Log const& log) {
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  if (limit.rlim_cur != RLIM_INFINITY && !erofs_oci::has_capability(CAP_IPC_LOCK)) {
    return log.say(Level::info, "memory is not locked: RLIMIT_MEMLOCK limits it");
  }
  // What comes from a file is locked whole, since that file may be on the mount which this process
  // serves. The rest, such as the stacks of threads, MCL_CURRENT would make resident to its last
  // page (8 MiB a thread); it needs no file the first time, and is locked from then on, so that no
  // page of it can go to a swap file on the mount.
  auto const locked = ::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0;
  if (auto const error = locked ? lock_program() : errno; error != 0) {
    log.say(Level::info, std::string("memory is not locked: ") + std::strerror(error));
  }
}

void die_first(Log const& log) {
  constexpr auto file = "/proc/self/oom_score_adj";
  constexpr int high = 500;  // of 1000: counts like half of the machine's memory
  auto const present = erofs_oci::read_text_value(file);
  if (present && std::atoi(present->c_str()) >= high) return;
  auto const raised = erofs_oci::write_text_file(file, std::to_string(high));
  if (!raised) log.say(Level::info, raised.error().message());
}

void notify_ready(Log const& log) {
  auto const notifier = erofs_oci::ServiceNotifier::from_environment();
  auto const told = notifier ? notifier->ready() : Result<void>(fail(notifier.error()));
  if (!told) log.say(Level::warning, told.error().message());
}

}  // namespace mount_oci
