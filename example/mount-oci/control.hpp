// SPDX-License-Identifier: Apache-2.0
/// @file
/// Questions to the process that keeps a mount, over a socket beside its record.
#pragma once

#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <poll.h>

#include "process.hpp"

namespace mount_oci {

/// The socket of a record.
[[nodiscard]] std::string control_path(std::string const& directory, std::string const& name);

/// Answers questions, one packet each way. For one thread's poll(2) loop; never blocks.
class ControlSocket {
 public:
  /// Yields the answer; or takes `client` away, to answer it in time.
  using Answer = std::function<std::string(std::string_view question, UniqueFd& client)>;

  /// Answers nothing.
  ControlSocket() = default;

  /// Listens for this user alone (0600); a socket that was left there is replaced.
  /// @error{Errc::invalid_argument, the path is too long for a socket}
  /// @error{an errno, as bind(2)}
  [[nodiscard]] static Result<ControlSocket> listen(std::string path, Answer answer);

  ControlSocket(ControlSocket&&) = default;
  ControlSocket& operator=(ControlSocket&& other) noexcept;
  ~ControlSocket();

  /// Adds what to wait for.
  void watch(std::vector<pollfd>& fds) const;

  /// How many descriptors watch() adds.
  [[nodiscard]] std::size_t count() const noexcept { return clients_.size() + 1; }

  /// Does what can be done; `fds` are those of watch().
  void act(std::span<pollfd const> fds);

 private:
  static constexpr std::size_t most_clients = 16;

  std::string path_;
  Answer answer_;
  UniqueFd listener_;
  std::vector<UniqueFd> clients_;
};

/// A connection on which a question is sent and the answer is awaited.
/// @error{an errno, as connect(2): nobody listens}
[[nodiscard]] Result<UniqueFd> send_question(std::string const& path, std::string_view question,
                                             std::chrono::seconds patience);

/// Asks and waits for the answer, at most 2 seconds.
/// @error{an errno, as connect(2): nobody listens}
/// @error{Errc::timed_out, no answer}
[[nodiscard]] Result<std::string> ask_control(std::string const& path, std::string_view question);

}  // namespace mount_oci
