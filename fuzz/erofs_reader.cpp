// SPDX-License-Identifier: Apache-2.0
// An EROFS image: everything that can be asked of it, and a second image written from the tree that
// it holds. The first byte says whether the image's data are in it or on a device of their own.
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/erofs/fsck.hpp>
#include <erofs_oci/erofs/load.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/erofs/writer.hpp>
#include <erofs_oci/source/memory.hpp>

#include "input.hpp"

namespace {

using namespace erofs_oci;

void ask_all(erofs::Reader<Memory> const& reader) {
  Bytes buffer(700);
  std::size_t visits = 0;
  auto const walked = walk(reader, [&](erofs::Visit const& at) {
    if (at.inode == nullptr) return erofs::Step::enter;
    if (++visits > 2000) return erofs::Step::stop;  // lookups below are quadratic in depth
    auto const& inode = *at.inode;
    static_cast<void>(reader.xattrs(inode));
    static_cast<void>(reader.read_link(inode));
    for (auto const offset : {std::uint64_t{0}, std::uint64_t{500}, inode.size() - 1}) {
      auto const n = reader.read(inode, offset, buffer);
      assert(!n || *n == readable(inode.size(), offset, buffer.size()));
    }
    static_cast<void>(find(reader, at.path, erofs::Follow::all));
    return erofs::Step::enter;
  });
  assert(walked);  // open() has read the root
}

/// What loads must be writable and load again to the same image, unless no image can hold it.
void write_again(erofs::Reader<Memory> const& reader) {
  auto const tree = load_tree(reader, erofs::Marks::trusted);
  if (!tree) return;
  std::vector<erofs::Device> const devices(reader.frame().slots().size(), {1u << 20, ""});
  erofs::WriteOptions const options{
      .marks = erofs::Marks::trusted, .implied = erofs::Implied::keep, .max_chunks = 1u << 16};
  auto const writer = erofs::Writer::make(*tree, devices, options);
  if (!writer || writer->size() > (1u << 24)) return;
  auto const image = writer->to_bytes();
  auto const again = erofs::Reader<Memory>::open(Memory(image));
  assert(again);
  assert(check(*again)->sound());
  auto const loaded = load_tree(*again, erofs::Marks::trusted);
  assert(loaded);
  assert(erofs::Writer::make(*loaded, devices, options)->to_bytes() == image);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  auto image = to_bytes(std::as_bytes(std::span(data, size)).subspan(1));
  fuzz::mend(image);
  std::vector<AnySource> devices;
  if ((data[0] & 1) != 0) devices.emplace_back(Memory(Bytes(100'000, std::byte{'x'})));
  auto const reader = erofs::Reader<Memory>::open(Memory(std::move(image)), std::move(devices));
  if (!reader) return 0;
  ask_all(*reader);
  assert(check(*reader, {.data = true}));
  write_again(*reader);
  return 0;
}
