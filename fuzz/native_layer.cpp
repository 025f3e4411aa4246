// SPDX-License-Identifier: Apache-2.0
/// @file
/// An EROFS image as a layer: what the merged image shows is sound, and is what the layer holds.
#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/source/memory.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

using Device = erofs::Reader<Ref<AnySource>>;

void compare(Device const& merged, erofs::Reader<Memory> const& layer) {
  std::size_t visits = 0;
  auto const visit = [&](erofs::Visit const& at) {
    fuzz::require(at.inode != nullptr && at.error == nullptr);
    if (++visits > 2000) return erofs::Step::stop;  // lookups are quadratic in depth
    auto const was = erofs::find(layer, at.path);
    fuzz::require(was.has_value() && was->mode() == at.inode->mode());
    if (!at.inode->is_regular()) return erofs::Step::enter;
    fuzz::require(was->size() == at.inode->size());
    for (auto const offset : {std::uint64_t{0}, was->size() / 2, was->size() - 1}) {
      Bytes ours(700);
      Bytes theirs(700);
      auto const n = merged.read(*at.inode, offset, ours);
      auto const m = layer.read(*was, offset, theirs);
      fuzz::require(n.has_value() == m.has_value());
      fuzz::require(!n || (*n == *m && ours == theirs));
    }
    return erofs::Step::enter;
  };
  fuzz::require(erofs::walk(merged, visit).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto image = to_bytes(std::as_bytes(std::span(data, size)));
  fuzz::mend(image);
  auto built = detail::build_native(AnySource(Memory(image)), {.span_size = 64 << 10});
  if (!built) return 0;
  auto const layer = erofs::Reader<Memory>::open(Memory(image));
  fuzz::require(layer.has_value());

  std::vector<StoredLayer> indexes;
  auto opened = opened_layer(*std::move(built));
  fuzz::require(opened.has_value());
  indexes.push_back(*std::move(opened));
  std::vector<ImageLayer> layers;
  layers.push_back({{}, AnySource(Memory(image))});
  auto const merged = open_layers(std::move(layers), indexes, {.cache_bytes = 1 << 20});
  if (!merged) return 0;
  auto const reader = Device::open(Ref(merged->device.source));
  fuzz::require(reader.has_value());
  auto const findings = erofs::check(*reader);
  fuzz::require(findings.has_value() && findings->sound());
  compare(*reader, *layer);
  return 0;
}
