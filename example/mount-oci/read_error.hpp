// SPDX-License-Identifier: Apache-2.0
/// @file
/// The message about a read that failed.
#pragma once

#include <cstdint>
#include <string>

#include "process.hpp"

namespace mount_oci {

/// Logs a failed read of the image.
inline void log_read_error(Log const& log, std::uint64_t offset, std::uint32_t length,
                           Error const& error) {
  log.say(Level::error, "read of " + std::to_string(length) + " bytes at offset " +
                            std::to_string(offset) + ": " + error.message());
}

}  // namespace mount_oci
