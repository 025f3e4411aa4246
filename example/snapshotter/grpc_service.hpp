// SPDX-License-Identifier: Apache-2.0
/// @file
/// GrpcService: containerd's snapshots service on the wire.
#pragma once

#include <chrono>

#include <github.com/containerd/containerd/api/services/snapshots/v1/snapshots.grpc.pb.h>
#include <grpcpp/grpcpp.h>

#include "snapshotter.hpp"

namespace oci_snapshotter {

/// Which code containerd gets for an error.
[[nodiscard]] grpc::Status status_of(Error const& error);

/// Turns messages into calls of a Snapshotter. Uses neither the namespace that a caller may send
/// nor the name by which containerd knows this snapshotter.
class GrpcService final : public containerd::services::snapshots::v1::Snapshots::Service {
 public:
  /// @param snapshotter  borrowed
  /// @param timeout      of calls without a deadline
  GrpcService(Snapshotter& snapshotter, std::chrono::seconds timeout)
      : snapshotter_(snapshotter), timeout_(timeout) {}

  grpc::Status Prepare(
      grpc::ServerContext* context,
      containerd::services::snapshots::v1::PrepareSnapshotRequest const* request,
      containerd::services::snapshots::v1::PrepareSnapshotResponse* response) override;
  grpc::Status View(grpc::ServerContext* context,
                    containerd::services::snapshots::v1::ViewSnapshotRequest const* request,
                    containerd::services::snapshots::v1::ViewSnapshotResponse* response) override;
  grpc::Status Mounts(grpc::ServerContext* context,
                      containerd::services::snapshots::v1::MountsRequest const* request,
                      containerd::services::snapshots::v1::MountsResponse* response) override;
  grpc::Status Commit(grpc::ServerContext* context,
                      containerd::services::snapshots::v1::CommitSnapshotRequest const* request,
                      google::protobuf::Empty* response) override;
  grpc::Status Remove(grpc::ServerContext* context,
                      containerd::services::snapshots::v1::RemoveSnapshotRequest const* request,
                      google::protobuf::Empty* response) override;
  grpc::Status Stat(grpc::ServerContext* context,
                    containerd::services::snapshots::v1::StatSnapshotRequest const* request,
                    containerd::services::snapshots::v1::StatSnapshotResponse* response) override;
  grpc::Status Update(
      grpc::ServerContext* context,
      containerd::services::snapshots::v1::UpdateSnapshotRequest const* request,
      containerd::services::snapshots::v1::UpdateSnapshotResponse* response) override;
  grpc::Status List(grpc::ServerContext* context,
                    containerd::services::snapshots::v1::ListSnapshotsRequest const* request,
                    grpc::ServerWriter<containerd::services::snapshots::v1::ListSnapshotsResponse>*
                        writer) override;
  grpc::Status Usage(grpc::ServerContext* context,
                     containerd::services::snapshots::v1::UsageRequest const* request,
                     containerd::services::snapshots::v1::UsageResponse* response) override;
  grpc::Status Cleanup(grpc::ServerContext* context,
                       containerd::services::snapshots::v1::CleanupRequest const* request,
                       google::protobuf::Empty* response) override;

 private:
  [[nodiscard]] Patience patience_of(grpc::ServerContext& context) const;

  Snapshotter& snapshotter_;
  std::chrono::seconds timeout_;
};

}  // namespace oci_snapshotter
