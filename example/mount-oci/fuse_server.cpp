// SPDX-License-Identifier: Apache-2.0
#include "fuse_server.hpp"

#include <utility>

#include <sys/mount.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/fuse/fuse_file.hpp>
#include <erofs_oci/fuse/fuse_image.hpp>
#include <erofs_oci/fuse/fuse_tree.hpp>

#include "image.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::fail;
using erofs_oci::FuseConnection;
using erofs_oci::FuseEnd;
using erofs_oci::FuseSession;
using Ready = erofs_oci::FunctionRef<void(FuseSession&)>;

erofs_oci::FuseServeOptions serve_options(FuseServing const& what, Log const& log) {
  erofs_oci::FuseServeOptions options;
  options.threads = what.threads;
  options.read_ahead_kib = static_cast<std::uint32_t>(what.readahead / 1024);
  options.on_stop = what.on_stop;
  options.on_tick = what.on_tick;
  options.on_failure = [&what, &log](erofs_oci::FuseFailure const& failure) {
    auto text = std::string(failure.operation);
    if (failure.length != 0) text += " of " + std::to_string(failure.length) + " bytes";
    text += failure.nid == 0 ? " of the image" : " of inode " + std::to_string(failure.nid);
    if (failure.length != 0) text += " at offset " + std::to_string(failure.offset);
    text += ": " + failure.error.message();
    log.say(Level::error, text);
    if (what.on_failure) what.on_failure(text);
  };
  return options;
}

/// For who leaves the mount to another server.
constexpr auto ignore_stop = [] {};

Result<FuseEnd> serve_tree(FuseServing const& what, AnySource source,
                           std::optional<FuseConnection> mounted, std::stop_token stop, Ready ready,
                           Log const& log) {
  if (!what.data.empty()) {
    return fail(Errc::invalid_argument,
                "-o " + what.data + ": fuse-tree does not mount the kernel's EROFS");
  }
  auto reader = ImageReader::open(std::move(source));
  if (!reader) return fail(std::move(reader).error());
  auto options = serve_options(what, log);
  options.mount.flags = what.flags | MS_RDONLY;  // as they would be of the kernel's EROFS
  erofs_oci::FuseTree<AnySource> tree(*std::move(reader), std::move(options));
  if (!mounted) return tree.run(what.target, std::move(stop), ready);
  return tree.serve(*std::move(mounted), std::move(stop), ready, ignore_stop);
}

Result<FuseEnd> serve_file(FuseServing const& what, AnySource source,
                           std::optional<FuseConnection> mounted, std::stop_token stop, Ready ready,
                           Log const& log) {
  erofs_oci::FuseImageOptions options;
  options.file.serve = serve_options(what, log);
  options.attach.flags = what.flags;
  options.attach.data = what.data;
  if (mounted) {
    erofs_oci::FuseFile<AnySource> file(std::move(source), options.file);
    return file.serve(*std::move(mounted), std::move(stop), ready, ignore_stop);
  }
  erofs_oci::FuseImage<AnySource> mount(std::move(source), std::move(options));
  return mount.run(what.target, std::move(stop),
                   [&](erofs_oci::AttachedFile const& attached, FuseSession& session) {
                     if (!attached.reason.empty()) {
                       log.say(Level::info, attached.device + ": " + attached.reason);
                     }
                     ready(session);
                   });
}

}  // namespace

Result<FuseEnd> serve_by_fuse(FuseServing const& what, erofs_oci::DeviceImage image,
                              std::optional<FuseConnection> mounted, std::stop_token stop,
                              Ready ready, Log const& log) {
  auto const tree = what.way == erofs_oci::MountWay::fuse_tree;
  return (tree ? serve_tree : serve_file)(what, std::move(image.source), std::move(mounted),
                                          std::move(stop), ready, log);
}

}  // namespace mount_oci
