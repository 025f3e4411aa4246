// SPDX-License-Identifier: Apache-2.0
/// @file
/// Record: everything that a new worker needs to serve the same bytes, and no secret.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/recovery/local_file.hpp>
#include <erofs_oci/recovery/process.hpp>

namespace erofs_oci {

/// Where an image's blobs are.
enum class RecordSource : std::uint8_t {
  registry,  ///< in a repository, by digest
  layout,    ///< in an OCI image layout, by digest
  files,     ///< in files of their own
};

/// One layer, in the order of the image.
struct RecordLayer {
  std::optional<Digest> digest{};     ///< of the blob; empty only for RecordSource::files
  std::uint64_t size = 0;             ///< bytes of the blob, > 0
  std::string media_type{};           ///< of the blob, or empty
  std::optional<LocalFile> file{};    ///< the blob itself; for RecordSource::files only
  std::optional<LocalFile> zinfo{};   ///< its gzip checkpoints
  std::optional<LocalFile> index{};   ///< its index in this library's own format
  std::optional<LocalFile> chunks{};  ///< its table of chunk digests

  friend bool operator==(RecordLayer const&, RecordLayer const&) = default;
};

/// The image that is served. Uses neither a tag, which could move, nor a manifest that must be
/// fetched again.
struct RecordImage {
  RecordSource source = RecordSource::registry;
  std::string registry{};            ///< `host[:port]`; for RecordSource::registry only
  std::string repository{};          ///< for RecordSource::registry only
  std::string tag{};                 ///< for people to read; never looked up
  std::string directory{};           ///< of an image layout, absolute; for RecordSource::layout
  std::optional<Digest> manifest{};  ///< of the image; empty if blobs were named by themselves
  std::string platform{};            ///< `os/architecture[/variant]`, or empty
  std::vector<RecordLayer> layers{};
  std::optional<LocalFile> tarindex{};  ///< EROFS image of the metadata
  std::uint64_t device_size = 0;        ///< bytes of the device, a multiple of `block_size`
  std::uint32_t block_size = 512;       ///< bytes, a power of 2 in [512, 65536]
  bool rewritten = false;  ///< the only layer is an EROFS image, but metadata made of it are served
  /// Root hash of the Merkle tree that lies behind the data on the device; of zero bits: there is
  /// none.
  Digest verity{};
  std::uint64_t verity_data = 0;  ///< bytes of the device in front of the tree
  std::string mismatch{};         ///< how bytes that were served were found to be wrong; empty: not

  friend bool operator==(RecordImage const&, RecordImage const&) = default;
};

/// How the image is reached and kept.
struct RecordReach {
  bool insecure = false;  ///< plain http
  std::string ca{};       ///< absolute path of a PEM bundle, in place of the system's, or empty
  /// In order: `[scheme://]host[:port][/path][;resolve]`.
  std::vector<std::string> mirrors{};
  std::chrono::milliseconds timeout{30'000};         ///< longest that one read takes
  std::optional<std::chrono::milliseconds> retry{};  ///< inside one read; empty: `timeout`
  std::uint32_t connections = 4;                     ///< requests in flight, > 0
  std::uint64_t cache_bytes = 256u << 20;            ///< in memory
  std::string cache_directory{};                     ///< absolute, or empty
  std::string verify{};  ///< `off`, `background` or `before`: how bytes are proved; empty: lazily
  /// Where a hosts.toml is looked for: absolute paths joined by colons, or `none`; empty: where
  /// containerd and docker have them.
  std::string hosts{};
  /// Absolute path of the configuration file that counted, or empty. Each start reads it again.
  std::string config{};
  bool inward = false;    ///< a registry may send requests on to private addresses
  bool unhedged = false;  ///< no request is sent a second time because its answer is late

  friend bool operator==(RecordReach const&, RecordReach const&) = default;
};

/// Where credentials come from, never the credentials. Each start reads them again from there, so
/// changed ones are used.
struct CredentialSource {
  enum class Kind : std::uint8_t {
    anonymous,      ///< there are none
    docker_config,  ///< `where` is a config.json
    file,           ///< `where` is a file with the password of `username`
    helper,         ///< `where` names a credential helper
    given,          ///< by hand and not kept: the user must give them again at a takeover
  };

  Kind kind = Kind::anonymous;
  std::string where{};     ///< absolute path, or the helper's name
  std::string username{};  ///< for Kind::file; without ':'

  friend bool operator==(CredentialSource const&, CredentialSource const&) = default;
};

/// The credentials that a user can give. `password` is a secret.
struct GivenCredentials {
  std::string username{};
  std::string password{};
  std::string password_file{};  ///< absolute path
  std::string helper{};         ///< name of a credential helper
  std::string docker_config{};  ///< absolute path
};

/// The part of it that may be recorded. The first of these that is given counts: a password by
/// hand, a helper, a file, a config.
[[nodiscard]] inline CredentialSource credential_source(GivenCredentials const& options) {
  using Kind = CredentialSource::Kind;
  if (!options.password.empty()) return {Kind::given, {}, {}};
  if (!options.helper.empty()) return {Kind::helper, options.helper, {}};
  if (!options.password_file.empty()) return {Kind::file, options.password_file, options.username};
  if (!options.docker_config.empty()) return {Kind::docker_config, options.docker_config, {}};
  return {};
}

/// How the image is attached.
enum class RecordFrontEnd : std::uint8_t {
  netlink,      ///< an nbd device of the kernel, that can be taken over
  ioctl,        ///< an nbd device of the kernel, which ends with its daemon
  unix_socket,  ///< NBD on a socket
  tcp,          ///< NBD on a port
  fuse,         ///< one file of a FUSE mount
};

/// How the image is attached.
struct RecordAttach {
  RecordFrontEnd front_end = RecordFrontEnd::netlink;
  std::optional<std::uint32_t> index{};  ///< N of nbdN; empty before the kernel has chosen
  /// Identifier that the kernel keeps: a plain name; of a device that another tool has set up, the
  /// absolute path that this tool gave it.
  std::string backend{};
  std::string address{};                    ///< absolute path or `HOST:PORT`, for sockets
  std::uint32_t sockets = 1;                ///< that the kernel gets; as many at a takeover, > 0
  std::chrono::seconds request_timeout{0};  ///< 0: never
  std::chrono::seconds dead_connection_timeout{300};  ///< how long requests wait for the next one
  std::uint64_t read_ahead = 0;                       ///< bytes; 0: the kernel's own

  friend bool operator==(RecordAttach const&, RecordAttach const&) = default;
};

/// Some bytes of the device, to check that a new worker serves the same image.
struct KnownSpan {
  std::uint64_t offset = 0;  ///< in the device
  std::uint64_t length = 0;  ///< bytes, > 0
  Digest digest{};

  friend bool operator==(KnownSpan const&, KnownSpan const&) = default;
};

/// All that a takeover needs.
struct Record {
  RecordImage image{};
  RecordReach reach{};
  CredentialSource credentials{};
  RecordAttach attach{};
  std::optional<KnownSpan> known{};
  std::string mount_point{};  ///< absolute, or empty
  ProcessIdentity daemon{};   ///< that serves, or served last

  friend bool operator==(Record const&, Record const&) = default;
};

/// Whether a text can name a record or a backend: `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`. The paths that
/// other tools write to sysfs are no such names.
[[nodiscard]] constexpr bool is_plain_name(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 64 && is_letter_or_digit(text.front()) &&
         is_made_of(text, "_-");
}

}  // namespace erofs_oci
