// SPDX-License-Identifier: Apache-2.0
/// @file
/// One server for several mounts of an image: a mount that is a clone of another one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <erofs_oci/recovery/journal.hpp>

#include "options.hpp"
#include "process.hpp"
#include "records.hpp"

namespace mount_oci {

/// All that the command line, the configuration file and the environment say of what is served and
/// how it is reached, but for the image's name, as a digest: a mount may share the server of
/// another one if their keys are equal. Holds no secret. Empty if the mount is to have a server
/// that serves it alone, by oci.share, --foreground, --no-supervise, --metrics, --writable, -N or
/// oci.password. Relative paths are those of the working directory.
[[nodiscard]] std::string share_key(Options const& options);

/// The question of a control socket whose answer is share_answer().
inline constexpr std::string_view share_question = "share";

/// What a server tells of its key.
/// @param key  empty: nothing more may be mounted from it
[[nodiscard]] std::string share_answer(std::string const& key);

/// Waits for other processes that mount the same at this moment, so that all but the first find its
/// server. Ends with this object.
class ShareTurn {
 public:
  /// Waits for at most a minute; then, or on an error, goes on without a turn.
  /// @param key  of share_key(); empty: waits for nobody
  [[nodiscard]] static ShareTurn wait(Options const& options, std::string const& key,
                                      Log const& log);

  ShareTurn(ShareTurn&& other) noexcept : entry_(std::exchange(other.entry_, std::nullopt)) {}
  ShareTurn& operator=(ShareTurn&&) = delete;
  ~ShareTurn();

 private:
  explicit ShareTurn(std::optional<erofs_oci::JournalEntry> entry = {}) noexcept
      : entry_(std::move(entry)) {}
  std::optional<erofs_oci::JournalEntry> entry_;
};

/// Whether a mount is of the image that the options name, by digest: perhaps by another tag. Asks
/// the registry, unless the mount is of another repository; what cannot be found out is false.
[[nodiscard]] bool is_same_image(ImageOptions const& options, NotedMount const& noted, Log& log);

/// Mounts the image at `options.mount.target` by a clone of a mount that is there already, if this
/// user has a server with the same key that serves the same image: the same layers, by digest, and
/// the same local files. Asks the registry what the image is, as any mount does, but only if a
/// server could be shared. Blocks.
/// @param key  of share_key(), not empty
/// @return where the cloned mount is, or empty: nothing is mounted, and a server is to be started
/// @error{as open_source() says of the image; an errno, as move_mount(2)}
[[nodiscard]] Result<std::string> mount_shared(Options const& options, std::string const& key,
                                               Log& log);

}  // namespace mount_oci
