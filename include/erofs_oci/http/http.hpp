// SPDX-License-Identifier: Apache-2.0
/// @file
/// Http: a source over one URL. If you include this file, you link cpp-httplib and libssl.
#pragma once

#include <erofs_oci/http/transport.hpp>
#include <erofs_oci/source/http.hpp>

namespace erofs_oci {

/// A source over one URL: `Http::open("http://host/file")`.
using Http = BasicHttp<HttplibTransport>;

}  // namespace erofs_oci
