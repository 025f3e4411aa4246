// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/image/detail/layer_data.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include <catch.hpp>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/find_checkpoints.hpp>
#include <erofs_oci/gzip/layer_index.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/testing/gzip_streams.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

namespace erofs_oci {
namespace layer_data_test {

constexpr std::uint64_t span_size = 64 * 1024;
constexpr std::uint64_t layer_size = 5 * span_size + 1000;

/// Different ones for each layer.
Bytes bytes_of(std::size_t number) {
  Bytes bytes(layer_size);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>((i * 7 + number * 31 + i / 251) & 0xff);
  }
  return bytes;
}

/// A plain layer with a digest for each span, which may be read as `there`.
detail::LayerData plain(Bytes const& bytes, AnySource there) {
  std::vector<VerifiedChunk> digests;
  for (std::uint64_t begin = 0; begin < bytes.size(); begin += span_size) {
    auto const end = std::min<std::uint64_t>(begin + span_size, bytes.size());
    digests.push_back({begin, end, digest_of(std::span(bytes).subspan(begin, end - begin))});
  }
  detail::LayerData layer{.blob = std::move(there)};
  layer.digests = std::move(digests);
  layer.span_size = span_size;
  return layer;
}

AnySource memory(Bytes bytes) {
  return AnySource(Memory(std::move(bytes)));
}

TEST_CASE("A span that is too long to be read as a whole is refused",
          "[image][layer_data][error]") {
  ImageReadOptions options;
  options.max_span = span_size;
  std::vector<detail::LayerData> layers;
  layers.push_back(plain(bytes_of(0), memory(bytes_of(0))));
  layers.push_back(plain(bytes_of(1), memory(bytes_of(1))));
  layers.back().name = "layer 1";
  CHECK(detail::open_layer_data(std::span(layers).first(1), options));

  layers.back().digests->front().end += 1;
  auto const held = detail::open_layer_data(std::span(layers).last(1), options);

  REQUIRE_FALSE(held);
  CHECK(held.error().code == Errc::unsupported);
  CHECK(held.error().context.find("layer 1: a span of 65537 bytes") != std::string::npos);
}

TEST_CASE("Many plain layers keep within the memory of all", "[image][layer_data]") {
  std::size_t const count = GENERATE(1U, 40U, 200U);
  ImageReadOptions options;
  options.cache_bytes = 8 * span_size;
  std::vector<detail::LayerData> layers;
  for (std::size_t i = 0; i < count; ++i) layers.push_back(plain(bytes_of(i), memory(bytes_of(i))));

  auto const held = detail::open_layer_data(layers, options);

  REQUIRE(held.has_value());
  std::uint64_t most = 0;
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < count; ++i) {
      Bytes out(layer_size);
      REQUIRE(layers[i].blob.size() == layer_size);
      REQUIRE(layers[i].blob.read_at(0, out).value() == layer_size);
      REQUIRE((out == bytes_of(i)));
      most = std::max(most, held->all());
    }
  }
  CHECK(most <= options.cache_bytes);
  CHECK(most > 0);
}

TEST_CASE("Plain layers of several span sizes keep within the memory of all",
          "[image][layer_data]") {
  ImageReadOptions options;
  options.cache_bytes = 16 * span_size;
  std::vector<detail::LayerData> layers;
  for (std::size_t i = 0; i < 30; ++i) {
    layers.push_back(plain(bytes_of(i), memory(bytes_of(i))));
    layers.back().span_size = span_size << (i % 3);
  }

  auto const held = detail::open_layer_data(layers, options);

  REQUIRE(held.has_value());
  for (std::size_t i = 0; i < 30; ++i) {
    Bytes out(layer_size);
    REQUIRE(layers[i].blob.read_at(0, out).value() == layer_size);
    REQUIRE((out == bytes_of(i)));
    CHECK(held->all() <= options.cache_bytes);
  }
}

