// SPDX-License-Identifier: Apache-2.0
// A temporary cannot be borrowed.
// expect: deleted
// expect: Ref
#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/source/memory.hpp>

std::uint64_t size() {
  erofs_oci::Memory const memory(erofs_oci::Bytes(8));
#ifdef MUST_FAIL
  return erofs_oci::Ref<erofs_oci::Memory>(erofs_oci::Memory(erofs_oci::Bytes(8))).size();
#else
  return erofs_oci::Ref<erofs_oci::Memory>(memory).size();
#endif
}
