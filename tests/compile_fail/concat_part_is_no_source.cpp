// SPDX-License-Identifier: Apache-2.0
// A part that cannot be read is refused where the stack is named.
// expect: RandomAccessSource
// expect: Concat
#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/source/memory.hpp>

/// read_at() is not const, so it is not for many threads.
struct Mutable {
  std::uint64_t size() const noexcept { return 0; }
  erofs_oci::Result<std::size_t> read_at(std::uint64_t, std::span<std::byte>) { return 0u; }
};

#ifdef MUST_FAIL
using Stack = erofs_oci::Concat<erofs_oci::Memory, Mutable>;
#else
using Stack = erofs_oci::Concat<erofs_oci::Memory, erofs_oci::Memory>;
#endif

Stack* stack = nullptr;