TEST_CASE("Layers let go of what they hold, each cache of its share", "[image][layer_data]") {
  ImageReadOptions options;
  options.cache_bytes = 64 * span_size;
  std::vector<detail::LayerData> layers;
  for (std::size_t i = 0; i < 4; ++i) {
    layers.push_back(plain(bytes_of(i), memory(bytes_of(i))));
    layers.back().span_size = span_size << (i % 2);
  }
  auto const held = detail::open_layer_data(layers, options).value();
  auto const read_all = [&] {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      Bytes out(layer_size);
      REQUIRE(layers[i].blob.read_at(0, out).value() == layer_size);
      REQUIRE((out == bytes_of(i)));
    }
  };
  read_all();
  CHECK(held.all() >= 4 * layer_size);  // each layer ends with a whole chunk
  CHECK(held.all() <= options.cache_bytes);
  CHECK(held.data() == held.all());

  held.shrink_to(2 * layer_size);
  CHECK(held.all() <= 2 * layer_size);
  CHECK(held.all() > 0);
  read_all();
  held.shrink_to(0);
  CHECK(held.all() == 0);
  read_all();

  HeldMemory const none;
  none.shrink_to(0);
  CHECK(none.all() == 0);
}

TEST_CASE("A changed byte of a plain layer fails the reads of its span alone",
          "[image][layer_data][error]") {
  std::vector<detail::LayerData> layers;
  for (std::size_t i = 0; i < 3; ++i) {
    auto changed = bytes_of(i);
    if (i == 1) changed.back() ^= std::byte{1};
    layers.push_back(plain(bytes_of(i), memory(std::move(changed))));
  }

  auto const held = detail::open_layer_data(layers, {});

  REQUIRE(held.has_value());
  Bytes out(layer_size);
  CHECK(layers[0].blob.read_at(0, out).has_value());
  CHECK(layers[2].blob.read_at(0, out).has_value());
  auto const failed = layers[1].blob.read_at(0, out);
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().code == Errc::digest_mismatch);
  CHECK(layers[1].blob.read_at(0, std::span(out).first(1000)).has_value());
}

TEST_CASE("A local layer without digests is read as it is and not kept", "[image][layer_data]") {
  std::vector<detail::LayerData> layers;
  layers.push_back({.blob = memory(bytes_of(0))});

  auto const held = detail::open_layer_data(layers, {});

  REQUIRE(held.has_value());
  Bytes out(layer_size);
  REQUIRE(layers[0].blob.read_at(0, out).value() == layer_size);
  CHECK((out == bytes_of(0)));
  CHECK(held->all() == 0);
}

/// A remote source whose bytes come in 100 pieces, 5 ms apart.
struct Slowly {
  Bytes bytes;

  [[nodiscard]] std::uint64_t size() const noexcept { return bytes.size(); }
  [[nodiscard]] bool is_remote() const noexcept { return true; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return Memory(bytes).read_at(offset, out);
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    auto rest = std::span(bytes).subspan(static_cast<std::size_t>(offset),
                                         static_cast<std::size_t>(length));
    while (!rest.empty()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      auto const piece = rest.first(std::min<std::size_t>(rest.size(), span_size / 100));
      if (!sink(piece)) return {};
      rest = rest.subspan(piece.size());
    }
    return {};
  }
};

TEST_CASE("A plain layer whose bytes come slowly ends a read by its deadline",
          "[image][layer_data][error]") {
  std::vector<detail::LayerData> layers;
  layers.push_back(plain(bytes_of(0), AnySource(Slowly{bytes_of(0)})));
  ImageReadOptions options;
  options.deadline = std::chrono::milliseconds(50);
  REQUIRE(detail::open_layer_data(layers, options).has_value());
  Bytes out(1000);

  auto const n = layers[0].blob.read_at(0, out);

  REQUIRE_FALSE(n.has_value());
  CHECK(n.error().code == Errc::timed_out);
}

/// A remote source that notes what is asked of it.
struct Counted {
  Bytes bytes;
  std::shared_ptr<std::atomic<int>> requests = std::make_shared<std::atomic<int>>(0);
  std::shared_ptr<std::atomic<std::uint64_t>> lowest =  // offset of all
      std::make_shared<std::atomic<std::uint64_t>>(~std::uint64_t{0});

  [[nodiscard]] std::uint64_t size() const noexcept { return bytes.size(); }
  [[nodiscard]] bool is_remote() const noexcept { return true; }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    ++*requests;
    *lowest = std::min(lowest->load(), offset);
    return Memory(bytes).read_at(offset, out);
  }
};

