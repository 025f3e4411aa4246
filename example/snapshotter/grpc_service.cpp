// SPDX-License-Identifier: Apache-2.0
#include "grpc_service.hpp"

#include <algorithm>
#include <exception>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "refusal.hpp"

namespace oci_snapshotter {

namespace api = containerd::services::snapshots::v1;

using erofs_oci::Errc;
using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

namespace {

/// Infos in a message of the answer to List.
constexpr std::size_t block = 100;

StatusCode code_of(std::error_code code) {
  if (code == Refusal::not_found) return StatusCode::NOT_FOUND;
  if (code == Refusal::already_exists) return StatusCode::ALREADY_EXISTS;
  if (code == Refusal::invalid_argument) return StatusCode::INVALID_ARGUMENT;
  if (code == Refusal::failed_precondition) return StatusCode::FAILED_PRECONDITION;
  if (code == Refusal::unavailable || code == Errc::unavailable || code == Errc::timed_out ||
      code == Errc::stopping) {
    return StatusCode::UNAVAILABLE;
  }
  if (code == std::errc::no_space_on_device) return StatusCode::RESOURCE_EXHAUSTED;
  return StatusCode::UNKNOWN;
}

/// What a call yields, as a status; an exception is no reason to end the program.
template <class Call>
Status answered(Call const& call) {
  auto const done = erofs_oci::without_throwing([&]() -> Result<void> { return call(); });
  return done ? Status::OK : status_of(done.error());
}

template <class Map>
Labels labels_of(Map const& map) {
  return {map.begin(), map.end()};
}

google::protobuf::Timestamp timestamp_of(Time time) {
  auto const seconds = std::chrono::floor<std::chrono::seconds>(time);
  google::protobuf::Timestamp out;
  out.set_seconds(seconds.time_since_epoch().count());
  out.set_nanos(static_cast<std::int32_t>((time - seconds).count()));
  return out;
}

void put(Info const& info, api::Info& out) {
  out.set_name(info.name);
  out.set_parent(info.parent);
  out.set_kind(static_cast<api::Kind>(info.kind));
  *out.mutable_created_at() = timestamp_of(info.created);
  *out.mutable_updated_at() = timestamp_of(info.updated);
  for (auto const& [name, value] : info.labels) (*out.mutable_labels())[name] = value;
}

template <class Response>
void put(std::vector<Mount> const& mounts, Response& response) {
  for (auto const& mount : mounts) {
    auto& out = *response.add_mounts();
    out.set_type(mount.type);
    out.set_source(mount.source);
    for (auto const& option : mount.options) out.add_options(option);
  }
}

}  // namespace

Status status_of(Error const& error) {
  return {code_of(error.code), error.message()};
}

Patience GrpcService::patience_of(ServerContext& context) const {
  using std::chrono::steady_clock;
  auto const now = std::chrono::system_clock::now();
  auto left = std::chrono::duration_cast<steady_clock::duration>(timeout_);
  if (context.deadline() != std::chrono::system_clock::time_point::max()) {
    // Some of it is the answer's way to the client.
    auto const given = context.deadline() - now;
    auto const margin =
        std::min<std::chrono::system_clock::duration>(given / 10, std::chrono::seconds(1));
    left = std::chrono::duration_cast<steady_clock::duration>(given - margin);
  }
  return {steady_clock::now() + left, [&context] { return context.IsCancelled(); }};
}

Status GrpcService::Prepare(ServerContext* context, api::PrepareSnapshotRequest const* request,
                            api::PrepareSnapshotResponse* response) {
  return answered([&]() -> Result<void> {
    EROFS_OCI_TRY_ASSIGN(auto const mounts,
                         snapshotter_.prepare(request->key(), request->parent(),
                                              labels_of(request->labels()), patience_of(*context)));
    put(mounts, *response);
    return {};
  });
}

Status GrpcService::View(ServerContext* context, api::ViewSnapshotRequest const* request,
                         api::ViewSnapshotResponse* response) {
  return answered([&]() -> Result<void> {
    EROFS_OCI_TRY_ASSIGN(auto const mounts,
                         snapshotter_.view(request->key(), request->parent(),
                                           labels_of(request->labels()), patience_of(*context)));
    put(mounts, *response);
    return {};
  });
}

Status GrpcService::Mounts(ServerContext* context, api::MountsRequest const* request,
                           api::MountsResponse* response) {
  return answered([&]() -> Result<void> {
    EROFS_OCI_TRY_ASSIGN(auto const mounts,
                         snapshotter_.mounts(request->key(), patience_of(*context)));
    put(mounts, *response);
    return {};
  });
}

Status GrpcService::Commit(ServerContext*, api::CommitSnapshotRequest const* request,
                           google::protobuf::Empty*) {
  return answered([&] {
    return snapshotter_.commit(request->name(), request->key(), labels_of(request->labels()));
  });
}

Status GrpcService::Remove(ServerContext*, api::RemoveSnapshotRequest const* request,
                           google::protobuf::Empty*) {
  return answered([&] { return snapshotter_.remove(request->key()); });
}

Status GrpcService::Stat(ServerContext*, api::StatSnapshotRequest const* request,
                         api::StatSnapshotResponse* response) {
  return answered([&]() -> Result<void> {
    EROFS_OCI_TRY_ASSIGN(auto const info, snapshotter_.stat(request->key()));
    put(info, *response->mutable_info());
    return {};
  });
}

Status GrpcService::Update(ServerContext*, api::UpdateSnapshotRequest const* request,
                           api::UpdateSnapshotResponse* response) {
  return answered([&]() -> Result<void> {
    // Kind and times are filler; what the mask names besides labels is refused.
    Info wanted;
    wanted.name = request->info().name();
    wanted.labels = labels_of(request->info().labels());
    std::vector<std::string> const paths(request->update_mask().paths().begin(),
                                         request->update_mask().paths().end());
    EROFS_OCI_TRY_ASSIGN(auto const info, snapshotter_.update(wanted, paths));
    put(info, *response->mutable_info());
    return {};
  });
}

Status GrpcService::List(ServerContext*, api::ListSnapshotsRequest const* request,
                         grpc::ServerWriter<api::ListSnapshotsResponse>* writer) {
  return answered([&]() -> Result<void> {
    std::vector<std::string> const texts(request->filters().begin(), request->filters().end());
    EROFS_OCI_TRY_ASSIGN(auto const filters, Filters::parse(texts));
    auto const infos = snapshotter_.list(filters);
    api::ListSnapshotsResponse response;
    for (auto const& info : infos) {
      put(info, *response.add_info());
      if (static_cast<std::size_t>(response.info_size()) < block) continue;
      if (!writer->Write(response)) return {};  // the client has gone
      response.Clear();
    }
    if (response.info_size() != 0) writer->Write(response);
    return {};
  });
}

Status GrpcService::Usage(ServerContext*, api::UsageRequest const* request,
                          api::UsageResponse* response) {
  return answered([&]() -> Result<void> {
    EROFS_OCI_TRY_ASSIGN(auto const use, snapshotter_.usage(request->key()));
    response->set_size(static_cast<std::int64_t>(use.bytes));
    response->set_inodes(static_cast<std::int64_t>(use.inodes));
    return {};
  });
}

Status GrpcService::Cleanup(ServerContext*, api::CleanupRequest const*, google::protobuf::Empty*) {
  return answered([&] { return snapshotter_.cleanup(); });
}

}  // namespace oci_snapshotter
