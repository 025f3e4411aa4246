// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/packed_index.hpp>  // first: proves that the header stands alone

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <catch.hpp>

#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

#include "input_tar.hpp"

namespace erofs_oci {
namespace packed_index_test {

constexpr std::uint64_t enough = 1 << 24;

/// A layer, its indexes, and how they look when they are packed.
struct Packed {
  Bytes blob;
  tarindex::BuiltLayer built;
  IndexFiles files;
  Bytes bytes;
  Descriptor layer;

  explicit Packed(Bytes const& tar) : blob(testing::gzip_member({tar, 6})) {
    built = tarindex::build_layer(Memory(blob)).value();
    files = index_files(built).value();
    bytes = pack_index(files).value();
    layer.digest = digest_of(blob);
    layer.size = blob.size();
  }
};

Bytes tar_with_links() {
  return testing::TarMaker()
      .file("here")
      .member({.name = "there", .typeflag = '1', .link = "of/a/lower/layer"})
      .end()
      .bytes();
}

TEST_CASE("A packed index opens as the one that was built", "[image][packed_index]") {
  for (auto const& tar : {input_tar("L1"), input_tar("odd"), tar_with_links()}) {
    Packed const packed(tar);

    auto const files = unpack_index(packed.bytes, enough);

    REQUIRE(files.has_value());
    CHECK(files->index == packed.files.index);
    CHECK(files->tarindex == packed.files.tarindex);
    CHECK(files->links == packed.files.links);
    auto const opened = open_index(*files, packed.layer);
    REQUIRE(opened.has_value());
    CHECK(opened->dangling == packed.built.layer.dangling);
    // The same indexes give the same bytes, wherever they come from.
    auto const again = index_files(*opened);
    REQUIRE(again.has_value());
    CHECK(pack_index(*again) == packed.bytes);
  }
  CHECK_FALSE(Packed(tar_with_links()).files.links.empty());
}

TEST_CASE("A packed index is a gzip file without a time", "[image][packed_index]") {
  Packed const packed(input_tar("basic"));

  CHECK(packed.bytes.size() < packed.files.index.size() + packed.files.tarindex.size());
  CHECK(std::to_integer<int>(packed.bytes[0]) == 0x1f);
  for (std::size_t i = 4; i < 8; ++i) CHECK(packed.bytes[i] == std::byte{0});
}

TEST_CASE("An index of another layer is refused", "[image][packed_index][error]") {
  Packed const packed(input_tar("basic"));
  Packed const other(input_tar("odd"));
  auto shorter = packed.layer;
  --shorter.size;

  CHECK(open_index(packed.files, other.layer).error().code == Errc::mismatch);
  CHECK(open_index(packed.files, shorter).error().code == Errc::mismatch);
}

TEST_CASE("Parts that do not belong together are refused", "[image][packed_index][error]") {
  Packed const packed(tar_with_links());
  Packed const other(input_tar("odd"));
  auto const refused = [&](IndexFiles const& files) {
    auto const opened = open_index(files, packed.layer);
    return !opened.has_value();
  };
  REQUIRE_FALSE(refused(packed.files));

  CHECK(refused({packed.files.index, other.files.tarindex, packed.files.links}));
  CHECK(refused({packed.files.index, packed.files.tarindex, {}}));
  CHECK(refused({packed.files.index, packed.files.tarindex, to_bytes(std::string("links"))}));
  CHECK(refused({{}, packed.files.tarindex, packed.files.links}));
}

TEST_CASE("Any byte that changes what the files are is noticed, and any end that comes early",
          "[image][packed_index][error]") {
  Packed const packed(tar_with_links());
  auto const opened = [&](Bytes const& bytes) -> std::optional<IndexFiles> {
    auto files = unpack_index(bytes, enough);
    if (!files || !open_index(*files, packed.layer)) return std::nullopt;
    return *std::move(files);
  };
  REQUIRE(opened(packed.bytes));

  for (std::size_t i = 0; i < packed.bytes.size(); ++i) {
    auto changed = packed.bytes;
    changed[i] ^= std::byte{0x40};
    // Not all bits of a gzip stream matter: the time, say, or how far behind a run of zeros is.
    if (auto const files = opened(changed)) {
      CHECK(files->index == packed.files.index);
      CHECK(files->tarindex == packed.files.tarindex);
      CHECK(files->links == packed.files.links);
    }
    CHECK_FALSE(
        opened(Bytes(packed.bytes.begin(), packed.bytes.begin() + static_cast<std::ptrdiff_t>(i))));
  }
  auto longer = packed.bytes;
  longer.push_back(std::byte{0});
  CHECK_FALSE(opened(longer));
}

TEST_CASE("A packed index takes no more memory than it may", "[image][packed_index][error]") {
  IndexFiles const zeros{Bytes(index_header_size), Bytes(10 << 20), {}};
  auto const packed = pack_index(zeros);
  REQUIRE(packed.value().size() < 20'000);
  auto const size = index_header_size + (10 << 20);

  CHECK(unpack_index(*packed, size - 1).error().code == Errc::unsupported);
  CHECK(unpack_index(*packed, size).has_value());
}

}  // namespace packed_index_test
}  // namespace erofs_oci
