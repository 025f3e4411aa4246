// SPDX-License-Identifier: Apache-2.0
/// @file
/// LoginService and the credential helper that asks it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include <grpcpp/grpcpp.h>
#include <oci_snapshotter.grpc.pb.h>

#include "pull_logins.hpp"

namespace oci_snapshotter {

/// Gives logins to the helper. A login is given only to the host that its repository names.
class LoginService final : public wire::Logins::Service {
 public:
  using Lookup = std::function<std::optional<Login>(std::string const& repository)>;

  explicit LoginService(Lookup find) : find_(std::move(find)) {}

  grpc::Status Find(grpc::ServerContext* context, wire::FindLogin const* request,
                    wire::FoundLogin* response) override;

 private:
  Lookup find_;
};

/// What docker-credential-oci-snapshotter does: `get` reads a registry's name from standard input
/// and prints the login for it. Blocks for ten seconds at most.
/// @return  the exit status
/// @spec{docker-credential-helpers 0.8, the protocol of `get`}
[[nodiscard]] int run_credential_helper(std::string const& verb);

}  // namespace oci_snapshotter
