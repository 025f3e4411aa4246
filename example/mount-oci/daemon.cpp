// SPDX-License-Identifier: Apache-2.0
#include "daemon.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <erofs_oci/fuse/privilege.hpp>
#include <erofs_oci/recovery/service_notifier.hpp>

namespace mount_oci {

using erofs_oci::fail;
using erofs_oci::fail_errno;

void close_all_but(std::vector<int> keep) noexcept {
  std::ranges::sort(keep);
  auto first = static_cast<unsigned>(STDERR_FILENO + 1);
  for (auto const fd : keep) {
    auto const kept = static_cast<unsigned>(fd);
    if (fd < 0 || kept < first) continue;
    if (kept > first) ::close_range(first, kept - 1, 0);
    first = kept + 1;
  }
  ::close_range(first, ~0u, 0);
}

Result<void> leave_caller(std::vector<int> keep) {
  ::setsid();
  UniqueFd const null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return fail_errno(errno, "/dev/null");
  if (::dup2(null.get(), STDIN_FILENO) < 0 || ::dup2(null.get(), STDOUT_FILENO) < 0) {
    return fail_errno(errno, "/dev/null");
  }
  keep.push_back(null.get());  // closed by its owner
  close_all_but(std::move(keep));
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
    return log.say(Level::info, "memory is not locked: how much may be is limited");
  }
  if (::mlockall(MCL_CURRENT) != 0 || ::mlockall(MCL_FUTURE | MCL_ONFAULT) != 0) {
    log.say(Level::info, std::string("memory is not locked: ") + std::strerror(errno));
  }
}

void notify_ready(Log const& log) {
  auto const notifier = erofs_oci::ServiceNotifier::from_environment();
  auto const told = notifier ? notifier->ready() : Result<void>(fail(notifier.error()));
  if (!told) log.say(Level::warning, told.error().message());
}

}  // namespace mount_oci
