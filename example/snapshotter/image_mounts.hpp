// SPDX-License-Identifier: Apache-2.0
/// @file
/// ImageMounts: one mount for each stack of layers, shared by all that stand on it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>

#include "mount_tool.hpp"
#include "snapshot.hpp"
#include "store.hpp"

namespace oci_snapshotter {

/// How long a call waits: until its deadline, or until nobody wants its answer.
struct Patience {
  std::chrono::steady_clock::time_point until = std::chrono::steady_clock::time_point::max();
  std::function<bool()> is_cancelled = [] { return false; };
};

/// Writes a message to the program's log.
using Say = std::function<void(std::string const&)>;

/// Mounts the lowest layers of images at `DIRECTORY/NAME/fs`, each stack once, alone in its own
/// directory, and unmounts it some time after its last user. What an earlier process has mounted is
/// used on. Nothing is handed out that is not that mount, and no layer that is not what the chain
/// ID says.
///
/// @par Thread safety
/// All members, from any thread. No lock is held while something is waited for.
class ImageMounts {
 public:
  struct Options {
    std::string directory;                        ///< exists
    std::chrono::seconds unmount_after{60};       ///< since there was no user
    std::chrono::seconds probe_after{5};          ///< a mount is handed out for so long unlooked at
    std::chrono::milliseconds retry_after{1000};  ///< a failure is the answer for so long
  };

  /// @param store  borrowed
  ImageMounts(Options options, MountTool tool, SnapshotStore& store, Say say);
  ImageMounts(ImageMounts const&) = delete;
  ImageMounts& operator=(ImageMounts const&) = delete;

  /// Ends what is being done, but leaves what is mounted.
  ~ImageMounts();

  /// Keeps a mount from being unmounted.
  class Use {
   public:
    Use(ImageMounts& mounts, std::string name, std::string path)
        : mounts_(&mounts), name_(std::move(name)), path_(std::move(path)) {}
    Use(Use&& other) noexcept
        : mounts_(std::exchange(other.mounts_, nullptr)),
          name_(std::move(other.name_)),
          path_(std::move(other.path_)) {}
    Use& operator=(Use&& other) noexcept {
      std::swap(mounts_, other.mounts_);
      std::swap(name_, other.name_);
      std::swap(path_, other.path_);
      return *this;
    }
    ~Use() {
      if (mounts_ != nullptr) mounts_->release(name_);
    }

    [[nodiscard]] std::string const& path() const noexcept { return path_; }

   private:
    ImageMounts* mounts_;
    std::string name_;
    std::string path_;
  };

  /// The mount of what a served snapshot and those below it are, made if it is not there. Of
  /// several images that have these layers, the first that can be mounted.
  /// @error{failed_precondition, the layers are not those of the chain ID; or no image is known}
  /// @error{unavailable, it has failed, or has not ended in time; the text tells what of}
  [[nodiscard]] Result<Use> acquire(Snapshot const& snapshot, Patience const& patience);

  /// Whether the layers of an image that has claimed the snapshot are known to be what its chain ID
  /// says, since somebody has read them.
  [[nodiscard]] bool is_proved(Snapshot const& snapshot) const;

  /// Begins to make the indexes of all layers of an image. Does not wait.
  void prepare(ImageFacts const& image);

  /// Unmounts what has had no user for long, and removes what is not needed any more. Blocks.
  /// @param needed  names of the stacks that snapshots stand on
  void clean(std::set<std::string> const& needed, std::stop_token const& stop);

  /// What was done for an image since the start.
  struct Count {
    std::uint64_t mounts = 0;  ///< that came about, or were found
    std::uint64_t failures = 0;
    std::chrono::milliseconds time{};  ///< of both, with the indexes that they waited for
  };

  /// By ImageFacts::reference(), of the images that the store knows.
  [[nodiscard]] std::map<std::string, Count> counts();

 private:
  using Clock = std::chrono::steady_clock;

  /// What is known of a stack, guarded by mutex_.
  struct Stack {
    enum class State : std::uint8_t { idle, working, mounted };
    State state = State::idle;
    std::string chain{};         ///< what its layers were found to be; empty: not yet known
    Clock::time_point probed{};  ///< when it was seen to be there and served
    std::uint64_t mount = 0;     ///< the kernel's number of it
    std::size_t uses = 0;
    Clock::time_point last_use{};
    std::optional<Error> error{};  ///< of the last attempt
    Clock::time_point failed{};
    std::jthread worker{};
  };

  [[nodiscard]] Result<Use> acquire_of(ImageFacts const& image, Snapshot const& snapshot,
                                       Patience const& patience);
  [[nodiscard]] std::string path_of(std::string const& name) const {
    return options_.directory + "/" + name + "/fs";
  }
  void start(std::string const& name, Stack& stack, ImageFacts const& image, std::size_t depth,
             std::string const& chain);
  void work(std::stop_token const& stop, std::string const& name, ImageFacts const& image,
            std::size_t depth, std::string const& chain);
  [[nodiscard]] Result<std::string> find_chain(ImageFacts const& image, std::size_t depth,
                                               std::stop_token const& stop);
  [[nodiscard]] std::optional<std::string> known_chain(ImageFacts const& image,
                                                       std::size_t depth) const;
  [[nodiscard]] Result<std::uint64_t> mount(std::string const& name, ImageFacts const& image,
                                            std::size_t depth, std::stop_token const& stop) const;
  [[nodiscard]] std::optional<std::uint64_t> mounted_at(std::string const& path) const;
  void release(std::string const& name);
  [[nodiscard]] bool unmount(std::string const& name, std::stop_token const& stop) const;

  Options const options_;
  MountTool const tool_;
  SnapshotStore& store_;
  Say const say_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, Stack> stacks_;
  std::map<std::string, Count> counts_;
  std::map<std::string, std::jthread> indexing_;  // by the manifest, while it goes on
  std::set<std::string> indexed_;                 // whose threads have come to their end
};

}  // namespace oci_snapshotter
