// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tar/writer.hpp>  // first: proves that the header stands alone

#include <catch.hpp>
#include <rapidcheck/catch.h>

#include <erofs_oci/tar/decoder.hpp>

namespace erofs_oci::tar {
namespace writer_test {

/// An archive of one member whose stored bytes are all 'd'.
Bytes archive(Entry const& entry) {
  auto out = encode_header(entry).value();
  auto const stored = static_cast<std::size_t>(stored_size(entry));
  out.insert(out.end(), stored, std::byte{'d'});
  out.resize(out.size() + padding(stored) + end_size);
  return out;
}

std::vector<Entry> decode(Bytes const& bytes) {
  std::vector<Entry> entries;
  auto const visit = [&](Entry&& entry) -> Result<void> {
    entries.push_back(std::move(entry));
    return {};
  };
  Decoder decoder;
  REQUIRE(decoder.push(bytes, visit).has_value());
  REQUIRE(decoder.finish(visit).has_value());
  CHECK(decoder.reports().count() == 0);
  return entries;
}

/// What comes back of an entry, but for where it lies.
Entry round_trip(Entry const& entry) {
  auto entries = decode(archive(entry));
  REQUIRE(entries.size() == 1);
  auto& back = entries.front();
  back.header_offset = entry.header_offset;
  back.sparse = entry.sparse;
  back.copies = entry.copies;
  for (auto& extent : back.extents) extent.tar_offset = 0;
  return back;
}

rc::Gen<std::string> name(std::size_t most) {
  return rc::gen::exec([most] {
    auto const length =
        *rc::gen::elementOf(std::vector<std::size_t>{1, 2, 99, 100, 101, 255, most});
    return *rc::gen::container<std::string>(
        length, rc::gen::suchThat(rc::gen::arbitrary<char>(),
                                  [](char c) { return c != '\0' && c != '\n'; }));
  });
}

rc::Gen<std::uint32_t> id() {
  return rc::gen::element<std::uint32_t>(0, 1000, (1u << 21) - 1, 1u << 21, ~0u - 1);
}

Entry any_entry() {
  Entry entry;
  entry.type = *rc::gen::element(Type::regular, Type::hard_link, Type::symlink, Type::char_device,
                                 Type::block_device, Type::directory, Type::fifo);
  entry.path = *name(4000);
  if (entry.type == Type::hard_link || entry.type == Type::symlink) entry.link = *name(4000);
  entry.mode = *rc::gen::inRange<std::uint32_t>(0, 010000);
  entry.uid = *id();
  entry.gid = *id();
  entry.mtime.seconds =
      *rc::gen::element<std::int64_t>(0, 1, -1, -2, 1'700'000'000, -1'700'000'000,
                                      (std::int64_t{1} << 33) - 1, std::int64_t{1} << 33);
  entry.mtime.nanoseconds = *rc::gen::element<std::uint32_t>(0, 0, 1, 500'000'000, 999'999'999);
  if (entry.type == Type::char_device || entry.type == Type::block_device) {
    entry.dev_major = *rc::gen::inRange<std::uint32_t>(0, 4096);
    entry.dev_minor = *rc::gen::inRange<std::uint32_t>(0, 1 << 20);
  }
  auto const xattrs = *rc::gen::inRange(0, 3);
  for (int i = 0; i < xattrs && entry.type != Type::hard_link; ++i) {
    entry.xattrs.push_back(
        {"user.n" + std::to_string(i), to_bytes(*rc::gen::arbitrary<std::string>())});
  }
  return entry;
}

TEST_CASE("A member comes back as it was written", "[tar][writer][property]") {
  rc::prop("for all kinds of members, long names, large numbers and attributes", [] {
    auto const entry = any_entry();

    RC_ASSERT(round_trip(entry) == entry);
  });
}

TEST_CASE("A file's holes come back", "[tar][writer][property]") {
  rc::prop("for all maps", [] {
    Entry entry;
    entry.path = *name(300);
    std::uint64_t at = 0;
    auto const runs = *rc::gen::inRange(0, 40);
    for (int i = 0; i < runs; ++i) {
      at += *rc::gen::inRange<std::uint64_t>(i == 0 ? 0 : 1, 5000);
      auto const length = *rc::gen::inRange<std::uint64_t>(1, 2000);
      entry.extents.push_back({at, 0, length});
      at += length;
    }
    entry.size = at + *rc::gen::element<std::uint64_t>(0, 1, 100'000, std::uint64_t{1} << 40);

    auto const back = round_trip(entry);

    RC_ASSERT(back.size == entry.size);
    RC_ASSERT(back.extents == entry.extents);
    RC_ASSERT(back.path == entry.path);
  });
}

TEST_CASE("A small member takes one block, in plain ustar", "[tar][writer]") {
  Entry entry;
  entry.path = "etc/passwd";
  entry.mode = 0644;
  entry.size = 3;
  entry.extents = {{0, 0, 3}};

  auto const header = encode_header(entry).value();

  CHECK(header.size() == block_size);
  CHECK(as_text(header).substr(257, 8) == std::string_view("ustar\00000", 8));
  CHECK(padding(3) == 509);
  CHECK(padding(512) == 0);
  CHECK(padding(0) == 0);
}

TEST_CASE("An attribute that PAX cannot name is refused", "[tar][writer][error]") {
  Entry entry;
  entry.path = "a";
  entry.xattrs = {{"user.a=b", {}}};

  auto const header = encode_header(entry);

  REQUIRE_FALSE(header.has_value());
  CHECK(header.error().code == Errc::unsupported);
  CHECK(header.error().context.find("user.a=b") != std::string::npos);
}

}  // namespace writer_test
}  // namespace erofs_oci::tar
