// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdRelayOptions, and the other types of NbdRelay's interface.
#pragma once

#include <cstddef>
#include <cstdint>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/nbd/protocol.hpp>
#include <erofs_oci/nbd/read_table.hpp>

namespace erofs_oci {

/// A relay's limits.
struct NbdRelayOptions {
  /// Bytes of data in flight; a multiple of 4096, and not less than the longest READ that is to
  /// work. Default: 32 MiB, the longest that the protocol asks for.
  std::size_t arena = nbd::max_payload;
  std::size_t requests = 128;  ///< in flight a socket, 1 to 4096; the kernel has 128
  /// A READ becomes a suspect when so many engines have crashed with it: an engine then gets it
  /// alone.
  unsigned suspect_after = 2;
  /// After so many further crashes the relay answers a suspect with EIO.
  unsigned refuse_after = 3;
};

using nbd::EngineEnd;

/// How a relay ended.
enum class NbdRelayEnd : std::uint8_t {
  disconnected,  ///< the kernel said so
  hung_up,       ///< all its sockets are closed
};

/// What a relay has done so far.
struct NbdRelayCounters {
  std::uint64_t requests = 0;    ///< READs
  std::uint64_t bytes = 0;       ///< of READs that were answered with data
  std::uint64_t errors = 0;      ///< READs that were answered with an error
  std::uint64_t taken_over = 0;  ///< READs that an engine left behind and another one got
};

/// A socket on its way from one relay to another.
struct NbdRelaySocket {
  UniqueFd fd{};
  Bytes unread{};  ///< what was received of a request that is not whole yet
};

}  // namespace erofs_oci
