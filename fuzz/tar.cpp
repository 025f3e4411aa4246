// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tars: any bytes in any pieces give the same members or the same error, the members a tree whose
/// data lie inside the archive, and the tree laid over itself the same tree.
///
/// The first byte chooses: bit 0 puts right checksums into all blocks, so that damage gets past
/// them; the rest is the length of the pieces.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/tar/decoder.hpp>
#include <erofs_oci/tarindex/layer.hpp>
#include <erofs_oci/tarindex/merge.hpp>
#include <erofs_oci/testing/tar_maker.hpp>

using namespace erofs_oci;

namespace {

struct Outcome {
  std::vector<tar::Entry> entries;
  std::string error;

  friend bool operator==(Outcome const&, Outcome const&) = default;
};

Outcome decode(std::span<std::byte const> archive, std::size_t piece) {
  Outcome outcome;
  tar::Decoder decoder;
  std::size_t copied = 0;
  auto const keep = [&](tar::Entry&& entry) -> Result<void> {
    for (auto const& copy : entry.copies) copied += copy.bytes.size();
    if (copied > 1U << 26) return fail(Errc::unsupported, "more than fits this test's memory");
    outcome.entries.push_back(std::move(entry));
    return {};
  };
  Result<void> ok;
  while (ok && !archive.empty()) {
    auto const n = std::min(piece, archive.size());
    ok = decoder.push(archive.first(n), keep);
    archive = archive.subspan(n);
  }
  if (ok) ok = decoder.finish(keep);
  if (!ok) outcome.error = ok.error().message();
  return outcome;
}

void seal_all(Bytes& archive) {
  for (std::size_t at = 0; at + 512 <= archive.size(); at += 512) {
    Bytes block(archive.begin() + static_cast<std::ptrdiff_t>(at),
                archive.begin() + static_cast<std::ptrdiff_t>(at + 512));
    if (tar::is_zero(block)) continue;
    testing::seal(block);
    std::ranges::copy(block, archive.begin() + static_cast<std::ptrdiff_t>(at));
  }
}

void require(bool condition) {
  if (!condition) std::abort();
}

void check_tree(erofs::Tree& tree, std::uint64_t size) {
  tarindex::detail::for_each_regular(tree, [&](erofs::NodeId, erofs::Regular const& file) {
    std::uint64_t end = 0;
    for (auto const& extent : file.extents) {
      require(extent.length > 0 && extent.file_offset >= end);
      auto const room = extent.device == 0 ? file.stored.size() : size;
      require(extent.device_offset <= room && extent.length <= room - extent.device_offset);
      require(extent.length <= file.size && extent.file_offset <= file.size - extent.length);
      end = extent.file_offset + extent.length;
    }
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  auto archive = to_bytes(std::as_bytes(std::span(data, size)).subspan(1));
  if ((data[0] & 1) != 0) seal_all(archive);

  auto const whole = decode(archive, std::max<std::size_t>(archive.size(), 1));
  require(whole == decode(archive, std::size_t{data[0]} * 3 + 1));

  tarindex::LayerBuilder builder(
      {.memory = std::make_shared<ImageMemory>(MemoryBudget{64 << 20}, std::uint64_t{1} << 40)});
  for (auto const& entry : whole.entries) {
    if (!builder.apply(entry)) return 0;
  }
  auto layer = std::move(builder).finish();
  check_tree(layer.tree, archive.size());
  std::vector<tarindex::MergeInput> const once{{&layer, {}}};
  std::vector<tarindex::MergeInput> const twice{{&layer, {}}, {&layer, {}}};
  auto one = tarindex::merge(once);
  auto two = tarindex::merge(twice);
  require(one.has_value() && two.has_value());
  check_tree(one->tree, archive.size());
  // A link that comes before its target keeps the lower layer's file.
  require(one->devices.size() <= two->devices.size());
  return 0;
}
