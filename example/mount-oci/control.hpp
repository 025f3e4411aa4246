// SPDX-License-Identifier: Apache-2.0
/// @file
/// Questions to the process that keeps a mount, over a socket beside its record.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "client_sockets.hpp"
#include "process.hpp"

namespace mount_oci {

/// The socket of a record.
[[nodiscard]] std::string control_path(std::string const& directory, std::string const& name);

/// Yields the answer; or takes `client` away, to answer it in time.
using ControlAnswer = std::function<std::string(std::string_view question, UniqueFd& client)>;

/// Answers questions, one packet each way. Listens for this user alone (0600); a socket that was
/// left there is replaced.
/// @error{Errc::invalid_argument, the path is too long for a socket}
/// @error{an errno, as bind(2)}
[[nodiscard]] Result<ClientSockets> listen_control(std::string const& path, ControlAnswer answer);

/// A connection on which a question is sent and the answer is awaited.
/// @error{an errno, as connect(2): nobody listens}
[[nodiscard]] Result<UniqueFd> send_question(std::string const& path, std::string_view question,
                                             std::chrono::seconds patience);

/// Asks and waits for the answer, at most 2 seconds.
/// @error{an errno, as connect(2): nobody listens}
/// @error{Errc::timed_out, no answer}
[[nodiscard]] Result<std::string> ask_control(std::string const& path, std::string_view question);

}  // namespace mount_oci
