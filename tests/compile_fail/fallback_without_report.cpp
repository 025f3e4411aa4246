// SPDX-License-Identifier: Apache-2.0
// Silence about damage has to be asked for by name.
// expect: Fallback
// expect: template arguments
#include <erofs_oci/combinator/fallback.hpp>
#include <erofs_oci/source/memory.hpp>

using erofs_oci::Memory;

#ifdef MUST_FAIL
using Layer = erofs_oci::Fallback<Memory, Memory>;
#else
using Layer = erofs_oci::Fallback<Memory, Memory, erofs_oci::IgnoreFaults>;
#endif

Layer* layer = nullptr;
