// SPDX-License-Identifier: Apache-2.0
/// @file
/// ImageProxy: kubelet's calls for images, handed on to containerd.
#pragma once

#include <memory>
#include <string>

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "pull_logins.hpp"

namespace oci_snapshotter {

/// Hands on the bytes of every method of Kubernetes' container runtime interface, whatever the
/// version, in both directions. Looks only into PullImage, for the login, and into RemoveImage.
///
/// @par Thread safety
/// As gRPC calls it. Outlives the server that it is registered with.
class ImageProxy final : public grpc::CallbackGenericService {
 public:
  /// @param address  of containerd, a unix socket
  /// @param logins   borrowed
  ImageProxy(std::string const& address, PullLogins& logins);

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override;

 private:
  grpc::GenericStub stub_;
  PullLogins& logins_;
};

}  // namespace oci_snapshotter
