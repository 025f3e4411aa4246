// SPDX-License-Identifier: Apache-2.0
#include "apart.hpp"

#include <cerrno>
#include <cstdlib>
#include <utility>

#include <unistd.h>

#include <erofs_oci/recovery/process.hpp>

namespace mount_oci {

using erofs_oci::fail;
using erofs_oci::fail_errno;

Result<void> Apart::begin(std::function<bool()> const& work, std::function<void(bool)> done) {
  auto const child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child == 0) std::_Exit(work() ? 0 : 1);
  auto pidfd = erofs_oci::open_pidfd(child);
  if (!pidfd) return fail(std::move(pidfd).error());
  pidfd_ = *std::move(pidfd);
  done_ = std::move(done);
  return {};
}

void Apart::finish() {
  auto const exit = erofs_oci::reap(pidfd_);
  if (exit && !*exit) return;
  pidfd_.reset();
  auto const done = std::exchange(done_, {});
  done(exit && (*exit)->status == 0);
}

}  // namespace mount_oci
