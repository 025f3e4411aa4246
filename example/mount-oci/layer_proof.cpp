// SPDX-License-Identifier: Apache-2.0
#include "layer_proof.hpp"

#include <algorithm>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/source.hpp>

#include "image_config.hpp"
#include "verify.hpp"

namespace mount_oci {
namespace {

using erofs_oci::AnySource;
using erofs_oci::fail;
using erofs_oci::StoredLayer;
using Kind = Verdict::Kind;

constexpr std::uint64_t slice = 1 << 20;  // bytes of one request

Verdict judge(FoundLayer const& layer, StoredLayer const& index, LayerComparison const& compared,
              std::string const& diff_id) {
  if (compared.blob != layer.descriptor.digest) {
    auto const text = "its bytes are " + compared.blob.to_string();
    // Reads take what the index has the digests of: such bytes are handed on.
    auto const fits = index.unproved && !compared.wrong_piece;
    if (fits) return {Kind::wrong_index, "its index is wrong: it is of other bytes; " + text};
    return {Kind::wrong_bytes, text};
  }
  auto const& difference = compared.wrong_piece ? compared.wrong_piece : compared.difference;
  if (difference) return {Kind::wrong_index, "its index is wrong: " + *difference};
  auto const contents = compared.contents.to_string();
  if (!diff_id.empty() && diff_id != contents) {
    return {Kind::other_contents,
            "its contents are " + contents + ", the image's configuration says " + diff_id};
  }
  return {};
}

}  // namespace

Result<void> Paced::stream(std::uint64_t offset, std::uint64_t length,
                           erofs_oci::ByteSink sink) const {
  auto const end = offset + erofs_oci::streamable(size(), offset, length);
  erofs_oci::Bytes buffer(static_cast<std::size_t>(std::min(end - std::min(offset, end), slice)));
  while (offset < end) {
    if (!next_(offset)) return fail(Errc::stopping, "proof");
    auto const n = std::min(end - offset, slice - offset % slice);
    auto const bytes = std::span(buffer).first(static_cast<std::size_t>(n));
    EROFS_OCI_TRY(read_exact(inner_, offset, bytes));
    if (!sink(bytes)) break;
    offset += n;
  }
  return {};
}

Result<Verdict> prove_layer(FoundLayer const& layer, StoredLayer const& index,
                            std::string const& diff_id, ImageOptions const& options,
                            std::function<bool(std::uint64_t)> const& next,
                            std::stop_token const& stop) {
  EROFS_OCI_TRY_ASSIGN(auto const opened, index_to_verify(layer, index, options));
  auto const& wanted = layer.descriptor.digest;
  auto const compare = [&] {
    return compare_layer(AnySource(Paced(layer.blob, next)), wanted.algorithm(), opened, stop);
  };
  auto const is_wrong = [&](auto const& compared) { return compared && compared->blob != wanted; };
  EROFS_OCI_TRY_ASSIGN(auto const compared,
                       erofs_oci::read_past_kept(layer.blob, compare, is_wrong));
  return judge(layer, index, compared, diff_id);
}

Result<void> keep_verdict(erofs_oci::IndexStore const& store, erofs_oci::Digest const& layer,
                          StoredLayer const& index, Verdict const& verdict) {
  if (verdict.kind == Kind::wrong_index) {
    return index.unproved ? store.put_refutation(layer, *index.unproved, verdict.problem)
                          : store.remove_layer(layer);
  }
  if (!verdict.is_proved()) return {};
  if (!store.holds_layer(layer)) {
    EROFS_OCI_TRY_ASSIGN(auto const files, erofs_oci::index_files(index));
    EROFS_OCI_TRY(store.put_layer(layer, files));
  }
  if (!index.unproved || index.entry.empty()) return {};
  return store.put_proof(index.entry, *index.unproved);
}

Result<std::vector<std::string>> diff_ids_for(FoundImage const& named,
                                              std::span<FoundLayer const> layers) {
  EROFS_OCI_TRY_ASSIGN(auto const all, diff_ids_of(named));
  std::vector<std::string> result;
  for (auto const& layer : layers) {
    auto const found = std::ranges::find(
        named.layers, layer.descriptor.digest,
        [](FoundLayer const& one) -> auto const& { return one.descriptor.digest; });
    auto const known = found != named.layers.end() && found->number < all.size();
    result.push_back(known ? all[found->number] : std::string());
  }
  return result;
}

}  // namespace mount_oci
