// SPDX-License-Identifier: Apache-2.0
// A result that nobody looks at is an error.
// expect: unused-result
// expect: nodiscard
#include <erofs_oci/core/any_source.hpp>

void read(erofs_oci::AnySource const& source, std::span<std::byte> out) {
#ifdef MUST_FAIL
  source.read_at(0, out);
#else
  static_cast<void>(source.read_at(0, out));
#endif
}
