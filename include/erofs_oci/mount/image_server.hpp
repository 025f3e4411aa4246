// SPDX-License-Identifier: Apache-2.0
/// @file
/// ImageServer: serves an image to the kernel for as long as this object lives, and mounts it.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mount.h>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/mount/mount_hooks.hpp>

namespace erofs_oci {

/// The bytes of an EROFS image that can be mounted.
struct MountableImage {
  AnySource source;
  std::uint64_t zeros_from = 0;  ///< where the zeros begin that fill up the end, in bytes

  /// An image without zeros at its end.
  MountableImage(AnySource bytes)  // NOLINT: implicit, so that functions can yield either
      : source(std::move(bytes)), zeros_from(source.size()) {}

  /// A DeviceImage, which this folder does not know.
  template <class Device>
    requires std::same_as<decltype(Device::source), AnySource> &&
                 (!std::same_as<Device, MountableImage>)
  MountableImage(Device device)  // NOLINT: implicit, as above
      : source(std::move(device.source)), zeros_from(device.zeros_from) {}
};

/// Opens an image. Called on another thread or, with ImageReaders::processes, in each of them, and
/// then it has to open the same bytes each time.
using OpenImage = std::function<Result<MountableImage>()>;

/// Who reads an image that is mounted.
enum class ImageReaders : std::uint8_t {
  threads,    ///< of this process: the mount's reads fail once it has been killed
  processes,  ///< a child, which is replaced when it dies or hangs: reads wait meanwhile. It is
              ///< forked without exec by a thread: no other thread may hold a lock then that
              ///< OpenImage or the source takes. If this process is killed, nothing is replaced
};

/// How an image is mounted and served.
struct ImageMountOptions {
  /// Ways that may be taken: the first of them that this machine has. Default: any
  std::vector<MountWay> ways{all_mount_ways.begin(), all_mount_ways.end()};
  /// mount(2) flags; read-only in any case. Default: no devices, no setuid programs
  unsigned long flags = MS_NOSUID | MS_NODEV;
  std::string data{};  ///< options for the kernel's EROFS; not for fuse_tree
  /// How far the kernel reads ahead, in bytes. Default: 1 MiB
  std::uint64_t readahead = std::uint64_t{1} << 20;
  std::size_t threads = 0;  ///< reads of the source at once. 0: as many as suit the machine
  ImageReaders readers = ImageReaders::threads;
  /// A descriptor; once it is readable, opening and mounting end early. -1: none
  int interrupt = -1;
  /// Gets a line of text for what fails or is replaced, from any thread or reading process; or
  /// empty.
  std::function<void(MountSeverity, std::string const& text)> log{};
};

/// One mount: where it is, and which one it is.
struct MountedAt {
  std::string target;    ///< absolute, without symbolic links
  std::uint64_t id = 0;  ///< as mount_id_of()

  friend bool operator==(MountedAt const&, MountedAt const&) = default;
};

/// Mounts a block device.
using MountDevice = std::function<Result<MountedAt>(std::string const& device)>;

/// Serves an image by MountSupervisor, on threads of its own, until nothing is mounted of it any
/// more or this object ends. Blocks no signal of the caller's.
///
/// @par Thread safety
/// All const members, from any thread.
class ImageServer {
 public:
  /// Opens the image, serves it, and has it mounted. Blocks until it is mounted.
  /// @param way       a device is mounted by `mount`, what FUSE serves by the reader itself
  /// @param target    absolute, without symbolic links
  /// @error{as `open` and `mount` say}
  /// @error{as MountSupervisor::run(), as there; nothing is mounted then\, and no thread runs}
  [[nodiscard]] static Result<std::unique_ptr<ImageServer>> start(OpenImage open, MountWay way,
                                                                  std::string const& target,
                                                                  ImageMountOptions const& options,
                                                                  MountDevice const& mount);

  ImageServer(ImageServer const&) = delete;
  ImageServer& operator=(ImageServer const&) = delete;

  /// Stops, and waits for its threads. Who uses the image still gets errors from here on.
  ~ImageServer();

  /// The mount that start() has made.
  [[nodiscard]] MountedAt const& place() const noexcept;

  /// Readable once it serves no more.
  [[nodiscard]] int end_fd() const noexcept;

  /// Why it serves no more, if it should.
  [[nodiscard]] std::optional<Error> failure() const;

 private:
  struct Core;
  explicit ImageServer(std::unique_ptr<Core> core) noexcept;

  std::unique_ptr<Core> core_;
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/mount/detail/image_server_body.hpp>
#endif
