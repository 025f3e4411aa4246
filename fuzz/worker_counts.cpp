// SPDX-License-Identifier: Apache-2.0
// What a worker tells of its reads: any text gives counts, of bounded size, that encode and decode
// as themselves. Input: the text.
#include <algorithm>
#include <cstdint>
#include <string>

#include "input.hpp"
#include "mount_report.hpp"

namespace {

bool is_plain(std::string const& text) {
  return std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using mount_oci::WorkerCounts;
  std::string const text(data, data + size);
  auto const counts = WorkerCounts::parse(text);
  fuzz::require(WorkerCounts::parse(counts.text()) == counts);
  fuzz::require(counts.mismatch.size() <= 1000 && is_plain(counts.mismatch));
  fuzz::require(counts.layers.size() <= 256 && counts.read.size() <= 256);
  fuzz::require(counts.served.names.size() <= mount_oci::ServedFiles::most);
  for (auto const& layer : counts.layers) {
    fuzz::require(is_plain(layer.layer) && is_plain(layer.problem));
  }
  return 0;
}
