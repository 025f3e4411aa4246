// SPDX-License-Identifier: Apache-2.0
#include "fuse_handover.hpp"

#include <cerrno>
#include <utility>

#include <fcntl.h>

#include "memory_file.hpp"

namespace mount_oci {

using erofs_oci::fail;
using erofs_oci::fail_errno;

Result<Message> to_message(Message::Kind kind, erofs_oci::FuseConnection const& connection) {
  UniqueFd device(::fcntl(connection.device.get(), F_DUPFD_CLOEXEC, 3));
  UniqueFd inflight(::fcntl(connection.inflight.get(), F_DUPFD_CLOEXEC, 3));
  if (!device || !inflight) return fail_errno(errno, "dup");
  auto opening = to_memory_file(connection.opening);
  if (!opening) return fail(std::move(opening).error());
  Message message{kind, {}, {}, {}};
  message.fds.push_back(std::move(device));
  message.fds.push_back(*std::move(opening));
  message.fds.push_back(std::move(inflight));
  return message;
}

Result<erofs_oci::FuseConnection> connection_of(Message message) {
  if (message.fds.size() != 3) return fail(Errc::protocol, "no FUSE connection");
  auto opening = from_memory_file(message.fds[1]);
  if (!opening) return fail(std::move(opening).error());
  return erofs_oci::FuseConnection{std::move(message.fds[0]), *std::move(opening),
                                   std::move(message.fds[2])};
}

}  // namespace mount_oci
