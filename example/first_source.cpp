// SPDX-License-Identifier: Apache-2.0
// A source of one's own, of 10^12 letters that nobody keeps, and a window into it.
#include <iostream>

#include <erofs_oci/combinator/slice.hpp>
#include <erofs_oci/core/bytes.hpp>

using namespace erofs_oci;

struct Letters {
  std::uint64_t size() const noexcept { return 1'000'000'000'000; }
  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size(), offset, out.size());
    for (auto& byte : out.first(n)) byte = std::byte('a' + offset++ % 26);
    return n;
  }
};

int main() {
  Bytes text(10);
  auto const window = Slice<Letters>::make(Letters(), 500'000'000'000, text.size());
  if (!window || !read_exact(*window, 0, text)) return 1;
  std::cout << as_text(text) << "\n";
}
