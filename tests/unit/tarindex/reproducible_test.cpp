// SPDX-License-Identifier: Apache-2.0
// The same layer gives the same bytes: in every piece that it may come in, whatever else the
// machine does meanwhile, from every compiler and with every sanitizer that these tests are built
// with.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>

#include "data_path.hpp"

namespace erofs_oci::tarindex {
namespace reproducible_test {

// Streams in pieces of one size.
class InPieces {
 public:
  InPieces(std::shared_ptr<Bytes const> bytes, std::size_t piece)
      : bytes_(std::move(bytes)), piece_(piece) {}
  [[nodiscard]] std::uint64_t size() const noexcept { return bytes_->size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return Memory(*bytes_).read_at(offset, out);
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    auto rest = std::span(*bytes_).subspan(static_cast<std::size_t>(offset),
                                           static_cast<std::size_t>(length));
    while (!rest.empty()) {
      auto const n = std::min(piece_, rest.size());
      if (!sink(rest.first(n))) break;
      rest = rest.subspan(n);
    }
    return {};
  }

 private:
  std::shared_ptr<Bytes const> bytes_;
  std::size_t piece_;
};

std::shared_ptr<Bytes const> contents(std::string const& name) {
  auto const file = Local::open(test_data("/") + name);
  REQUIRE(file.has_value());
  Bytes bytes(static_cast<std::size_t>(file->size()));
  REQUIRE(read_exact(*file, 0, bytes).has_value());
  return std::make_shared<Bytes const>(std::move(bytes));
}

// Of the tarindex and the index file, one behind the other. No checks of Catch: runs on threads.
std::string digest_of_both(std::shared_ptr<Bytes const> const& blob, std::size_t piece) {
  BuildOptions options;
  options.span_size = 256 << 10;
  auto const built = build_layer(InPieces(blob, piece), options);
  if (!built) return built.error().message();
  Sha256 hash;
  hash.update(built->tarindex);
  auto const ok = write_index_file(built->index, [&](std::span<std::byte const> bytes) {
    hash.update(bytes);
    return true;
  });
  return ok ? hash.finish().hex() : ok.error().message();
}

// Windows are packed by zlib, and another version of it may pack them otherwise: then, and after a
// change of a format on purpose, these are to be made again.
struct Known {
  std::string name;
  std::string digest;
};

std::vector<Known> const known{
    {"oci/basic.tar.gz", "e46ed5ac1dfc089b918579956c99a728a637ed39a920500c405aab0a8e95a3f0"},
    {"oci/ckpt.tar.gz", "670758fe7f2f0fb507c8e10a171fcef3d3918606b2c5795adc4b82f24d166e68"},
    {"oci/multi.tar.gz", "9a30bc65eabfa3ebe7fc9bf4f5f5bdab9ce20f0116f19c6f978dba0b7e320bd4"},
    {"tarindex/in/pax.tar", "713c506590f27eebc6d551154854304b4c631c09e4d6c4c8f158f909a36971e5"},
};

TEST_CASE("A layer has one index, whatever builds it", "[tarindex][build][reproducible]") {
  for (auto const& [name, digest] : known) {
    auto const blob = contents(name);
    for (std::size_t const piece : {777U, 4096U, 65536U, 1U << 20, 1U << 28}) {
      INFO(name << " in pieces of " << piece);
      CHECK(digest_of_both(blob, piece) == digest);
    }
  }
}

TEST_CASE("Builds at the same time do not change each other", "[tarindex][build][reproducible]") {
  auto const blob = contents("oci/ckpt.tar.gz");
  std::vector<std::string> found(6);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < found.size(); ++i) {
      threads.emplace_back([&, i] { found[i] = digest_of_both(blob, 1000 + 9001 * i); });
    }
  }
  for (auto const& digest : found) CHECK(digest == known[1].digest);
}

}  // namespace reproducible_test
}  // namespace erofs_oci::tarindex
