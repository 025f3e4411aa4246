// SPDX-License-Identifier: Apache-2.0
/// @file
/// The memory of requests in flight, as a hostile worker hands it over: refused, or slots that hold
/// whole requests and can be counted and cleared. Input: seals, the size (bit 7: any; else that
/// many slots), then pieces with their offsets.
#include <cstdint>
#include <span>
#include <utility>

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <unistd.h>

#include <erofs_oci/fuse/inflight.hpp>

#include "input.hpp"

using namespace erofs_oci;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  constexpr std::uint64_t counts = FuseInflight::most_slots * 4;
  fuzz::Input input(data, size);
  auto const seals = input.byte();
  auto const shape = input.number<std::uint16_t>();
  auto const length = (shape & 0x8000) != 0 ? input.number<std::uint64_t>() >> 8
                                            : counts + shape * FuseInflight::slot_size;
  UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(length)) != 0) return 0;
  while (!input.empty()) {
    auto const slot = input.byte();  // from 128 on: the counts
    auto const at = (slot < 128 ? counts + slot * FuseInflight::slot_size : 0) + input.byte() * 4U;
    auto const piece = input.bytes(input.byte());
    if (at + piece.size() > length) continue;
    [[maybe_unused]] auto const n =
        ::pwrite(fd.get(), piece.data(), piece.size(), static_cast<off_t>(at));
  }
  ::fcntl(fd.get(), F_ADD_SEALS, seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));

  auto const inflight = FuseInflight::map(std::move(fd));
  if (!inflight) return 0;
  fuzz::require((seals & F_SEAL_SHRINK) != 0);
  auto const slots = inflight->slots();
  fuzz::require(slots >= 1 && slots <= FuseInflight::most_slots);
  for (std::size_t i = 0; i < slots; ++i) {
    auto const request = inflight->request(i);
    if (request.empty()) continue;
    fuzz::require(request.size() >= sizeof(fuse_in_header));
    fuzz::require(request.size() <= FuseInflight::slot_size);
    auto const before = inflight->crashes(i);
    inflight->note_crash();
    fuzz::require(inflight->crashes(i) == before + 1);
    inflight->clear(i);
    fuzz::require(inflight->request(i).empty() && inflight->crashes(i) == 0);
  }
  return 0;
}
