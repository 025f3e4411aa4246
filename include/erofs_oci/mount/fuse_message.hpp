// SPDX-License-Identifier: Apache-2.0
/// @file
/// A FUSE connection as a message between processes.
#pragma once

#include <utility>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/memory_file.hpp>

namespace erofs_oci {

/// A copy of the connection as a message of that kind.
/// @error{an errno, as fcntl(2) and memfd_create(2)}
[[nodiscard]] inline Result<MountMessage> to_message(MountMessage::Kind kind,
                                                     FuseConnection const& connection) {
  EROFS_OCI_TRY_ASSIGN(auto device, duplicate(connection.device.get()));
  EROFS_OCI_TRY_ASSIGN(auto inflight, duplicate(connection.inflight.get()));
  EROFS_OCI_TRY_ASSIGN(auto opening, to_memory_file(connection.opening));
  MountMessage message{kind, {}, {}, {}};
  message.fds.push_back(std::move(device));
  message.fds.push_back(std::move(opening));
  message.fds.push_back(std::move(inflight));
  return message;
}

/// The connection in a message.
/// @error{Errc::protocol, the message holds none}
[[nodiscard]] inline Result<FuseConnection> connection_of(MountMessage message) {
  if (message.fds.size() != 3) return fail(Errc::protocol, "no FUSE connection");
  EROFS_OCI_TRY_ASSIGN(auto opening, from_memory_file(message.fds[1]));
  return FuseConnection{std::move(message.fds[0]), std::move(opening), std::move(message.fds[2])};
}

}  // namespace erofs_oci