TEST_CASE("Whole chunks of a plain layer are needed, and fetched ahead", "[image][layer_data]") {
  auto const together = GENERATE(false, true);
  auto const bytes = bytes_of(0);
  Counted const source{bytes};
  std::vector<detail::LayerData> layers;
  layers.push_back(plain(bytes_of(0), AnySource(source)));
  if (together) layers.push_back(plain(bytes_of(1), memory(bytes_of(1))));
  auto const digest = digest_of(bytes_of(0));
  layers[0].digest = digest;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> needed;
  ImageReadOptions options;
  options.on_need = [&](Digest const& layer, std::uint64_t begin, std::uint64_t end) {
    CHECK(layer == digest);
    needed.emplace_back(begin, end);
  };
  auto const held = detail::open_layer_data(layers, options);
  REQUIRE(held.has_value());
  REQUIRE(layers[0].start.has_value());
  auto const& start = *layers[0].start;
  CHECK(start.size == layer_size);
  CHECK(start.next_begin(span_size) == span_size);
  CHECK(start.next_begin(span_size + 1) == 2 * span_size);
  CHECK(start.next_begin(layer_size - 1) == layer_size);
  Bytes out(1000);

  CHECK(start.fetch(span_size, 2 * span_size + 10, {}) == 2 * span_size);
  CHECK(start.fetch(layer_size - 5, layer_size, {}) == layer_size - 5 * span_size);
  auto const requests = source.requests->load();
  REQUIRE(layers[0].blob.read_at(2 * span_size - 500, out).value() == out.size());
  CHECK(std::ranges::equal(out, std::span(bytes).subspan(2 * span_size - 500, 1000)));
  REQUIRE(layers[0].blob.read_at(layer_size - 300, out).value() == 300);

  CHECK(source.requests->load() == requests);
  CHECK(needed == decltype(needed){{span_size, 3 * span_size}, {5 * span_size, layer_size}});
  std::stop_source stop;
  stop.request_stop();
  auto const stopped = start.fetch(0, 10, stop.get_token());
  REQUIRE_FALSE(stopped.has_value());
  CHECK(stopped.error().code == Errc::stopping);
  CHECK(source.requests->load() == requests);
}

/// An index of a layer, and its blob.
struct Indexed {
  Bytes blob;
  StoredLayer stored;

  static Indexed make() {
    auto const tar = testing::TarMaker()
                         .member({.name = "f"}, testing::compressible_bytes(1'500'000, 3))
                         .end()
                         .bytes();
    auto blob = testing::gzip_member({tar, 6, 0, 20'000});
    Descriptor layer;
    layer.digest = digest_of(blob);
    layer.size = blob.size();
    auto stored = tarindex::build_layer(Memory(blob), {})
                      .and_then([](auto const& built) { return index_files(built); })
                      .and_then([&](auto const& files) { return open_index(files, layer); });
    REQUIRE(stored.has_value());
    return {std::move(blob), *std::move(stored)};
  }

  [[nodiscard]] std::vector<detail::LayerData> open(AnySource source) const {
    std::vector<detail::LayerData> layers;
    layers.push_back(detail::stored_data(std::move(source), stored, "layer").value());
    REQUIRE(detail::open_layer_data(layers, {}).has_value());
    return layers;
  }
};

TEST_CASE("A layer is read from an extra checkpoint on, and of its piece no byte before it",
          "[image][layer_data]") {
  auto indexed = Indexed::make();
  std::vector<ByteRange> const reads{{800'000, 804'096}};
  auto const start = *indexed.open(AnySource(Counted{indexed.blob}))[0].start;
  auto const found = start.find_checkpoints(AnySource(Memory(indexed.blob)), reads);
  REQUIRE(found.has_value());
  REQUIRE(found->points.size() == 1);
  auto const begin = found->points[0].start.first_byte();
  REQUIRE((begin - indexed.stored.index.index.spans[0].start.first_byte()) % index_piece_size > 0);
  auto const lowest_read = [&] {
    Counted const source{indexed.blob};
    Bytes out(4096);
    REQUIRE(indexed.open(AnySource(source))[0].blob.read_at(800'000, out).value() == out.size());
    return source.lowest->load();
  };
  auto without = found->points[0];
  without.rest = Digest();

  indexed.stored.extra.add(without);
  CHECK(lowest_read() < begin);

  indexed.stored.extra = {};
  indexed.stored.extra.add(found->points[0]);
  CHECK(lowest_read() == begin);
}

TEST_CASE("A local layer has nothing to fetch ahead", "[image][layer_data]") {
  std::vector<detail::LayerData> layers;
  layers.push_back(plain(bytes_of(0), memory(bytes_of(0))));
  layers[0].digest = digest_of(bytes_of(0));
  REQUIRE(detail::open_layer_data(layers, {}).has_value());
  CHECK_FALSE(layers[0].start.has_value());
}

}  // namespace layer_data_test
}  // namespace erofs_oci
