// SPDX-License-Identifier: Apache-2.0
/// @file
/// Registry and OciBlob. If you include this file, you link cpp-httplib, libssl and libcrypto.
#pragma once

#include <erofs_oci/http/transport.hpp>
#include <erofs_oci/oci/blob.hpp>
#include <erofs_oci/oci/registry.hpp>

namespace erofs_oci {

/// A source over one blob of a registry.
using OciBlob = BasicOciBlob<HttplibTransport>;

/// One repository of a registry.
using Registry = BasicRegistry<HttplibTransport>;

}  // namespace erofs_oci
