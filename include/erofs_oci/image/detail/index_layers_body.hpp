// SPDX-License-Identifier: Apache-2.0
/// @file
/// What image/index_layers.hpp only declares.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/cached.hpp>
#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/image/detail/index_store_body.hpp>
#include <erofs_oci/image/index_layers.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>
#include <erofs_oci/tarindex/layer_index_builder.hpp>

namespace erofs_oci {

EROFS_OCI_BODY std::string layer_name(std::size_t number, Descriptor const& descriptor) {
  return "layer " + std::to_string(number) + " (" + descriptor.digest.to_string() + ")";
}

EROFS_OCI_BODY Result<StoredLayer> opened_layer(tarindex::BuiltLayer built) {
  EROFS_OCI_TRY_ASSIGN(auto file, detail::index_file_bytes(built.index));
  EROFS_OCI_TRY_ASSIGN(auto index, read_index_file(AnySource(Memory(std::move(file)))));
  return StoredLayer{std::move(index),
                     AnySource(Memory(std::move(built.tarindex))),
                     std::move(built.layer.dangling),
                     {},
                     {},
                     {}};
}

EROFS_OCI_BODY Result<bool> is_erofs_layer(ImageLayer const& layer) {
  auto const format = layer_format(layer.descriptor.media_type);
  if (format == LayerFormat::erofs) return true;
  if (format != LayerFormat::unknown) return false;
  std::array<std::byte, 4> magic{};
  if (layer.blob.size() < erofs::superblock_offset + erofs::Superblock::on_disk_size) return false;
  EROFS_OCI_TRY(read_exact(layer.blob, erofs::superblock_offset, magic));
  return load_le<std::uint32_t>(magic) == erofs::magic;
}

namespace detail {

/// Makes every file's data lie on device 1, at the place that it has in the image.
[[nodiscard]] inline Result<void> move_to_device(erofs::Tree& tree) {
  constexpr std::uint64_t block = 512;
  for (erofs::NodeId id = 0; id < tree.size(); ++id) {
    auto* const file = tree[id].regular();
    if (file == nullptr) continue;
    for (auto& extent : file->extents) {
      if (extent.device != 0 || !file->stored.empty()) {
        return fail(Errc::unsupported, "an EROFS layer with devices");
      }
      if (extent.device_offset % block != 0 || extent.file_offset % block != 0) {
        return fail(Errc::unsupported, "an EROFS layer with data in inodes, offset " +
                                           std::to_string(extent.device_offset) +
                                           ", which no index can point to");
      }
      extent.device = 1;
    }
  }
  return {};
}

/// Indexes an EROFS image as a layer: its blob is the device.
[[nodiscard]] inline Result<tarindex::BuiltLayer> build_native(
    AnySource const& blob, tarindex::BuildOptions const& given) {
  auto options = given;
  if (!options.layer.memory) options.layer.memory = std::make_shared<ImageMemory>();
  LayerIndexBuilder<> pass({BlobEncoding::plain, 4 * options.span_size, options.layer.memory},
                           [](std::span<std::byte const>) -> Result<void> { return {}; });
  EROFS_OCI_TRY(tarindex::detail::read_through(
      blob, options, [&](std::span<std::byte const> piece) { return pass.push(piece); }));
  EROFS_OCI_TRY_ASSIGN(auto index, pass.finish());

  using Buffered = Cached<Ref<AnySource>>;
  EROFS_OCI_TRY_ASSIGN(auto reader,
                       erofs::Reader<Buffered>::open(Buffered(Ref(blob), {.chunk = 1 << 20})));
  auto& memory = *options.layer.memory;
  EROFS_OCI_TRY_ASSIGN(auto tree,
                       erofs::load_tree(reader, erofs::Marks::trusted, memory.budget().trees()));
  EROFS_OCI_TRY(memory.take_tree(tree.memory()));
  EROFS_OCI_TRY(move_to_device(tree));

  tarindex::BuiltLayer built;
  built.index = std::move(index);
  built.layer.tree = std::move(tree);
  EROFS_OCI_TRY(tarindex::write_tarindex(built));
  return built;
}

/// The bytes of `inner`, hashed as they are streamed: for digests that the builder does not make.
class Hashed {
 public:
  Hashed(AnySource const& inner, Hasher& hash) noexcept : inner_(&inner), hash_(&hash) {}
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_->size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return inner_->read_at(offset, out);
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    ByteSink sink) const {
    return inner_->stream(offset, length, [&](std::span<std::byte const> piece) {
      hash_->update(piece);
      return sink(piece);
    });
  }
  [[nodiscard]] std::string describe() const { return inner_->describe(); }

