// SPDX-License-Identifier: Apache-2.0
/// @file
/// A process that keeps the privileges which this one gives up, for a few things that it does on
/// request.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/mount/fuse_serving.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/oci/auth.hpp>

#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// A forked process that answers questions. It ends with the last copy of this object, also when
/// this process is killed.
///
/// @par Thread safety
/// ask(), from any thread; one question at a time.
class HelperProcess {
 public:
  using Message = erofs_oci::MountMessage;

  /// To be called while this process has one thread. The helper has no descriptor of this process.
  /// @param answer  called in the helper for each question, which may be anything
  /// @param at_end  called in the helper before it ends; or empty
  /// @error{an errno, as socketpair(2) and fork(2)}
  [[nodiscard]] static Result<HelperProcess> start(
      std::function<Message(Message const& question)> const& answer,
      std::function<void()> const& at_end = {});

  /// Asks and waits for the answer.
  /// @error{as the helper says}
  /// @error{Errc::timed_out, it did not answer in 40 s; it is not asked again}
  /// @error{Errc::unavailable, it has ended}
  /// @error{Errc::stopping, `stop` was requested; it is not asked again}
  [[nodiscard]] Result<Message> ask(Message const& question,
                                    std::stop_token const& stop = {}) const;

 private:
  struct Channel {
    explicit Channel(erofs_oci::MountChannel one) : channel(std::move(one)) {}
    std::mutex mutex;  // guards what follows
    erofs_oci::MountChannel channel;
  };

  explicit HelperProcess(erofs_oci::MountChannel channel)
      : state_(std::make_shared<Channel>(std::move(channel))) {}

  std::shared_ptr<Channel> state_;
};

/// A lookup that a helper does: it can read files and run programs that this process cannot.
/// @param lookup    for the helper
/// @param registry  `host[:port]`s and the repository that the helper answers for, and no others
/// @param stop      ends the waiting for an answer
/// @error{as HelperProcess::start(), as there}
[[nodiscard]] Result<erofs_oci::CredentialLookup> look_up_by_helper(
    erofs_oci::CredentialLookup lookup, std::vector<std::string> registries, std::string repository,
    std::stop_token stop);

/// Mounts that a helper makes.
/// @param serving  as fuse_mounter() takes it
/// @param image    whose oci.verity the helper enforces
/// @error{as HelperProcess::start(), as there}
[[nodiscard]] Result<erofs_oci::FuseMounter> mount_by_helper(erofs_oci::FuseServing const& serving,
                                                             ImageOptions const& image);

}  // namespace mount_oci
