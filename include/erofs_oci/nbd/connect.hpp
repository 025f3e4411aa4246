// SPDX-License-Identifier: Apache-2.0
/// @file
/// Export and NbdConnect: what a server serves, and where its sockets come from.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/protocol.hpp>

namespace erofs_oci {

/// What a client sees of a source.
struct Export {
  std::string name{};         ///< at most 4096 bytes; the empty name always means this export too
  std::string description{};  ///< for people; at most 4096 bytes
  std::uint64_t size = 0;     ///< bytes
  /// Where the fill with zeros up to `size` begins, for base:allocation. Default: nowhere.
  std::uint64_t zeros_from = std::numeric_limits<std::uint64_t>::max();
  std::uint16_t flags = nbd::export_flags;  ///< nbd::transmission_flag
  /// The read size, in bytes, that suits the source. A power of 2 in [512, 32 MiB].
  std::uint32_t preferred_block = 4096;
};

/// What the two sides of one socket have agreed on.
struct Negotiated {
  bool structured = false;       ///< replies are chunks
  bool base_allocation = false;  ///< BLOCK_STATUS was asked for; needs `structured`
  /// How long a session waits for a client that takes no byte of a reply; 0: for ever.
  std::chrono::milliseconds send_timeout{0};
};

/// Makes the sockets that NbdServer serves.
///
/// The server calls, on one thread, attach(), and where it `listens` again until it yields an empty
/// vector; and detach() once at most, when it is to end while a socket still lives. negotiate() is
/// const: it is called on each socket's own thread, so that a slow client delays no other one.
///   - `listens`: clients connect, at any time, so that the server is ready before attach() has
///     returned once. Else the sockets are those of a device of the kernel, which does not
///     negotiate
///   - attach(export, stop): one or more new sockets, waiting for them if need be; empty: no more
///     will come, or `stop` was asked for
///   - negotiate(fd, export, stop): does the handshake with the peer; empty: the peer has ended it
///     as the protocol says
///   - detach(): gives back what attach() took, and disconnects a kernel device
template <class C>
concept NbdConnect =
    requires(C& connect, C const& shared, Export const& served, std::stop_token stop, int fd) {
      { C::listens } -> std::convertible_to<bool>;
      { connect.attach(served, stop) } -> std::same_as<Result<std::vector<UniqueFd>>>;
      { shared.negotiate(fd, served, stop) } -> std::same_as<Result<std::optional<Negotiated>>>;
      { connect.detach() } noexcept;
    } && std::movable<C>;

}  // namespace erofs_oci
