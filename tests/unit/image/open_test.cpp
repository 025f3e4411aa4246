// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/open.hpp>  // first: proves that the header stands alone

#include <functional>

#include <zlib.h>

#include <catch.hpp>

#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/erofs/format.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/source/memory.hpp>

#include "data_path.hpp"

namespace erofs_oci {
namespace open_test {

using Catch::Contains;

/// A file of tests/data/oci, whole.
Bytes data(std::string const& name) {
  auto const file = Local::open(test_data("/oci/") + name);
  if (!file) FAIL(file.error().message());
  Bytes bytes(static_cast<std::size_t>(file->size()));
  if (auto const ok = read_exact(*file, 0, bytes); !ok) FAIL(ok.error().message());
  return bytes;
}

AnySource memory(Bytes bytes) {
  return AnySource(Memory(std::move(bytes)));
}

/// All members of a gzip file, by zlib's own hand.
Bytes gunzip(Bytes const& packed) {
  z_stream stream{};
  REQUIRE(inflateInit2(&stream, 15 + 16) == Z_OK);
  Bytes out;
  Bytes input = packed;
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  while (stream.avail_in > 0) {
    Bytes piece(65536);
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    auto const code = inflate(&stream, Z_NO_FLUSH);
    REQUIRE((code == Z_OK || code == Z_STREAM_END));
    out.insert(out.end(), piece.begin(),
               piece.end() - static_cast<std::ptrdiff_t>(stream.avail_out));
    if (code == Z_STREAM_END) inflateReset(&stream);
  }
  inflateEnd(&stream);
  return out;
}

Bytes concat(Bytes a, Bytes const& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Bytes read_all(AnySource const& source) {
  Bytes bytes(static_cast<std::size_t>(source.size()));
  auto const n = source.read_at(0, bytes);
  if (!n) FAIL(n.error().message());
  REQUIRE(*n == bytes.size());
  return bytes;
}

/// What a 32-bit field of the tarindex's only device slot is changed to.
void poke(Bytes& tarindex, std::size_t field, std::uint32_t value) {
  auto const slot =
      std::size_t{load_le<std::uint16_t>(std::span(tarindex).subspan<1024 + 88, 2>())} * 128;
  store_le(value, std::span(tarindex).subspan(slot + field).first<4>());
}

/// The same image, its superblock's checksum not claimed to be there.
Bytes without_checksum(Bytes image) {
  auto const features = std::span(image).subspan<1024 + 8, 4>();
  store_le(load_le<std::uint32_t>(features) & ~erofs::compat::checksum, features);
  return image;
}

std::uint32_t blocks_of(Bytes const& tarindex) {
  auto const slot =
      std::size_t{load_le<std::uint16_t>(std::span(tarindex).subspan<1024 + 88, 2>())} * 128;
  return load_le<std::uint32_t>(std::span(tarindex).subspan(slot + 64).first<4>());
}

std::string error_of(LayerSources layer) {
  auto const image = open_image(std::move(layer));
  return image ? "no error" : image.error().message();
}

TEST_CASE("An image is the tarindex and the decompressed tar behind it", "[image]") {
  auto const name = GENERATE("basic", "multi", "ckpt");
  auto const tarindex = data(std::string("gz-") + name + ".erofs");
  auto tar = gunzip(data(std::string(name) + ".tar.gz"));

  auto const image = open_image({memory(data(std::string(name) + ".tar.gz")), memory(tarindex),
                                 memory(data(std::string("gz-") + name + ".zinfo"))});

  REQUIRE(image.has_value());
  tar.resize(std::size_t{blocks_of(tarindex)} * 512);
  CHECK((read_all(image->source) == concat(tarindex, tar)));
  CHECK(image->zeros_from == image->source.size());
}

TEST_CASE("An image of a plain tar needs no zinfo", "[image]") {
  auto const tarindex = data("gz-basic.erofs");
  auto tar = gunzip(data("basic.tar.gz"));

  auto const image = open_image({memory(tar), memory(tarindex)});

  REQUIRE(image.has_value());
  tar.resize(std::size_t{blocks_of(tarindex)} * 512);
  CHECK((read_all(image->source) == concat(tarindex, tar)));
}

TEST_CASE("A tar that ends inside the last block is filled with zeros", "[image]") {
  auto const tarindex = data("gz-basic.erofs");
  auto const length = std::size_t{blocks_of(tarindex)} * 512;
  auto tar = gunzip(data("basic.tar.gz"));
  tar.resize(length - 511);

  auto const image = open_image({memory(tar), memory(tarindex)});

  REQUIRE(image.has_value());
  tar.resize(length);
  CHECK((read_all(image->source) == concat(tarindex, tar)));
  CHECK(image->zeros_from == tarindex.size() + length - 511);
}

/// A native EROFS image: any of ours with its device table taken away.
Bytes native() {
  auto image = without_checksum(data("gz-basic.erofs"));
  store_le<std::uint16_t>(0, std::span(image).subspan<1024 + 86, 2>());  // no device
  image.resize(image.size() + 100);
  return image;
}

TEST_CASE("A native EROFS blob is mounted as it is", "[image]") {
  auto bytes = native();

  auto const image = open_image({memory(bytes)});

  REQUIRE(image.has_value());
  CHECK(image->zeros_from == bytes.size());
  bytes.resize((bytes.size() + 511) / 512 * 512);
  CHECK((read_all(image->source) == bytes));
}

TEST_CASE("A read at or past the end yields nothing", "[image]") {
  auto const image = open_image({memory(data("basic.tar.gz")), memory(data("gz-basic.erofs")),
                                 memory(data("gz-basic.zinfo"))});
  REQUIRE(image.has_value());
  auto const size = image->source.size();
  for (auto const offset : {size, size + 1, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    Bytes out(4096, std::byte{0xAA});
    auto const n = image->source.read_at(offset, out);

    CAPTURE(offset, size);
    REQUIRE(n.has_value());
    CHECK(*n == 0);
    CHECK((out == Bytes(4096, std::byte{0xAA})));
  }
}

TEST_CASE("Parts that do not belong together are refused at open", "[image][error]") {
  auto const blob = data("basic.tar.gz");
  auto const tarindex = data("gz-basic.erofs");
  auto const zinfo = data("gz-basic.zinfo");

  SECTION("a tarindex of a longer tar") {
    CHECK_THAT(error_of({memory(blob), memory(data("gz-ckpt.erofs")), memory(zinfo)}),
               Contains("has 133120 bytes, the tarindex describes 13106688") &&
                   Contains("parts do not belong together"));
  }
  SECTION("a tarindex of a shorter tar") {
    CHECK_THAT(
        error_of({memory(data("ckpt.tar.gz")), memory(tarindex), memory(data("gz-ckpt.zinfo"))}),
        Contains("goes on at offset 127488, where the tarindex ends it"));
  }
  SECTION("a zinfo of a longer blob") {
    CHECK_THAT(error_of({memory(blob), memory(tarindex), memory(data("gz-ckpt.zinfo"))}),
               Contains("the last checkpoint is at blob offset") && Contains("has 114714 bytes"));
  }
  SECTION("a blob that is no gzip, with a zinfo") {
    CHECK_THAT(error_of({memory(gunzip(blob)), memory(tarindex), memory(zinfo)}),
               Contains("offset 0: not gzip, but a zinfo is given for it"));
  }
  SECTION("a tarindex that places its data elsewhere") {
    auto moved = without_checksum(tarindex);
    poke(moved, 68, 7);
    CHECK_THAT(error_of({memory(blob), memory(moved), memory(zinfo)}),
               Contains("it has 3072 bytes, but places its data at offset 3584"));
  }
  SECTION("a tarindex that was cut") {
    auto cut = tarindex;
    cut.resize(2560);
    CHECK_THAT(error_of({memory(blob), memory(cut), memory(zinfo)}),
               Contains("it has 2560 bytes, but places its data at offset 3072"));
  }
  SECTION("a tar that does not begin with a header") {
    auto tar = gunzip(blob);
    tar[0] ^= std::byte{1};
    CHECK_THAT(error_of({memory(tar), memory(tarindex)}), Contains("offset 0: not a tar"));
  }
  SECTION("a tar that is a block too short") {
    auto tar = gunzip(blob);
    tar.resize(std::size_t{blocks_of(tarindex)} * 512 - 512);
    CHECK_THAT(error_of({memory(tar), memory(tarindex)}),
               Contains("has 126976 bytes, the tarindex describes 127488"));
  }
}

TEST_CASE("A tarindex that is none is refused", "[image][error]") {
  auto const blob = data("basic.tar.gz");
  auto const zinfo = data("gz-basic.zinfo");
  auto bad = without_checksum(data("gz-basic.erofs"));
  std::string expected;

  SECTION("another magic") {
    bad[1024] ^= std::byte{1};
    expected = "offset 1024: no EROFS superblock";
  }
  SECTION("no device") {
    store_le<std::uint16_t>(0, std::span(bad).subspan<1024 + 86, 2>());
    expected = "an EROFS image with 0 extra devices";
  }
  SECTION("two devices") {
    store_le<std::uint16_t>(2, std::span(bad).subspan<1024 + 86, 2>());
    expected = "an EROFS image with 2 extra devices";
  }
  SECTION("no address") {
    poke(bad, 68, 0);
    expected = "device 1 has no address";
  }
  SECTION("a device table past the end") {
    store_le<std::uint16_t>(65535, std::span(bad).subspan<1024 + 88, 2>());
    expected = "device table at offset 8388480";
  }
  SECTION("a block size that does not exist") {
    bad[1036] = std::byte{31};
    expected = "block size 2^31";
  }
  SECTION("a wrong checksum") {
    store_le<std::uint32_t>(1, std::span(bad).subspan<1024 + 8, 4>());
    expected = "wrong checksum";
  }
  SECTION("too few bytes") {
    bad.resize(1100);
    expected = "1100 bytes are too few";
  }
  SECTION("an end beyond all devices") {
    // 48-bit addresses and blocks of 64 KiB: 2^49 of them would end at 2^65.
    bad[1036] = std::byte{16};
    store_le<std::uint32_t>(0x88, std::span(bad).subspan<1024 + 80, 4>());
    poke(bad, 64, ~0u);
    poke(bad, 68, ~0u);
    poke(bad, 72, ~0u);
    expected = "where no device can end";
  }

  CHECK_THAT(error_of({memory(blob), memory(bad), memory(zinfo), "x"}), Contains(expected));
}

TEST_CASE("A blob in another form is refused with advice", "[image][error]") {
  auto const tarindex = data("gz-basic.erofs");

  CHECK_THAT(error_of({memory(data("basic.tar.gz")), memory(tarindex)}),
             Contains("gzip; give the zinfo"));
  CHECK_THAT(error_of({memory(data("basic.tar.gz"))}), Contains("gzip; give the zinfo"));
  CHECK_THAT(
      error_of({memory(Bytes{std::byte{0x28}, std::byte{0xb5}, std::byte{0x2f}, std::byte{0xfd}}),
                memory(tarindex)}),
      Contains("zstd"));
  CHECK_THAT(error_of({memory(data("basic.tar.gz")), memory(tarindex), std::nullopt,
                       "application/vnd.oci.image.layer.v1.tar+zstd"}),
             Contains("application/vnd.oci.image.layer.v1.tar+zstd") && Contains("zstd cannot"));
  CHECK_THAT(error_of({memory(gunzip(data("basic.tar.gz")))}),
             Contains("no tarindex is given, so it must be an EROFS image"));
  CHECK_THAT(error_of({memory(tarindex)}), Contains("whose data is on 1 other devices"));
}

}  // namespace open_test
}  // namespace erofs_oci
