// SPDX-License-Identifier: Apache-2.0
/// @file
/// MountTool: mount-oci, by which images are looked at, indexed, mounted and unmounted.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>

#include "snapshot.hpp"

namespace oci_snapshotter {

/// @name How mount-oci gets logins of this program
/// By a credential helper, which the file at REGISTRY_AUTH_FILE names, and which knows by two
/// variables where to ask, and for which repository.
/// @{
inline constexpr char const* login_helper = "oci-snapshotter";
inline constexpr char const* login_helper_program = "docker-credential-oci-snapshotter";
inline constexpr char const* login_address_variable = "OCI_SNAPSHOTTER_ADDRESS";
inline constexpr char const* login_repository_variable = "OCI_SNAPSHOTTER_REPOSITORY";
/// @}

/// How mount-oci is called.
struct MountToolOptions {
  std::string program = "mount-oci";
  std::vector<std::string> words{};  ///< of -o, for every call
  std::string index = "signed";      ///< oci.index
  std::string attach = "auto";       ///< --attach
  std::string journal{};             ///< --journal; empty: the usual one
  /// "auto": where systemd runs, what serves a mount has a scope of its own; "none": it stays in
  /// the cgroup of this process.
  std::string scope = "auto";
  /// Where docker-credential-oci-snapshotter asks for logins, a unix socket; empty: nowhere.
  std::string login_address{};
  std::string login_file{};  ///< REGISTRY_AUTH_FILE, which names that helper; with login_address
};

/// What a registry says of an image.
struct ImageDescription {
  ImageFacts facts;
  std::vector<std::string> media_types;  ///< of the layers
  std::uint64_t size = 0;                ///< bytes of all layers, as they are stored
};

/// What mount-oci tells of one of its mounts.
struct MountStatus {
  std::string mount_point;
  bool is_served = false;  ///< its processes live
  std::uint64_t requests = 0;
  std::uint64_t bytes = 0;  ///< that were read of the image
  std::uint64_t errors = 0;
  std::uint64_t restarts = 0;  ///< of its worker
  std::uint64_t memory = 0;    ///< bytes that its caches take
};

/// Runs the program as a process of its own, which holds no secret of ours, and which ends with the
/// deadline or the stop. What it mounts is served by processes that outlive this one.
///
/// @par Thread safety
/// All const members, from any thread.
class MountTool {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  explicit MountTool(MountToolOptions options) : options_(std::move(options)) {}

  /// Asks the registry what an image is.
  /// @param repository  with its registry
  /// @param manifest    the platform's, a digest
  /// @error{std::errc::io_error, the program has failed; the text is its own}
  /// @error{Errc::timed_out and Errc::stopping}
  /// @error{Errc::corrupt, it says what makes no sense}
  [[nodiscard]] erofs_oci::Result<ImageDescription> describe(std::string const& repository,
                                                             std::string const& manifest,
                                                             Deadline deadline,
                                                             std::stop_token const& stop) const;

  /// Makes or fetches the indexes of the lowest `count` layers, and tells the layers' diffIDs by
  /// what they are and not by what the image says.
  /// @error{Errc::unsupported, an index does not tell}
  /// @error{as describe()}
  [[nodiscard]] erofs_oci::Result<std::vector<LayerFacts>> index(ImageFacts const& image,
                                                                 std::size_t count,
                                                                 std::stop_token const& stop) const;

  /// Mounts the lowest `count` layers. Where systemd makes no scope, it does so without one.
  /// @error{as describe()}
  [[nodiscard]] erofs_oci::Result<void> mount(ImageFacts const& image, std::size_t count,
                                              std::string const& directory,
                                              std::stop_token const& stop) const;

  /// @error{as describe(); also while it is in use}
  [[nodiscard]] erofs_oci::Result<void> unmount(std::string const& directory,
                                                std::stop_token const& stop) const;

  /// All mounts of the journal. Reads none of them, as is_served().
  /// @error{as describe()}
  [[nodiscard]] erofs_oci::Result<std::vector<MountStatus>> status() const;

  /// Whether the processes that serve what is mounted there live. Does not read it: that might
  /// never end, and the kernel answers much for dead ones.
  /// @param directory  absolute, without symbolic links
  /// @error{as describe()}
  [[nodiscard]] erofs_oci::Result<bool> is_served(std::string const& directory) const;

 private:
  [[nodiscard]] std::string words(std::size_t count) const;
  [[nodiscard]] std::vector<std::string> scope_of(std::string const& directory) const;
  [[nodiscard]] std::vector<std::string> variables_for(std::string const& repository) const;
  [[nodiscard]] erofs_oci::Result<std::string> run(std::vector<std::string> words,
                                                   Deadline deadline, std::stop_token const& stop,
                                                   std::string const& repository = {}) const;

  MountToolOptions options_;
};

}  // namespace oci_snapshotter
