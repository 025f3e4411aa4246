// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tar/reader.hpp>  // first: proves that the header stands alone

#include <catch.hpp>

#include <erofs_oci/source/memory.hpp>

#include "support.hpp"

namespace erofs_oci::tar {
namespace reader_test {

/// Zeros, but for the archive at the front; counts the bytes that are read.
class Counted {
 public:
  Counted(Bytes front, std::uint64_t size) : front_(std::move(front)), size_(size) {}
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    auto const n = readable(size_, offset, out.size());
    for (std::size_t i = 0; i < n; ++i) {
      auto const at = offset + i;
      out[i] = at < front_.size() ? front_[static_cast<std::size_t>(at)] : std::byte{0};
    }
    read_ += n;
    return n;
  }
  [[nodiscard]] std::uint64_t read() const { return read_; }

 private:
  Bytes front_;
  std::uint64_t size_;
  mutable std::uint64_t read_ = 0;
};

TEST_CASE("for_each_entry yields the same as the decoder", "[tar][reader][fixture]") {
  for (auto const& path : archives()) {
    INFO(path);
    auto archive = read_file(path);
    auto const expected = decode(archive);
    std::vector<Entry> entries;

    auto const reports =
        for_each_entry(Memory(std::move(archive)), [&](Entry&& entry) -> Result<void> {
          entries.push_back(std::move(entry));
          return {};
        });

    CHECK(entries == expected.entries);
    REQUIRE(reports.has_value() == expected.error.empty());
    if (reports) {
      CHECK(reports->list() == expected.reports);
    } else {
      CHECK(reports.error().code == expected.code);
    }
  }
}

TEST_CASE("for_each_entry jumps over data", "[tar][reader]") {
  constexpr std::uint64_t size = std::uint64_t{3} << 40;
  auto const front = testing::TarMaker().member({.name = "huge", .size = size}).bytes();
  Counted const source(front, size + 512 + 1024);
  std::vector<Entry> entries;

  auto const reports = for_each_entry(source, [&](Entry&& entry) -> Result<void> {
    entries.push_back(std::move(entry));
    return {};
  });

  REQUIRE(reports);
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].size == size);
  CHECK(source.read() <= 128 * 1024);
}

TEST_CASE("for_each_entry hands on the visitor's error", "[tar][reader][error]") {
  auto const archive = testing::TarMaker().file("a").end().bytes();

  auto const reports = for_each_entry(
      Memory(archive), [](Entry&&) -> Result<void> { return fail(Errc::stopping, "enough"); });

  REQUIRE_FALSE(reports);
  CHECK(reports.error().code == Errc::stopping);
}

}  // namespace reader_test
}  // namespace erofs_oci::tar