 private:
  AnySource const* inner_;
  Hasher* hash_;
};

/// Reads the whole blob, makes its index, and checks that it is the blob that was meant.
[[nodiscard]] inline Result<tarindex::BuiltLayer> build_checked(
    ImageLayer const& layer, tarindex::BuildOptions const& options) {
  auto const& wanted = layer.descriptor.digest;
  if (layer_format(layer.descriptor.media_type) == LayerFormat::zstd) {
    return fail(Errc::unsupported, "a zstd layer, which cannot be read at random");
  }
  EROFS_OCI_TRY_ASSIGN(auto const native, is_erofs_layer(layer));
  auto const build = [&](AnySource const& blob) {
    return native ? build_native(blob, options) : tarindex::build_layer(blob, options);
  };
  bool const ours = wanted.algorithm() == DigestAlgorithm::sha256;
  Hasher hash(wanted.algorithm());
  auto built = ours ? build(layer.blob) : build(AnySource(Hashed(layer.blob, hash)));
  if (!built) return built;
  auto const found = ours ? built->index.blob : hash.finish();
  if (found != wanted) {
    return fail(Errc::digest_mismatch,
                describe(layer.blob) + ": its bytes are " + found.to_string());
  }
  return built;
}

/// Whether the bytes of a blob are to blame.
[[nodiscard]] inline bool is_wrong(Result<tarindex::BuiltLayer> const& built) noexcept {
  if (built) return false;
  auto const& code = built.error().code;
  return code == Errc::digest_mismatch || code == Errc::corrupt || code == Errc::truncated;
}

/// One layer's index: from the store, from elsewhere, or built until `deadline`.
[[nodiscard]] inline Result<StoredLayer> index_layer(
    ImageLayer const& layer, std::size_t number, IndexOptions const& options,
    std::chrono::steady_clock::time_point deadline) {
  auto const& digest = layer.descriptor.digest;
  if (options.store != nullptr) {
    EROFS_OCI_TRY_ASSIGN(auto found,
                         options.store->find_layer(digest, options.claims_of, options.refuted));
    if (found) return *std::move(found);
  }
  if (options.elsewhere) {
    EROFS_OCI_TRY_ASSIGN(auto found, options.elsewhere(layer));
    if (found) return *std::move(found);
  }
  tarindex::BuildOptions build{.span_size = options.span_size,
                               .layer = {.memory = options.memory},
                               .stop = options.stop,
                               .max_decoded = options.max_decoded,
                               .deadline = deadline};
  auto const total = layer.blob.size();
  if (options.progress) {
    build.progress = [&options, number, total](std::uint64_t done) {
      options.progress({number, done, total});
    };
  }
  // What an earlier process has kept of the blob may be wrong; what has just come is not asked for
  // twice, nor kept.
  EROFS_OCI_TRY_ASSIGN(
      auto built,
      read_past_kept(layer.blob, [&] { return build_checked(layer, build); }, is_wrong));
  if (options.warn) {
    for (auto const& report : built.layer.reports.list()) {
      options.warn(layer_name(number, layer.descriptor) + ": tar offset " +
                   std::to_string(report.offset) + ": " + report.text);
    }
    if (built.dropped_xattrs > 0) {
      options.warn(layer_name(number, layer.descriptor) + ": " +
                   std::to_string(built.dropped_xattrs) + " attributes that EROFS cannot hold");
    }
  }
  if (options.store != nullptr) {
    auto const kept = options.store->put_layer(digest, built);
    if (!kept && options.warn)
      options.warn(kept.error().message() + "; the index is used, not kept");
  }
  EROFS_OCI_TRY_ASSIGN(auto opened, opened_layer(std::move(built)));
  if (options.store != nullptr) opened.entry = IndexStore::entry_of(digest);
  return opened;
}

}  // namespace detail

EROFS_OCI_BODY Result<std::vector<StoredLayer>> index_layers(std::vector<ImageLayer> const& layers,
                                                             IndexOptions options) {
  std::vector<std::optional<StoredLayer>> found(layers.size());
  std::mutex mutex;
  std::optional<Error> first_error;
  std::stop_source stop;
  std::stop_callback const outer(options.stop, [&stop] { stop.request_stop(); });
  options.stop = stop.get_token();
  auto const deadline = std::chrono::steady_clock::now() + options.max_time;
  {
    ThreadPool workers(std::min<std::size_t>(std::max(options.parallel, 1U), layers.size()),
                       std::max<std::size_t>(layers.size(), 1));
    for (std::size_t i = 0; i < layers.size(); ++i) {
      workers.submit([&, i] {
        if (stop.stop_requested()) return;
        auto const number = layers[i].number.value_or(i);
        auto indexed = without_throwing(
            [&] { return detail::index_layer(layers[i], number, options, deadline); });
        std::lock_guard const lock(mutex);
        if (indexed) {
          found[i] = *std::move(indexed);
        } else {
          if (!first_error) {
            first_error = make_error(indexed.error(), layer_name(number, layers[i].descriptor));
          }
          stop.request_stop();
        }
      });
    }
  }
  if (first_error) return tl::unexpected(*std::move(first_error));
  if (stop.stop_requested()) return fail(Errc::stopping, "index");
  std::vector<StoredLayer> indexed;
  indexed.reserve(found.size());
  for (auto& layer : found) {
    if (!layer) return fail(make_error_code(std::errc::not_enough_memory), "index");
    indexed.push_back(*std::move(layer));
  }
  return indexed;
}

}  // namespace erofs_oci
