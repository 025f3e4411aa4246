// SPDX-License-Identifier: Apache-2.0
// Any text is refused, or maps users and groups: each of them to one that is outside of the
// namespace.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>

#include <id_mapping.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace oci_snapshotter;
  std::string const text(reinterpret_cast<char const*>(data), size);
  auto const mapping = IdMapping::of({{user_mapping_label, text}, {group_mapping_label, text}});
  if (!mapping || !*mapping) return 0;
  auto const ranges = parse_id_ranges(text);
  if (!ranges) std::abort();
  auto const check = [&](std::uint32_t id) {
    if (!(*mapping)->has_mapped((*mapping)->user(id), (*mapping)->group(id))) std::abort();
  };
  check(0);
  check(std::numeric_limits<std::uint32_t>::max());
  for (auto const& range : *ranges) {
    if ((*mapping)->user(range.inside) != (*mapping)->group(range.inside)) std::abort();
    check(range.inside);
    check(range.inside + (range.length - 1));
    check(range.inside + range.length);
  }
  return 0;
}
