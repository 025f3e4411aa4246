// SPDX-License-Identifier: Apache-2.0
/// @file
/// Layers that differ, over each other: a merge is what unpacking layer after layer leaves.
///
/// Bit 0 of the first byte adds what the simple unpacker does not know: symbolic links, `..`, links
/// that come before their targets. Then only what holds for any merge is looked at: the tree can be
/// written as a sound image whose data lie in the layers that it names, and empty layers in between
/// change nothing.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/tarindex/layer.hpp>
#include <erofs_oci/tarindex/merge.hpp>
#include <erofs_oci/testing/layer_unpacker.hpp>

#include "input.hpp"

using namespace erofs_oci;

namespace {

/// Up to three names: two bits each, and two for how many.
std::string next_path(fuzz::Input& input, bool hostile) {
  constexpr std::array<std::string_view, 4> names{"a", "b", "c", ".."};
  auto bits = input.byte();
  std::string path;
  for (auto depth = bits % 4 % 3 + 1; depth > 0; --depth) {
    bits = static_cast<std::uint8_t>(bits >> 2);
    path += (path.empty() ? "" : "/") + std::string(names.at(hostile ? bits % 4 : bits % 4 % 3));
  }
  return path;
}

testing::UnpackStep next_step(fuzz::Input& input, bool hostile, unsigned stamp) {
  using enum tar::Type;
  constexpr std::array types{regular, directory, hard_link, fifo};
  auto const what = input.byte();
  testing::UnpackStep step{types.at(what % 4), next_path(input, hostile), {}, stamp};
  if (hostile && what >= 128 && step.type == fifo) step.type = symlink;
  if (step.type == hard_link || step.type == symlink) step.link = next_path(input, hostile);
  auto const mark = what / 4 % 8;
  auto const slash = step.path.rfind('/') + 1;  // npos + 1 is 0
  if (mark >= 3) return step;
  if (mark == 2) step.path.replace(slash, std::string::npos, ".wh..wh..opq");
  if (mark < 2) step.path.insert(slash, ".wh.");
  step.type = regular;
  return step;
}

Result<tarindex::Merged> merged(std::vector<tarindex::Layer> const& layers, bool with_empty) {
  static tarindex::Layer const empty = tarindex::LayerBuilder().finish();
  std::vector<tarindex::MergeInput> inputs;
  for (auto const& layer : layers) {
    if (with_empty) inputs.push_back({&empty, {0, "empty"}});
    inputs.push_back({&layer, {1U << 16, std::to_string(inputs.size() / (with_empty ? 2 : 1))}});
  }
  if (with_empty) inputs.push_back({&empty, {0, "empty"}});
  return tarindex::merge(inputs);
}

Bytes image_of(tarindex::Merged const& merged) {
  auto const writer = erofs::Writer::make(merged.tree, merged.devices);
  fuzz::require(writer.has_value());
  return writer->to_bytes();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  fuzz::Input input(data, size);
  bool const hostile = (input.byte() & 1) != 0;
  testing::LayerUnpacker unpacker;
  std::vector<tarindex::Layer> layers;
  while (!input.empty() && layers.size() < 6) {
    std::vector<testing::UnpackStep> steps;
    for (auto n = input.byte() % 16U; n > 0; --n) {
      auto const stamp = static_cast<unsigned>(layers.size() + 1) * 1000 + n;
      steps.push_back(next_step(input, hostile, stamp));
    }
    if (!hostile) unpacker.unpack(steps, layers.size());
    tarindex::LayerBuilder builder;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      auto const applied = builder.apply(testing::entry_of(steps[i], i)).has_value();
      fuzz::require(hostile || applied);
      if (!applied) return 0;  // a whiteout of "."
    }
    layers.push_back(std::move(builder).finish());
  }

  auto const merged_layers = merged(layers, false);
  auto const with_empty = merged(layers, true);
  fuzz::require(merged_layers.has_value() && with_empty.has_value());
  auto const image = image_of(*merged_layers);
  fuzz::require(image == image_of(*with_empty));
  auto const reader = erofs::Reader<Memory>::open(Memory(image));
  fuzz::require(reader.has_value() && erofs::check(*reader)->sound());
  if (hostile) return 0;
  fuzz::require(merged_layers->reports.count() == 0);
  fuzz::require(testing::listing_of(*merged_layers) == testing::listing_of(unpacker));
  return 0;
}
