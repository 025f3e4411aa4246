// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/checkpoints_file.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <cstdint>
#include <string>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {
namespace checkpoints_file_test {

// Also ones that break a rule.
ExtraCheckpoint any_point() {
  auto const place = *rc::gen::inRange<std::uint64_t>(0, 300);
  auto const bits = static_cast<std::uint8_t>(*rc::gen::inRange(0, 9));
  auto const out = *rc::gen::element(place * 500, std::uint64_t{3000});
  return {{place * 100, out, bits},
          to_bytes(*rc::gen::arbitrary<std::string>()),
          digest_of(as_bytes(*rc::gen::arbitrary<std::string>()))};
}

ExtraCheckpoints any_extra() {
  ExtraCheckpoints extra;
  auto const count = *rc::gen::inRange(0, 12);
  for (int i = 0; i < count; ++i) extra.add(any_point());
  return extra;
}

bool same(ExtraCheckpoint const& a, ExtraCheckpoint const& b) {
  return a.start == b.start && a.packed_window == b.packed_window && a.rest == b.rest;
}

TEST_CASE("Extra checkpoints are those that were written", "[image][checkpoints][property]") {
  rc::prop("for all of them", [] {
    auto const extra = any_extra();
    auto const again = decode_checkpoints(encode_checkpoints(extra));
    RC_ASSERT(again.has_value());
    RC_ASSERT(std::ranges::equal(again->points(), extra.points(), same));
  });
}

TEST_CASE("Extra checkpoints of another version are not read", "[image][checkpoints][error]") {
  auto file = encode_checkpoints({});
  store_le<std::uint32_t>(1, std::span(file).subspan<8, 4>());
  CHECK(decode_checkpoints(file).error().code == Errc::unsupported);
}

TEST_CASE("A changed file of extra checkpoints is none", "[image][checkpoints][property]") {
  rc::prop("for all changes", [] {
    auto const file = encode_checkpoints(any_extra());
    auto changed = file;
    if (*rc::gen::arbitrary<bool>()) {
      auto const at = *rc::gen::inRange<std::size_t>(0, file.size());
      changed[at] ^= std::byte(1U << *rc::gen::inRange(0, 8));
    } else {
      changed.resize(*rc::gen::inRange<std::size_t>(0, file.size() + 40));
      if (changed == file) changed.push_back(std::byte{0});
    }
    RC_ASSERT(!decode_checkpoints(changed));
  });
}

}  // namespace checkpoints_file_test
}  // namespace erofs_oci
