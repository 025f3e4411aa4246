// SPDX-License-Identifier: Apache-2.0
/// @file
/// ImageName: whether a user's name of an image means a registry, an OCI layout or a file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace erofs_oci {

/// Where an image is.
enum class ImagePlace : std::uint8_t {
  registry,  ///< what is no other: a reference
  layout,    ///< an OCI image layout: "oci:DIR", "oci:DIR:TAG" or "oci:DIR@DIGEST"
  file,      ///< one layer's blob: "file:PATH", or a path that begins with "/", "./" or "../"
};

/// A name of an image, taken apart.
struct ImageName {
  ImagePlace place = ImagePlace::registry;
  std::string path;      ///< the directory or file; the whole name of one in a registry
  std::string wanted{};  ///< in a layout: the tag or the digest; empty: its only image

  /// Looks at the disk for one thing: a layout's directory may have a colon in its name.
  [[nodiscard]] static ImageName parse(std::string_view name);

  friend bool operator==(ImageName const&, ImageName const&) = default;

 private:
  [[nodiscard]] static ImageName parse_layout(std::string_view text);
};

}  // namespace erofs_oci

#ifndef EROFS_OCI_COMPILED
#include <erofs_oci/image/detail/image_name_body.hpp>
#endif
