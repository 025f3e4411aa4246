// SPDX-License-Identifier: Apache-2.0
/// @file
/// index_layers: an index for each layer of an image, from the store or built now.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
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
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/workers.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/image/index_store.hpp>
#include <erofs_oci/oci/descriptor.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/build.hpp>

namespace erofs_oci {

/// One layer of an image.
struct ImageLayer {
  Descriptor descriptor;  ///< its digest and size are what the bytes must have
  AnySource blob;         ///< as it is stored

  /// Its number in the image, from 0, for messages. Empty: its place in the list.
  std::optional<std::size_t> number{};
};

/// How far the indexing of a layer has come.
struct LayerProgress {
  std::size_t layer = 0;    ///< its number in the image, from 0
  std::uint64_t done = 0;   ///< bytes of the blob
  std::uint64_t total = 0;  ///< bytes of the blob
};

/// How to index layers.
struct IndexOptions {
  IndexStore const* store = nullptr;  ///< where indexes are kept; borrowed. Null: nowhere
  std::uint64_t span_size = 4 << 20;  ///< of what is built; bytes. Range: 64 KiB or more
  unsigned parallel = 4;              ///< layers that are read at the same time. Range: 1 or more

  /// Asked for a layer that the store does not have, before it is built: an index from elsewhere,
  /// say from the registry. Empty, or an empty answer: there is none.
  std::function<Result<std::optional<StoredLayer>>(ImageLayer const& layer)> elsewhere{};

  /// Told while a layer is built, on several threads. May be empty.
  std::function<void(LayerProgress const&)> progress{};

  /// Told of what an image cannot hold or a store did not take: not an error. May be empty.
  std::function<void(std::string const& text)> warn{};

