// SPDX-License-Identifier: Apache-2.0
/// @file
/// An OCI registry over an image layout, with switches for what goes wrong in the field.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "process.hpp"

namespace mount_oci {

/// What a registry does to the answers that it gives.
enum class Fault {
  none,
  ignore_range,  ///< 200 and the whole blob
  short_body,    ///< half of the promised body, then the connection ends
  wrong_range,   ///< a Content-Range that starts one byte later
  wrong_total,   ///< a Content-Range with another total size
  corrupt,       ///< one byte of the body is flipped
  encoded,       ///< Content-Encoding: gzip
  reset,         ///< a TCP reset in the middle of the body
  hang,          ///< no answer at all
};

/// How a registry serves.
struct RegistryOptions {
  std::string directory;                          ///< an OCI image layout
  std::string listen = "127.0.0.1:0";             ///< HOST:PORT; port 0 takes a free one
  std::chrono::milliseconds latency{0};           ///< before each answer
  std::uint64_t bandwidth = 0;                    ///< bytes a second of each answer; 0 is no limit
  unsigned fail_every = 0;                        ///< every n-th blob request fails; 0 is none
  int fail_status = 503;                          ///< with this status
  Fault fault = Fault::none;                      ///< done to blob requests with a range
  unsigned fault_every = 1;                       ///< to every n-th of them
  std::string username;                           ///< asked for if not empty
  std::string password_file;                      ///< a file whose first line is the password
  std::optional<std::chrono::seconds> token_ttl;  ///< bearer tokens that live so long
  std::optional<std::chrono::seconds>
      redirect_ttl;         ///< blobs are redirected to URLs that live so long
  std::string certificate;  ///< PEM; https if set
  std::string key;          ///< PEM
  std::string count;        ///< file that gets the counters at the end, or empty
  bool pushes = false;  ///< takes blobs, which stay in the layout, and manifests, whose tags do not
  bool referrers = true;  ///< has the referrers API
};

/// Serves an OCI image layout as a registry until a signal comes; prints its URL when ready.
/// @error{Errc::invalid_argument, an address or a certificate that means nothing}
/// @error{any, as LayoutStore::open() and bind(2)}
[[nodiscard]] Result<void> run_registry(RegistryOptions const& options);

}  // namespace mount_oci
