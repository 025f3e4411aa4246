// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/start_list.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {
namespace start_list_test {

Digest layer(unsigned number) {
  return digest_of(as_bytes(std::to_string(number)));
}

/// Each byte, with the number of the range that brought it first.
using Model = std::map<std::pair<Digest, std::uint64_t>, std::size_t>;

std::vector<StartRange> any_ranges() {
  return *rc::gen::container<std::vector<StartRange>>(rc::gen::exec([] {
    auto const begin = *rc::gen::inRange<std::uint64_t>(0, 60);
    return StartRange{layer(*rc::gen::inRange(0U, 3U)), begin,
                      begin + *rc::gen::inRange<std::uint64_t>(0, 20)};
  }));
}

StartList list_of(std::vector<StartRange> const& ranges) {
  StartList list;
  for (auto const& range : ranges) list.add(range);
  return list;
}

Model model_of(std::span<StartRange const> ranges) {
  Model model;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    for (auto at = ranges[i].begin; at < ranges[i].end; ++at) {
      model.emplace(std::pair(ranges[i].layer, at), i);
    }
  }
  return model;
}

void check_no_overlap(StartList const& list) {
  std::uint64_t bytes = 0;
  for (auto const& range : list.ranges()) {
    RC_ASSERT(range.begin < range.end);
    bytes += range.end - range.begin;
  }
  RC_ASSERT(list.bytes() == bytes);
  RC_ASSERT(model_of(list.ranges()).size() == bytes);
}

/// A list with parts of several ages, as merging leaves it.
StartList any_list() {
  StartList list;
  auto const mounts = *rc::gen::inRange(0, 4);
  for (int i = 0; i < mounts; ++i) list = StartList::merge(list, list_of(any_ranges()));
  return list;
}

TEST_CASE("A start list has each byte that was added, once, in the order of adding",
          "[image][start_list][property]") {
  rc::prop("for all ranges", [] {
    auto const ranges = any_ranges();
    auto const model = model_of(ranges);

    auto const list = list_of(ranges);

    check_no_overlap(list);
    RC_ASSERT(list.bytes() == model.size());
    std::size_t newest = 0;
    for (auto const& range : list.ranges()) {
      auto first = std::numeric_limits<std::size_t>::max();
      for (auto at = range.begin; at < range.end; ++at) {
        first = std::min(first, model.at({range.layer, at}));
      }
      RC_ASSERT(newest <= first);
      newest = first;
    }
  });
}

TEST_CASE("A start list is read back as it was written", "[image][start_list][property]") {
  rc::prop("for all lists", [] {
    auto const list = any_list();
    auto const back = StartList::decode(list.encode());
    RC_ASSERT(back.has_value());
    RC_ASSERT(*back == list);
  });
}

TEST_CASE("A file that was cut or changed is no start list", "[image][start_list][error]") {
  auto const list = list_of({{layer(0), 0, 100}, {layer(1), 50, 70}, {layer(0), 200, 300}});
  auto const file = list.encode();
  REQUIRE(StartList::decode(file).has_value());

  for (std::size_t i = 0; i < file.size(); ++i) {
    CHECK_FALSE(StartList::decode(std::span(file).first(i)).has_value());
    auto changed = file;
    changed[i] ^= std::byte{0x10};
    CHECK_FALSE(StartList::decode(changed).has_value());
  }
  auto longer = file;
  longer.push_back(std::byte{0});
  CHECK_FALSE(StartList::decode(longer).has_value());
}

/// With the digest that belongs to it.
Bytes signed_file(Bytes file) {
  file.resize(file.size() - 32);
  auto const digest = digest_of(file);
  file.insert(file.end(), digest.bytes().begin(), digest.bytes().end());
  return file;
}

