// SPDX-License-Identifier: Apache-2.0
// A layer over something that is no source names the layer and the concept.
// expect: RandomAccessSource
// expect: Slice
#include <erofs_oci/combinator/slice.hpp>
#include <erofs_oci/source/memory.hpp>

struct NoSource {};

#ifdef MUST_FAIL
using Layer = erofs_oci::Slice<NoSource>;
#else
using Layer = erofs_oci::Slice<erofs_oci::Memory>;
#endif

Layer* layer = nullptr;
