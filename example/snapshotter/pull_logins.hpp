// SPDX-License-Identifier: Apache-2.0
/// @file
/// PullLogins: the logins that came with pulls.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace oci_snapshotter {

/// A user name and a secret, or, under the name `<token>`, an identity token: as Docker's
/// credential helpers give them.
struct Login {
  std::string username;
  std::string secret;

  friend bool operator==(Login const&, Login const&) = default;
};

/// Logins by the image that was pulled with them, in memory alone. Of a repository the newest one
/// counts. A login is used for the repository that it was sent for and no other one of its
/// registry: a user who may pull from one repository need not be allowed to pull from the others.
///
/// @par Thread safety
/// All members, from any thread.
class PullLogins {
 public:
  /// Most images whose logins are kept. The oldest ones go.
  static constexpr std::size_t most = 4096;

  /// Takes a login for a pull that begins.
  /// @param image  as the client calls it
  /// @return  the pull's number; 0 if there is no such image
  std::uint64_t begin(std::string_view image, Login login);

  /// The pull has succeeded: earlier logins for the same image go.
  /// @param id  by which the image may be removed later
  void keep(std::uint64_t pull, std::string id);

  /// The pull has failed, and with it perhaps the login.
  void drop(std::uint64_t pull);

  /// The image was removed.
  /// @param image  its name or id
  void forget(std::string_view image);

  /// @param repository  as Reference::repository_name()
  [[nodiscard]] std::optional<Login> find(std::string_view repository) const;

  [[nodiscard]] std::size_t size() const;

 private:
  struct Pull {
    std::uint64_t number;
    std::string image;       ///< Reference::to_string()
    std::string repository;  ///< Reference::repository_name()
    std::string id{};
    Login login;
  };

  mutable std::mutex mutex_;
  std::deque<Pull> pulls_;  // the newest one last
  std::uint64_t last_ = 0;
};

}  // namespace oci_snapshotter
