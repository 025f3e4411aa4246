// SPDX-License-Identifier: Apache-2.0
// A policy that cannot decide names the concept that it misses.
// expect: RetryPolicy
// expect: Retry
#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/source/memory.hpp>

struct NoPolicy {};

#ifdef MUST_FAIL
using Layer = erofs_oci::Retry<erofs_oci::Memory, NoPolicy>;
#else
using Layer = erofs_oci::Retry<erofs_oci::Memory, erofs_oci::Backoff>;
#endif

Layer* layer = nullptr;