  std::stop_token stop{};
};

/// "layer 3 (sha256:…)", for messages.
[[nodiscard]] inline std::string layer_name(std::size_t number, Descriptor const& descriptor) {
  return "layer " + std::to_string(number) + " (" + descriptor.digest.to_string() + ")";
}

/// What was built, as if it came from the store.
[[nodiscard]] inline Result<StoredLayer> opened_layer(tarindex::BuiltLayer built) {
  Bytes file;
  auto const ok = write_index_file<Sha256>(built.index, [&](std::span<std::byte const> piece) {
    file.insert(file.end(), piece.begin(), piece.end());
    return true;
  });
  if (!ok) return fail(ok.error());
  auto index = read_index_file<Sha256>(AnySource(Memory(std::move(file))));
  if (!index) return fail(index.error());
  return StoredLayer{*std::move(index), AnySource(Memory(std::move(built.tarindex))),
                     std::move(built.layer.dangling)};
}

namespace detail {

/// Whether the blob is an EROFS image.
[[nodiscard]] inline Result<bool> is_erofs(AnySource const& blob, std::string const& media_type) {
  auto const format = layer_format(media_type);
  if (format == LayerFormat::erofs) return true;
  if (format != LayerFormat::unknown) return false;
  std::array<std::byte, 4> magic{};
  if (blob.size() < erofs::superblock_offset + erofs::Superblock::on_disk_size) return false;
  if (auto const ok = read_exact(blob, erofs::superblock_offset, magic); !ok) {
    return fail(ok.error());
  }
  return load_le<std::uint32_t>(magic) == erofs::magic;
}

/// Makes every file's data lie on device 1, at the place that it has in the image.
[[nodiscard]] inline Result<void> move_to_device(erofs::Tree& tree) {
  constexpr std::uint64_t block = 512;
  for (erofs::NodeId id = 0; id < tree.size(); ++id) {
    auto* const file = tree[id].regular();
    if (file == nullptr) continue;
    for (auto& extent : file->extents) {
      if (extent.device != 0) return fail(Errc::unsupported, "an EROFS layer with devices");
      if (extent.device_offset % block != 0 || extent.file_offset % block != 0) {
        return fail(Errc::unsupported, "an EROFS layer with data in inodes, offset " +
                                           std::to_string(extent.device_offset) +
                                           ", in an image of several layers");
      }
      extent.device = 1;
    }
    file->clean_padding = true;  // EROFS pads blocks with zeros
  }
  return {};
}

/// Indexes an EROFS image as a layer: its blob is the device.
[[nodiscard]] inline Result<tarindex::BuiltLayer> build_native(
    AnySource const& blob, tarindex::BuildOptions const& options) {
  LayerIndexBuilder<Sha256> pass({BlobEncoding::plain, options.span_size},
                                 [](std::span<std::byte const>) -> Result<void> { return {}; });
  std::uint64_t done = 0;
  Result<void> inside;
  auto const ok = stream(blob, 0, blob.size(), [&](std::span<std::byte const> piece) {
    done += piece.size();
    inside = options.stop.stop_requested() ? fail(Errc::stopping, "index") : pass.push(piece);
    if (options.progress) options.progress(done);
    return inside.has_value();
  });
  if (!inside) return fail(inside.error());
  if (!ok) return fail(ok.error());
  auto index = pass.finish();
  if (!index) return fail(index.error());

  using Buffered = Cached<Ref<AnySource>>;
  auto reader = erofs::Reader<Buffered>::open(Buffered(Ref(blob), {.chunk = 1 << 20}));
  if (!reader) return fail(reader.error());
  auto tree = erofs::load_tree(*reader, erofs::Marks::trusted);
  if (!tree) return fail(tree.error());
  if (auto const moved = move_to_device(*tree); !moved) return fail(moved.error());

  tarindex::BuiltLayer built;
  built.index = *std::move(index);
  built.layer.tree = *std::move(tree);
  if (auto const written = tarindex::write_tarindex<Sha256>(built); !written) {
    return fail(written.error());
  }
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
  auto const native = is_erofs(layer.blob, layer.descriptor.media_type);
  if (!native) return fail(native.error());
  auto const build = [&](AnySource const& blob) {
    return *native ? build_native(blob, options) : tarindex::build_layer<Sha256>(blob, options);
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

/// One layer's index: from the store, from elsewhere, or built.
[[nodiscard]] inline Result<StoredLayer> index_layer(ImageLayer const& layer, std::size_t number,
                                                     IndexOptions const& options) {
  auto const& digest = layer.descriptor.digest;
  if (options.store != nullptr) {
    auto found = options.store->find_layer(digest);
    if (!found) return fail(found.error());
    if (*found) return **std::move(found);
  }
  if (options.elsewhere) {
    auto found = options.elsewhere(layer);
    if (!found) return fail(found.error());
    if (*found) return **std::move(found);
  }
  tarindex::BuildOptions build;
  build.span_size = options.span_size;
  build.stop = options.stop;
  auto const total = layer.blob.size();
  if (options.progress) {
    build.progress = [&options, number, total](std::uint64_t done) {
      options.progress({number, done, total});
    };
  }
  auto built = build_checked(layer, build);
  if (!built) return fail(built.error());
  if (options.warn) {
    for (auto const& report : built->layer.reports.list()) {
      options.warn(layer_name(number, layer.descriptor) + ": tar offset " +
                   std::to_string(report.offset) + ": " + report.text);
    }
    if (built->dropped_xattrs > 0) {
      options.warn(layer_name(number, layer.descriptor) + ": " +
                   std::to_string(built->dropped_xattrs) + " attributes that EROFS cannot hold");
    }
  }
  if (options.store != nullptr) {
    auto const kept = options.store->put_layer(digest, *built);
    if (!kept && options.warn)
      options.warn(kept.error().message() + "; the index is used, not kept");
  }
  return opened_layer(*std::move(built));
}

}  // namespace detail

/// Whether a layer is an EROFS image: by its media type, or if that says nothing, by its bytes.
/// @error{as the blob says}
[[nodiscard]] inline Result<bool> is_erofs_layer(ImageLayer const& layer) {
  return detail::is_erofs(layer.blob, layer.descriptor.media_type);
}

/// Gets an index for each layer, several at a time. The first error ends it; those under way end
/// early.
/// @error{Errc::digest_mismatch, a blob is not what its digest names}
/// @error{Errc::unsupported, a layer in zstd\, or one that no image can hold; the text names it}
/// @error{as build_layer(), as there; the text begins with the layer's number and digest}
[[nodiscard]] inline Result<std::vector<StoredLayer>> index_layers(
    std::vector<ImageLayer> const& layers, IndexOptions options = {}) {
  std::vector<std::optional<StoredLayer>> found(layers.size());
  std::mutex mutex;
  std::optional<Error> first_error;
  std::stop_source stop;
  std::stop_callback const outer(options.stop, [&stop] { stop.request_stop(); });
  options.stop = stop.get_token();
  {
    Workers workers(std::min<std::size_t>(std::max(options.parallel, 1U), layers.size()),
                    std::max<std::size_t>(layers.size(), 1));
    for (std::size_t i = 0; i < layers.size(); ++i) {
      workers.submit([&, i] {
        if (stop.stop_requested()) return;
        auto const number = layers[i].number.value_or(i);
        auto indexed = detail::index_layer(layers[i], number, options);
        std::lock_guard const lock(mutex);
        if (indexed) {
          found[i] = *std::move(indexed);
        } else {
          if (!first_error) {
            first_error = fail(indexed.error(), layer_name(number, layers[i].descriptor)).value();
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
  for (auto& layer : found) indexed.push_back(*std::move(layer));
  return indexed;
}

}  // namespace erofs_oci
