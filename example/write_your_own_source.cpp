// SPDX-License-Identifier: Apache-2.0
// A source of one's own: two members are enough. Everything else composes with it.
#include <algorithm>
#include <iostream>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/slice.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/source/memory.hpp>

using namespace erofs_oci;

namespace {

// The letters a to z, again and again.
class Alphabet {
 public:
  explicit Alphabet(std::uint64_t size) : size_(size) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size_, offset, out.size());
    std::ranges::generate(out.first(n), [&] { return std::byte('a' + offset++ % 26); });
    return n;
  }

 private:
  std::uint64_t size_;
};
static_assert(RandomAccessSource<Alphabet>);

}  // namespace

int main() {
  auto middle = Slice<Alphabet>::make(Alphabet(1'000'000'000'000), 500'000'000'000, 10);
  if (!middle) return std::cerr << middle.error().message() << "\n", 1;
  Concat const text(Memory(to_bytes("... ")), *std::move(middle), Memory(to_bytes(" ...")));

  Bytes out(100);
  auto const n = text.read_at(0, out);
  if (!n) return std::cerr << n.error().message() << "\n", 1;
  std::cout << as_text(std::span(out).first(*n)) << "\n";  // ... uvwxyzabcd ...
}
