// SPDX-License-Identifier: Apache-2.0
#include "served_ranges.hpp"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include <erofs_oci/combinator/ref.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/walk.hpp>

namespace mount_oci {
namespace {

namespace erofs = erofs_oci::erofs;
using Metadata = erofs::Reader<erofs_oci::Ref<erofs_oci::AnySource>>;

/// Whether a range has a byte of [begin, end).
bool touches(std::vector<ByteRange> const& ranges, std::uint64_t begin, std::uint64_t end) {
  auto const behind = std::ranges::upper_bound(ranges, begin, {}, &ByteRange::end);
  return behind != ranges.end() && behind->begin < end;
}

/// Whether a file has data of the slots there.
Result<bool> was_read(Metadata const& reader, erofs::Inode const& file,
                      std::vector<bool> const& is_layers, std::vector<ByteRange> const& ranges) {
  auto found = false;
  auto const& frame = reader.frame();
  EROFS_OCI_TRY(reader.runs(file, 0, file.size(), [&](erofs::Run const& run) -> Result<bool> {
    if (!run.place || run.place->device == 0 || !is_layers[run.place->device - 1]) return true;
    auto const at = frame.slot_first(run.place->device - 1) * frame.block() + run.place->offset;
    found = touches(ranges, at, at + run.length);
    return !found;
  }));
  return found;
}

}  // namespace

void ServedRanges::note(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return;
  std::lock_guard const lock(mutex_);
  auto at = ranges_.upper_bound(begin);
  if (at != ranges_.begin()) {
    auto const before = std::prev(at);
    if (before->second >= end) return;
    if (before->second >= begin) at = before;
  }
  while (at != ranges_.end() && at->first <= end) {
    begin = std::min(begin, at->first);
    end = std::max(end, at->second);
    at = ranges_.erase(at);
  }
  ranges_.emplace(begin, end);
  if (ranges_.size() > most) join_nearest();
}

void ServedRanges::join_nearest() {
  auto best = ranges_.begin();
  auto least = ~std::uint64_t{0};
  for (auto at = ranges_.begin(), next = std::next(at); next != ranges_.end(); at = next++) {
    auto const gap = next->first - at->second;
    if (gap < least) least = gap, best = at;
  }
  auto const next = std::next(best);
  best->second = next->second;
  ranges_.erase(next);
}

std::vector<ByteRange> ServedRanges::list() const {
  std::lock_guard const lock(mutex_);
  std::vector<ByteRange> list;
  for (auto const& [begin, end] : ranges_) list.push_back({begin, end});
  return list;
}

Result<ServedFiles> served_files(erofs_oci::AnySource const& metadata, std::string const& data_name,
                                 std::vector<ByteRange> const& ranges) {
  EROFS_OCI_TRY_ASSIGN(auto const reader, Metadata::open(erofs_oci::Ref(metadata)));
  std::vector<bool> is_layers;
  for (auto const& slot : reader.frame().slots()) {
    is_layers.push_back(erofs_oci::as_text(slot.tag) == data_name);
  }
  ServedFiles files;
  EROFS_OCI_TRY(erofs::walk(reader, [&](erofs::Visit const& visit) {
    if (visit.inode == nullptr || !visit.inode->is_regular()) return erofs::Step::enter;
    auto const read = was_read(reader, *visit.inode, is_layers, ranges);
    if (!read.value_or(false)) return erofs::Step::enter;
    ++files.count;
    if (files.names.size() < ServedFiles::most) files.names.push_back(visit.path);
    return erofs::Step::enter;
  }));
  return files;
}

}  // namespace mount_oci
