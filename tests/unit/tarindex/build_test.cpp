// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/tarindex/build.hpp>  // first: proves that the header stands alone

#include <chrono>
#include <filesystem>
#include <string>

#include <catch.hpp>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/gzip/gzran.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/index_file.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>

#include "data_path.hpp"

namespace erofs_oci::tarindex {
namespace build_test {

std::string const tar_data = test_data("/tarindex/");

Bytes contents(std::string const& path) {
  auto const file = Local::open(path);
  REQUIRE(file.has_value());
  Bytes bytes(static_cast<std::size_t>(file->size()));
  REQUIRE(read_exact(*file, 0, bytes).has_value());
  return bytes;
}

Bytes gzipped(Bytes const& tar) {
  return testing::gzip_member({tar, 6});
}

// Every regular file's bytes must be the tar's own, at the place that the tree names.
std::size_t check_files(Bytes const& tarindex, Bytes const& tar, Layer const& layer) {
  auto flat = tarindex;
  flat.insert(flat.end(), tar.begin(), tar.end());
  flat.resize((flat.size() + 511) / 512 * 512);
  auto const reader = erofs::Reader<Memory>::open(Memory(flat));
  REQUIRE(reader.has_value());
  auto const tree = erofs::load_tree(*reader, erofs::Marks::trusted);
  REQUIRE(tree.has_value());
  std::size_t files = 0;
  std::vector<std::pair<erofs::NodeId, erofs::NodeId>> todo{{erofs::root_id, erofs::root_id}};
  while (!todo.empty()) {
    auto const [a, b] = todo.back();
    todo.pop_back();
    auto const& built = layer.tree[a];
    auto const& read = (*tree)[b];
    CHECK(built.kind == read.kind);
    CHECK(built.permissions == read.permissions);
    CHECK(built.mtime == read.mtime);
    if (built.directory() == nullptr) {
      ++files;
      continue;
    }
    CHECK(built.directory()->implied == read.directory()->implied);
    CHECK(built.directory()->opaque == read.directory()->opaque);
    REQUIRE(built.directory()->children.size() == read.directory()->children.size());
    for (auto const& [name, id] : built.directory()->children) {
      auto const* const other = tree->find(b, name);
      REQUIRE(other != nullptr);
      todo.push_back({id, *other});
    }
  }
  return files;
}

TEST_CASE("One pass makes a tarindex and an index that fit each other", "[tarindex][build]") {
  auto const name =
      GENERATE("basic", "pax", "gnu", "odd", "whiteout", "prefix", "sparse-gnu", "L1");
  auto const tar = contents(tar_data + "in/" + std::string(name) + ".tar");
  auto const packed = GENERATE(true, false);
  CAPTURE(name, packed);
  auto const blob = packed ? gzipped(tar) : tar;

  auto const built = build_layer(Memory(blob));

  if (!built) FAIL(built.error().message());
  CHECK(built->index.encoding == (packed ? BlobEncoding::gzip : BlobEncoding::plain));
  CHECK(built->index.blob == digest_of(blob));
  CHECK(built->index.diff_id == digest_of(tar));
  CHECK(built->index.tarindex == digest_of(built->tarindex));
  CHECK(built->index.tarindex_size == built->tarindex.size());
  CHECK(check_files(built->tarindex, tar, built->layer) > 0);
}

TEST_CASE("The same layer gives the same bytes, however it comes", "[tarindex][build]") {
  auto const tar = contents(tar_data + "in/basic.tar");
  auto const packed = build_layer(Memory(gzipped(tar)));
  auto const plain = build_layer(Memory(tar));
  REQUIRE(packed.has_value());
  REQUIRE(plain.has_value());
  CHECK(packed->tarindex == plain->tarindex);
}

TEST_CASE("The index of a real layer takes less than 0.4 % of it", "[tarindex][build]") {
  std::string const fixture = fixtures("/debian-essential/");
  if (!std::filesystem::exists(fixture)) {
    WARN("skipped: no large layer; see EROFS_OCI_FIXTURES");
    return;
  }
  auto const blob = Local::open(fixture + "layer.tar.gz");
  REQUIRE(blob.has_value());
  auto const built = build_layer(*blob);

  REQUIRE(built.has_value());
  CHECK(built->index.diff_id.hex() ==
        "1675714bdf8f4f6c677fcb4662c2c3eda6cfbec12727c3fa8438fca43b6e9e81");
  std::uint64_t size = 0;
  REQUIRE(write_index_file(built->index, [&](auto bytes) {
    size += bytes.size();
    return true;
  }));
  CHECK(size * 1000 < blob->size() * 4);
  CHECK(built->index.decoded_size / built->index.spans.size() < (1 << 20) * 5 / 4);
}

TEST_CASE("What is no layer gives an error that says why", "[tarindex][build][error]") {
  auto const refused = [](Bytes const& blob) {
    auto const built = build_layer(Memory(blob));
    REQUIRE_FALSE(built.has_value());
    return built.error();
  };
  auto const tar = contents(tar_data + "in/basic.tar");
  CHECK(refused(to_bytes("\x28\xb5\x2f\xfd zstd")).code == Errc::unsupported);
  auto short_of_data = contents(tar_data + "in/trunc.tar");  // which lacks some of its padding
  CHECK(build_layer(Memory(short_of_data)).has_value());
  short_of_data.resize(1024 + 512 + 699);
  CHECK(refused(short_of_data).code == Errc::truncated);
  CHECK(refused(gzipped(short_of_data)).code == Errc::truncated);
  auto cut = gzipped(tar);
  cut.resize(cut.size() - 1);
  CHECK(refused(cut).code == Errc::truncated);
  CHECK(refused(to_bytes("this is no tar at all, but long enough to be looked at")).code ==
        Errc::truncated);
  CHECK(refused(Bytes(1024, std::byte{7})).code == Errc::corrupt);

  std::stop_source stop;
  stop.request_stop();
  BuildOptions options;
  options.stop = stop.get_token();
  CHECK(build_layer(Memory(tar), options).error().code == Errc::stopping);
}

TEST_CASE("A layer may not decode to more, nor take longer, than allowed",
          "[tarindex][build][error]") {
  auto const tar = contents(tar_data + "in/basic.tar");
  BuildOptions options;
  options.max_decoded = tar.size();
  CHECK(build_layer(Memory(gzipped(tar)), options));
  options.max_decoded = tar.size() - 1;
  auto const more = build_layer(Memory(gzipped(tar)), options);
  REQUIRE_FALSE(more);
  CHECK(more.error().code == Errc::unsupported);
  CHECK(more.error().context.find("oci.index_size") != std::string::npos);

  BuildOptions late;
  late.deadline = std::chrono::steady_clock::now();
  CHECK(build_layer(Memory(tar), late).error().code == Errc::timed_out);
}

TEST_CASE("An empty blob is an empty layer", "[tarindex][build]") {
  auto const built = build_layer(Memory(Bytes{}));
  REQUIRE(built.has_value());
  CHECK(built->index.decoded_size == 0);
  CHECK(built->layer.tree.root().directory()->children.empty());
}

}  // namespace build_test
}  // namespace erofs_oci::tarindex
