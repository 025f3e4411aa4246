// SPDX-License-Identifier: Apache-2.0
/// @file
/// Proving that a layer is what its index and the image say, and keeping what was found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/image/index_store.hpp>

#include "find_image.hpp"
#include "mount_report.hpp"
#include "options.hpp"
#include "process.hpp"

namespace mount_oci {

/// What comparing a layer with its index and the image has shown.
struct Verdict {
  enum class Kind : std::uint8_t {
    proved,          ///< all agree
    wrong_index,     ///< the index does not say what the layer holds
    wrong_bytes,     ///< what came is not the layer; no read gets bytes that differ
    other_contents,  ///< the layer holds something else than the image's configuration says
  };
  Kind kind = Kind::proved;
  std::string problem{};  ///< empty: proved

  [[nodiscard]] bool is_proved() const noexcept { return kind == Kind::proved; }
  /// Whether what reads have got may be wrong.
  [[nodiscard]] bool is_final() const noexcept {
    return kind == Kind::wrong_index || kind == Kind::other_contents;
  }
};

/// Reads as another source. Streams get a MiB at a time, which has come before the sink is called:
/// that may read the same bytes by another way. Before each, `next` is told how far it has come.
///
/// @par Thread safety
/// All const members, from any thread, if `next` may be called so.
class Paced {
 public:
  /// @param next  false ends the stream
  Paced(erofs_oci::Shared<erofs_oci::AnySource> inner, std::function<bool(std::uint64_t)> next)
      : inner_(std::move(inner)), next_(std::move(next)) {}

  /// @name RandomAccessSource
  /// @{
  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    return inner_.read_at(offset, out);
  }
  [[nodiscard]] Result<void> stream(std::uint64_t offset, std::uint64_t length,
                                    erofs_oci::ByteSink sink) const;
  /// @}

  [[nodiscard]] std::string describe() const { return erofs_oci::describe(inner_); }

 private:
  erofs_oci::Shared<erofs_oci::AnySource> inner_;
  std::function<bool(std::uint64_t)> next_;
};

/// Reads a layer to its end and compares it with its digest, its index and the image's
/// configuration. Wrong bytes that were kept are fetched anew, once. Blocks.
/// @param diff_id  of the layer by the configuration; empty: not known
/// @param next     as of Paced, for each pass over the blob
/// @error{Errc::stopping, `stop` was requested\, or `next` has ended it}
/// @error{as compare_layer(), as there}
[[nodiscard]] Result<Verdict> prove_layer(FoundLayer const& layer,
                                          erofs_oci::StoredLayer const& index,
                                          std::string const& diff_id, ImageOptions const& options,
                                          std::function<bool(std::uint64_t)> const& next,
                                          std::stop_token const& stop);

/// Keeps a verdict: a proved index counts for all images from now on, and one that lies is not used
/// again.
/// @error{as IndexStore::put_layer(), as there}
[[nodiscard]] Result<void> keep_verdict(erofs_oci::IndexStore const& store,
                                        erofs_oci::Digest const& layer,
                                        erofs_oci::StoredLayer const& index,
                                        Verdict const& verdict);

/// The digests that an image's configuration has for the contents of these layers; empty texts if
/// it has none. Blocks.
/// @param named   the image, all of whose layers were found
/// @param layers  some of them
/// @error{as diff_ids_of(), as there}
[[nodiscard]] Result<std::vector<std::string>> diff_ids_for(FoundImage const& named,
                                                            std::span<FoundLayer const> layers);

/// An image whose layers are proved while it is read.
struct ImageToProve {
  /// One that nobody has compared with its index yet.
  struct Layer {
    std::size_t number = 0;  ///< in `states`, and in the layers of `image`
    FoundLayer found;
    erofs_oci::StoredLayer index;
  };
  FoundImage image;                ///< with its configuration; else `name_again` finds that
  std::string name_again;          ///< by digest; empty: nothing names it
  std::vector<LayerProof> states;  ///< of all layers, from the bottom up
  std::vector<Layer> layers;
  std::optional<erofs_oci::AnySource> metadata;  ///< an EROFS image: which files were read
};

}  // namespace mount_oci
