// SPDX-License-Identifier: Apache-2.0
/// @file
/// The library's version, for the preprocessor and for messages.
#pragma once

/// @name Version
/// Semantic versioning; before 1.0.0 a new minor number may break what compiled.
/// @{

#define EROFS_OCI_VERSION_MAJOR 0  ///< first number
#define EROFS_OCI_VERSION_MINOR 1  ///< second number
#define EROFS_OCI_VERSION_PATCH 0  ///< third number
/// @}

namespace erofs_oci {

/// The same as text.
inline constexpr char const* version = "0.1.0";

}  // namespace erofs_oci
