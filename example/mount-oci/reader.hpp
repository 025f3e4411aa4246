// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a process becomes one that reads an image and can do little else.
#pragma once

#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/recovery/record.hpp>

#include "confine.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// Opens the way to the registry of `reference`, as options.image may name another one: finds its
/// hosts, holds their certificates open, and starts a helper process that looks up credentials. To
/// be called before become_reader(), which does it for the image itself.
/// @error{as hosts_of(), credentials_of() and HelperProcess::start(), as they say}
[[nodiscard]] Result<void> prepare_registry(ImageOptions& options,
                                            erofs_oci::Reference const& reference, Log const& log);

/// Opens the ways to what reading an image needs, for a process that is to be confined by
/// become_reader() for another image, and adds what it must not lose.
/// @error{as become_reader(), as it says}
[[nodiscard]] Result<void> open_ways(ImageOptions& options, erofs_oci::Record const* record,
                                     Confinement& more, Log const& log);

/// Opens the ways to what reading the image needs, then confines this process as
/// confine_or_fail() does: it may read the files that the options and the record name, reach a
/// registry if the image is in one, and write the index stores. Credentials are looked up by a
/// helper process. To be called while this process has one thread, before it reads anything of the
/// image.
/// @param options  gets that helper and, for root, the path by which its own store is reached
/// @param record   of what was served before; null: nothing
/// @param more     what the command needs besides
/// @error{as confine_or_fail() and HelperProcess::start() say; or the credentials cannot be read}
[[nodiscard]] Result<void> become_reader(ImageOptions& options, erofs_oci::Record const* record,
                                         Confinement more, Log const& log);

}  // namespace mount_oci
