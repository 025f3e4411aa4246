// SPDX-License-Identifier: Apache-2.0
/// @file
/// What `cp` copies: IMAGE:PATH.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mount_oci {

/// A file of an image.
struct CopySource {
  std::string image;  ///< as ImageName::parse() reads it
  std::string path;   ///< begins with a slash

  /// Cuts IMAGE:PATH at its first `:/` behind `oci:` and `file:`: no reference holds one, whatever
  /// its port, tag or digest. Empty if there is no image or no path.
  [[nodiscard]] static std::optional<CopySource> parse(std::string_view text);

  /// What a copy is called unless told otherwise: the last component of the path; empty for what is
  /// in the directory, as `/` and `/etc/.` mean it.
  [[nodiscard]] std::string name() const;
};

}  // namespace mount_oci
