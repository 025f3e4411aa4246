// SPDX-License-Identifier: Apache-2.0
/// @file
/// The file of a Merkle tree: any bytes are one or an error, and a superblock that is read is
/// written back byte for byte.
#include <cstdint>

#include <erofs_oci/digest/verity_tree.hpp>
#include <erofs_oci/source/memory.hpp>

#include "input.hpp"

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  auto const input = std::as_bytes(std::span(data, size));
  if (auto const tree = read_verity_tree(Memory(to_bytes(input)))) {
    auto const shape = VerityShape::make(tree->data_size);
    fuzz::require(shape.has_value() && shape->file_size() == size);
  }
  if (size < VeritySuperblock::on_disk_size) return 0;
  auto const raw = input.first<VeritySuperblock::on_disk_size>();
  auto const superblock = VeritySuperblock::decode(raw);
  if (superblock) fuzz::require(std::ranges::equal(superblock->encode(), raw));
  return 0;
}