TEST_CASE("A start list that breaks a rule is refused, whoever wrote it",
          "[image][start_list][error]") {
  auto const file = list_of({{layer(0), 0, 100}, {layer(0), 200, 300}}).encode();
  constexpr std::size_t ranges = 24 + 32;
  auto const code_with = [&](std::size_t at, unsigned value) {
    auto changed = file;
    changed[at] = static_cast<std::byte>(value);
    auto const list = StartList::decode(signed_file(std::move(changed)));
    REQUIRE_FALSE(list.has_value());
    return list.error().code;
  };
  CHECK(code_with(8, 2) == Errc::unsupported);          // version
  CHECK(code_with(20, 1) == Errc::corrupt);             // zeros
  CHECK(code_with(ranges, 1) == Errc::corrupt);         // a layer that is not there
  CHECK(code_with(ranges + 4, 4) == Errc::corrupt);     // too old
  CHECK(code_with(ranges + 16, 0) == Errc::corrupt);    // an empty range
  CHECK(code_with(ranges + 16, 201) == Errc::corrupt);  // two that overlap
  CHECK(code_with(ranges + 20, 255) == Errc::corrupt);  // too many bytes
  CHECK(code_with(ranges + 23, 255) == Errc::corrupt);  // behind the last place
}

TEST_CASE("Merging keeps the newer list in front, and of the older one what is not in it",
          "[image][start_list][property]") {
  rc::prop("for all lists", [] {
    auto const older = any_list();
    auto const newer = any_list();

    auto const merged = StartList::merge(older, newer);

    check_no_overlap(merged);
    RC_ASSERT(merged.ranges().size() >= newer.ranges().size());
    RC_ASSERT(std::ranges::equal(merged.ranges().first(newer.ranges().size()), newer.ranges()));
    auto const in_newer = model_of(newer.ranges());
    auto kept = in_newer.size();
    for (auto const& range : older.ranges()) {
      for (auto at = range.begin; at < range.end; ++at) {
        auto const stays = range.age < StartList::most_age && !in_newer.contains({range.layer, at});
        if (stays) ++kept;
      }
    }
    RC_ASSERT(merged.bytes() == kept);
    RC_ASSERT(merged.overlap(newer) == newer.bytes());
  });
  rc::prop("a list merged with itself is that list", [] {
    auto const list = any_list();
    RC_ASSERT(StartList::merge(list, list) == list);
  });
}

TEST_CASE("What no mount needs any more goes", "[image][start_list]") {
  auto list = list_of({{layer(0), 0, 100}});
  auto const other = list_of({{layer(0), 500, 600}});
  for (unsigned i = 0; i < StartList::most_age; ++i) {
    list = StartList::merge(list, other);
    CHECK(list.bytes() == 200);
  }
  list = StartList::merge(list, other);
  CHECK(list == other);
}

TEST_CASE("A start list is bounded", "[image][start_list]") {
  StartList ranges;
  for (std::uint64_t i = 0; i < StartList::most_ranges + 10; ++i) {
    ranges.add({layer(0), 10 * i, 10 * i + 1});
  }
  CHECK(ranges.ranges().size() == StartList::most_ranges);
  ranges.add({layer(0), 1, 5});  // the first one grows
  CHECK(ranges.bytes() == StartList::most_ranges + 4);

  StartList bytes;
  bytes.add({layer(0), 5, StartList::most_bytes});
  bytes.add({layer(1), 0, 100});
  bytes.add({layer(2), 0, 100});
  CHECK(bytes.bytes() == StartList::most_bytes);
  CHECK(bytes.ranges().back() == StartRange{layer(1), 0, 5});
  CHECK(StartList::merge(ranges, bytes) == bytes);

  StartList layers;
  for (unsigned i = 0; i < StartList::most_layers + 2; ++i) layers.add({layer(i), 0, 1});
  CHECK(layers.ranges().size() == StartList::most_layers);
  layers.add({layer(0), 5, 6});
  CHECK(layers.ranges().size() == StartList::most_layers + 1);

  StartList none;
  constexpr auto last = std::numeric_limits<std::uint64_t>::max();
  for (auto const& [begin, end] : {std::pair{last - 1, last}, std::pair{0UL, last},
                                   std::pair{9UL, 9UL}, std::pair{9UL, 8UL}}) {
    none.add({layer(0), begin, end});
  }
  none.add({Digest::parse("sha512:" + std::string(128, '1')).value(), 0, 1});
  none.add({layer(0), 0, 1, StartList::most_age + 1});
  CHECK(none.empty());
  for (auto const* list : {&ranges, &bytes, &layers, &none}) {
    CHECK(StartList::decode(list->encode()) == *list);
  }
}

}  // namespace start_list_test
}  // namespace erofs_oci
