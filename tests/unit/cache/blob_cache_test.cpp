// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/cache/blob_cache.hpp>  // first: proves that the header stands alone

#include <filesystem>
#include <memory>
#include <string>

#include <sys/stat.h>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/cache/disk_cached.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/generators.hpp>

#include "faulty_files.hpp"

namespace erofs_oci {
namespace blob_cache_test {

using test::Scratch;
using CachePtr = std::shared_ptr<BlobCache const>;

constexpr std::uint64_t chunk = 4096;

CachePtr open_cache(Scratch const& scratch, std::uint64_t limit) {
  auto cache = BlobCache::open(scratch / "cache", {.limit = limit, .chunk = chunk});
  REQUIRE(cache.has_value());
  return *std::move(cache);
}

DiskCached<Memory> blob_of(CachePtr cache, std::uint64_t seed, std::size_t size) {
  auto const bytes = testing::patterned_bytes(size, seed);
  return {Memory(bytes), {std::move(cache), {digest_of(bytes), size}}};
}

void read_some(DiskCached<Memory> const& source, std::uint64_t offset, std::size_t size) {
  Bytes out(size);
  REQUIRE(source.read_at(offset, out).value() == size);
}

void read_whole(DiskCached<Memory> const& source) {
  read_some(source, 0, static_cast<std::size_t>(source.size()));
}

std::uint64_t usage(CachePtr const& cache) {
  std::uint64_t sum = 0;
  auto const blobs = cache->list().value();
  for (auto const& blob : blobs) sum += blob.on_disk;
  return sum;
}

TEST_CASE("A cache stays below its limit, and what was unused longest goes",
          "[cache][blob_cache]") {
  Scratch const scratch;
  auto const cache = open_cache(scratch, 1 << 20);
  std::vector<std::string> names;
  for (std::uint64_t i = 0; i < 12; ++i) {
    auto const source = blob_of(cache, i, 40 * chunk);  // 160 KiB, and 8 KiB for the table
    read_whole(source);
    names.push_back(source.blob().name().text());
    CHECK(usage(cache) <= (1 << 20) + (1 << 14) + 2 * chunk);
  }
  std::vector<std::string> left;
  auto const blobs = cache->list().value();
  for (auto const& blob : blobs) left.push_back(blob.name.text());
  REQUIRE(left.size() >= 4);
  CHECK(left == std::vector(names.end() - static_cast<std::ptrdiff_t>(left.size()), names.end()));
  CHECK(cache->counts().evicted > 0);
}

TEST_CASE("What an older version has kept goes", "[cache][blob_cache]") {
  Scratch const scratch;
  std::filesystem::create_directories(scratch / "cache/blobs-1/x");
  std::filesystem::create_directories(scratch / "cache/blobs-2/x");
  std::filesystem::create_directories(scratch / "cache/documents-1");
  static_cast<void>(open_cache(scratch, 1 << 20));
  CHECK_FALSE(std::filesystem::exists(scratch / "cache/blobs-1"));
  CHECK_FALSE(std::filesystem::exists(scratch / "cache/blobs-2"));
  CHECK(std::filesystem::exists(scratch / "cache/documents-1"));
}

TEST_CASE("A blob that is larger than the cache keeps what was used last", "[cache][blob_cache]") {
  Scratch const scratch;
  auto const cache = open_cache(scratch, 1 << 20);
  auto const source = blob_of(cache, 1, 1000 * chunk);
  read_whole(source);
  CHECK(usage(cache) <= (1 << 20) + (1 << 16));
  CHECK(source.blob().kept() > (1 << 19));
  auto const before = cache->counts();
  read_some(source, 990 * chunk, 10 * chunk);
  CHECK(cache->counts().hits == before.hits + 10);
  read_some(source, 0, 10 * chunk);
  CHECK(cache->counts().misses == before.misses + 10);
}

TEST_CASE("Blobs that somebody reads are emptied, others removed", "[cache][blob_cache]") {
  Scratch const scratch;
  auto const cache = open_cache(scratch, 1 << 24);
  auto const used = blob_of(cache, 1, 10 * chunk);
  read_whole(used);
  read_whole(blob_of(cache, 2, 10 * chunk));
  REQUIRE(cache->list()->size() == 2);
  auto const pruned = cache->prune(0);
  REQUIRE(pruned.has_value());
  CHECK(pruned->size() == 2);
  auto const left = *cache->list();
  REQUIRE(left.size() == 1);
  CHECK(left[0].name == used.blob().name());
  CHECK(left[0].on_disk <= chunk);
  CHECK(cache->look_at(left[0].name)->kept == 0);
  read_whole(used);  // and is there again
  CHECK(cache->look_at(left[0].name)->kept == 10 * chunk);
}

TEST_CASE("prune() keeps what was used lately", "[cache][blob_cache]") {
  Scratch const scratch;
  auto const cache = open_cache(scratch, 1 << 24);
  for (std::uint64_t i = 0; i < 3; ++i) read_whole(blob_of(cache, i, 10 * chunk));
  auto const all = *cache->list();
  CHECK(cache->prune(1 << 24)->empty());
  auto const gone = *cache->prune(1 << 24, all[1].used);
  REQUIRE(gone.size() == 1);
  CHECK(gone[0].name == all[0].name);
  CHECK(cache->prune(usage(cache) - 1)->size() == 1);
}

TEST_CASE("verify() forgets what is damaged", "[cache][blob_cache]") {
  Scratch const scratch;
  auto const cache = open_cache(scratch, 1 << 24);
  auto const source = blob_of(cache, 1, 10 * chunk);
  read_whole(source);
  auto const name = source.blob().name();
  CHECK(cache->verify(name)->damaged == 0);
  auto const file = cache->open_file(name, O_RDWR);
  REQUIRE(file->write(3, Bytes(chunk)).has_value());  // whole, but wrong: only its user can tell
  CHECK(cache->verify(name)->damaged == 0);
  Bytes const other(1, std::byte{1});
  REQUIRE(::pwrite(file->fd(), other.data(), 1, static_cast<off_t>(file->layout().data_at(3))) ==
          1);
  auto const found = cache->verify(name);
  CHECK(found->damaged == 1);
  CHECK(found->kept == 9 * chunk);
  CHECK(cache->verify(name)->damaged == 0);
}

TEST_CASE("A cache that others may write to is not used", "[cache][blob_cache][error]") {
  Scratch const scratch;
  REQUIRE(open_cache(scratch, 1 << 20));
  REQUIRE(::chmod((scratch / "cache").c_str(), 0777) == 0);
  auto const refused = BlobCache::open(scratch / "cache");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == std::errc::operation_not_permitted);
  REQUIRE(::chmod((scratch / "cache").c_str(), 0700) == 0);
  CHECK(BlobCache::open(scratch / "cache").has_value());
  CHECK_FALSE(BlobCache::open(scratch / "cache", {.owner = ::geteuid() + 1}).has_value());
}

TEST_CASE("The limit by default is a tenth of the file system, at most 10 GiB",
          "[cache][blob_cache]") {
  Scratch const scratch;
  auto const cache = BlobCache::open(scratch / "cache");
  REQUIRE(cache.has_value());
  auto const space = std::filesystem::space(scratch / "cache");
  CHECK((**cache).limit() <= std::uint64_t{10} << 30);
  CHECK((**cache).limit() <= space.capacity / 10);
  CHECK((**cache).limit() > 0);
}

TEST_CASE("Names of blobs are read as they are written", "[cache][blob_cache]") {
  auto const digest = digest_of(as_bytes("x"));
  BlobName const name{digest, 17};
  CHECK(name.text() == "sha256-" + digest.hex() + ".17");
  CHECK(BlobName::parse(name.text()) == name);
  for (auto const& text :
       {std::string(), std::string("x"), digest.to_string() + ".17", name.text() + "0000000000000",
        "sha256-" + digest.hex(), "sha256-" + digest.hex() + ".017", "sha1-" + digest.hex() + ".1",
        "sha256-" + digest.hex() + ".-1", name.text() + "/"}) {
    CAPTURE(text);
    CHECK_FALSE(BlobName::parse(text).has_value());
  }
}

}  // namespace blob_cache_test
}  // namespace erofs_oci
