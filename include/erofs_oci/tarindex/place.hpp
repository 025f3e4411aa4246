// SPDX-License-Identifier: Apache-2.0
/// @file
/// place: where each layer's tar lies in the one address space of an image and its layers.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <range/v3/range/conversion.hpp>
#include <range/v3/view/exclusive_scan.hpp>
#include <range/v3/view/transform.hpp>
#include <range/v3/view/zip_with.hpp>

#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/erofs/tree.hpp>

namespace erofs_oci::tarindex {

/// A run of the address space, in blocks of 512 bytes.
struct Placed {
  std::uint64_t first_block = 0;
  std::uint64_t blocks = 0;

  friend bool operator==(Placed const&, Placed const&) = default;
};

/// First block that 32 bits cannot address: 2 TiB. The last number of them means a hole.
inline constexpr std::uint64_t max_flat_blocks = std::numeric_limits<std::uint32_t>::max();

/// Lays the devices end to end behind `metadata_blocks` blocks of metadata, in their order.
/// @error{Errc::unsupported, all of it takes `max_flat_blocks` blocks or more}
[[nodiscard]] inline Result<std::vector<Placed>> place(std::vector<erofs::Device> const& devices,
                                                       std::uint64_t metadata_blocks) {
  namespace views = ranges::views;

  auto total = metadata_blocks;
  for (auto const& device : devices) {
    auto const sum = checked_add(total, device.blocks);
    if (!sum || *sum >= max_flat_blocks) {
      return fail(Errc::unsupported, "layers of more than 2 TiB in all");
    }
    total = *sum;
  }
  auto const blocks = devices | views::transform(&erofs::Device::blocks);
  auto const firsts = blocks | views::exclusive_scan(metadata_blocks, std::plus{});
  auto const placed = [](std::uint64_t first, std::uint64_t n) { return Placed{first, n}; };

  return views::zip_with(placed, firsts, blocks) | ranges::to<std::vector>();
}

}  // namespace erofs_oci::tarindex
