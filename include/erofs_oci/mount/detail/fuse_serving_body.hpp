// SPDX-License-Identifier: Apache-2.0
/// @file
/// What mount/fuse_serving.hpp only declares.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include <sys/mount.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/fuse/fuse_file.hpp>
#include <erofs_oci/fuse/fuse_image.hpp>
#include <erofs_oci/fuse/fuse_tree.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/server.hpp>
#include <erofs_oci/fuse/session.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/mount/fuse_serving.hpp>

namespace erofs_oci {
namespace detail {

[[nodiscard]] inline FuseServeOptions fuse_serve_options(FuseServing const& what) {
  FuseServeOptions options;
  options.threads = what.threads;
  options.read_ahead_kib = static_cast<std::uint32_t>(what.readahead / 1024);
  options.on_stop = what.on_stop;
  options.on_tick = what.on_tick;
  options.leave = what.leave;
  options.on_end = what.on_end;
  options.mount.access = what.access;
  if (what.way == MountWay::fuse_tree) {
    options.mount.flags = what.flags | MS_RDONLY;  // as they would be of the kernel's EROFS
  }
  if (!what.on_failure) return options;
  options.on_failure = [tell = what.on_failure](FuseFailure const& failure) {
    auto text = std::string(failure.operation);
    if (failure.length != 0) text += " of " + std::to_string(failure.length) + " bytes";
    text += failure.nid == 0 ? " of the image" : " of inode " + std::to_string(failure.nid);
    if (failure.length != 0) text += " at offset " + std::to_string(failure.offset);
    tell(text + ": " + failure.error.message());
  };
  return options;
}

[[nodiscard]] inline FuseImageOptions fuse_image_options(FuseServing const& what) {
  FuseImageOptions options;
  options.file.serve = fuse_serve_options(what);
  options.attach.flags = what.flags;
  options.attach.data = what.data;
  options.attach.verity = what.verity;
  return options;
}

/// Serves what a FuseMounter mounts.
template <class Server>
[[nodiscard]] Result<FuseEnd> serve_mounter(FuseMounter const& mounter, FuseServing const& what,
                                            Server& server, std::uint64_t metadata,
                                            std::stop_token stop,
                                            FunctionRef<void(FuseSession&)> ready) {
  EROFS_OCI_TRY_ASSIGN(auto connection, mounter.connect());
  std::stop_source ended;
  std::stop_callback const end(std::move(stop), [&] { ended.request_stop(); });
  std::optional<Error> failed;
  auto const begin = [&](FuseSession& session) {
    auto done = mounter.attach(metadata, what.verity);
    if (!done) {
      failed = std::move(done).error();
      ended.request_stop();
      return;
    }
    if (!done->empty() && what.on_attached) what.on_attached(*done);
    ready(session);
  };
  auto served = server.serve(std::move(connection), ended.get_token(), begin, [] {});
  if (failed) return fail(*std::move(failed));
  return served;
}

}  // namespace detail

EROFS_OCI_BODY Result<FuseEnd> serve_by_fuse(FuseServing const& what, AnySource source,
                                             std::optional<FuseConnection> mounted,
                                             std::stop_token stop,
                                             FunctionRef<void(FuseSession&)> ready) {
  auto serve = detail::fuse_serve_options(what);
  auto const& mounter = what.mounter;
  if (what.way == MountWay::fuse_tree) {
    if (!what.data.empty()) {
      return fail(Errc::invalid_argument,
                  "-o " + what.data + ": fuse-tree does not mount the kernel's EROFS");
    }
    EROFS_OCI_TRY_ASSIGN(auto reader, erofs::Reader<AnySource>::open(std::move(source)));
    FuseTree<AnySource> tree(std::move(reader), std::move(serve));
    if (what.before_requests) what.before_requests();
    if (mounted) return tree.serve(*std::move(mounted), std::move(stop), ready, [] {});
    if (mounter) return detail::serve_mounter(*mounter, what, tree, 0, std::move(stop), ready);
    return tree.run(what.target, std::move(stop), ready);
  }
  auto options = detail::fuse_image_options(what);
  auto const metadata = mounter && !mounted ? erofs_metadata_size(source) : 0;
  if (what.before_requests) what.before_requests();
  if (mounted || mounter) {
    FuseFile<AnySource> file(std::move(source), options.file);
    if (mounted) return file.serve(*std::move(mounted), std::move(stop), ready, [] {});
    return detail::serve_mounter(*mounter, what, file, metadata, std::move(stop), ready);
  }
  FuseImage<AnySource> mount(std::move(source), std::move(options));
  return mount.run(what.target, std::move(stop),
                   [&](AttachedFile const& attached, FuseSession& session) {
                     if (!attached.reason.empty() && what.on_attached) {
                       what.on_attached(attached.device + ": " + attached.reason);
                     }
                     ready(session);
                   });
}

EROFS_OCI_BODY FuseMounter fuse_mounter(FuseServing const& what) {
  FuseMounter mounter;
  if (what.way == MountWay::fuse_tree) {
    auto const options = detail::fuse_serve_options(what);
    mounter.connect = [=, target = what.target] { return mount_fuse(target, options.mount); };
    mounter.attach = [=, target = what.target](std::uint64_t, auto const&) -> Result<std::string> {
      // Only root may; without, reading in sequence takes more requests.
      if (options.read_ahead_kib != 0) {
        static_cast<void>(set_fuse_read_ahead(target, options.read_ahead_kib));
      }
      return std::string();
    };
    return mounter;
  }
  auto const mount = std::make_shared<FuseImageMount>(detail::fuse_image_options(what));
  mounter.connect = [mount] { return mount->connect(); };
  mounter.attach = [mount, target = what.target](
                       std::uint64_t metadata,
                       std::optional<VerityTable> const& verity) -> Result<std::string> {
    EROFS_OCI_TRY_ASSIGN(auto const attached, mount->attach(target, metadata, verity));
    if (attached.reason.empty()) return std::string();
    return attached.device + ": " + attached.reason;
  };
  return mounter;
}

}  // namespace erofs_oci
