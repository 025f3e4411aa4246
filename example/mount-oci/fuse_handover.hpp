// SPDX-License-Identifier: Apache-2.0
/// @file
/// A FUSE connection on its way from one process to another.
#pragma once

#include <erofs_oci/fuse/mount.hpp>

#include "link.hpp"

namespace mount_oci {

/// A copy of the connection as a message of that kind.
/// @error{an errno, as fcntl(2) and memfd_create(2)}
[[nodiscard]] Result<Message> to_message(Message::Kind kind,
                                         erofs_oci::FuseConnection const& connection);

/// The connection that comes with a message.
/// @error{Errc::protocol, none does}
[[nodiscard]] Result<erofs_oci::FuseConnection> connection_of(Message message);

}  // namespace mount_oci
