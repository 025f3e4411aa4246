// SPDX-License-Identifier: Apache-2.0
/// @file
/// Filters: which snapshots a client wants to be listed.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include <erofs_oci/core/result.hpp>

#include "snapshot.hpp"

namespace oci_snapshotter {

/// A list of filters: a snapshot is wanted if one of them fits, or if there is none. A filter is
/// `FIELD`, `FIELD==VALUE`, `FIELD!=VALUE` or `FIELD~=REGEX`, or several of these with commas
/// between, all of which must fit. FIELD is name, parent, kind or labels.NAME, whose NAME is quoted
/// if it has other characters than letters, digits and `_`. A value may be quoted as in Go; a regex
/// may stand between slashes or bars, too.
/// @spec{containerd 1.6, filters/filter.go}
class Filters {
 public:
  /// @error{Refusal::invalid_argument, a text that is no filter}
  [[nodiscard]] static erofs_oci::Result<Filters> parse(std::span<std::string const> texts);

  [[nodiscard]] bool match(Info const& info) const;

 private:
  struct Test;

  std::vector<std::vector<std::shared_ptr<Test const>>> any_;
};

}  // namespace oci_snapshotter
