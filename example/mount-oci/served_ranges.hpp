// SPDX-License-Identifier: Apache-2.0
/// @file
/// ServedRanges: which bytes of a device were read, in bounded memory, and whose they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/gzip/find_checkpoints.hpp>

#include "mount_report.hpp"
#include "process.hpp"

namespace mount_oci {

/// A set of bytes as ranges. Beyond `most` of them the two with the least between them become one:
/// the set never lacks a byte that was noted, and may have others.
///
/// @par Thread safety
/// All members, from any thread.
class ServedRanges {
 public:
  static constexpr std::size_t most = 256;

  /// Notes bytes [begin, end). Cheap if they are there already.
  void note(std::uint64_t begin, std::uint64_t end);

  /// In order, none touching the next.
  [[nodiscard]] std::vector<ByteRange> list() const;

 private:
  void join_nearest();

  mutable std::mutex mutex_;
  std::map<std::uint64_t, std::uint64_t> ranges_;  // begin, end
};

/// The regular files some of whose data lie in these ranges of a device and belong to a layer.
/// Blocks: walks all files.
/// @param metadata   the EROFS image in front of the device
/// @param data_name  as the image calls the layer's data: tarindex::data_name()
/// @error{as erofs::Reader, as that says; what cannot be read is left out}
[[nodiscard]] Result<ServedFiles> served_files(erofs_oci::AnySource const& metadata,
                                               std::string const& data_name,
                                               std::vector<ByteRange> const& ranges);

}  // namespace mount_oci
