// SPDX-License-Identifier: Apache-2.0
#include "same_content.hpp"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/erofs/file_map.hpp>

namespace mount_oci {
namespace {

using erofs_oci::Bytes;
using erofs_oci::erofs::Run;

/// The runs of a content, taken from the front.
class Contents {
 public:
  explicit Contents(OpenedFiles const& image) : image_(image) {}

  [[nodiscard]] Result<void> find(erofs_oci::erofs::Inode const& file) {
    return image_.reader.runs(file, 0, file.size(), [this](Run const& run) -> Result<bool> {
      runs_.push_back(run);
      return true;
    });
  }

  [[nodiscard]] bool ends() const noexcept { return next_ == runs_.size(); }

  /// Bytes up to the end of the first run.
  [[nodiscard]] std::uint64_t length() const noexcept { return runs_[next_].length - taken_; }

  [[nodiscard]] bool is_hole() const noexcept { return !runs_[next_].place; }

  /// The layer that the first byte is in, by its digest, or nothing.
  [[nodiscard]] std::string_view layer() const noexcept {
    auto const& place = runs_[next_].place;
    if (!image_.made_here || !place || place->device == 0) return {};
    auto const tag = erofs_oci::as_text(image_.reader.frame().slots()[place->device - 1].tag);
    return tag.substr(0, tag.find('\0'));
  }

  /// Where in the layer the first byte is.
  [[nodiscard]] std::uint64_t offset() const noexcept {
    return runs_[next_].place->offset + taken_;
  }

  /// The first bytes; no more than length().
  [[nodiscard]] Result<void> read(std::span<std::byte> out) const {
    if (is_hole()) {
      std::ranges::fill(out, std::byte{0});
      return {};
    }
    return image_.reader.frame().read_data({runs_[next_].place->device, offset()}, out);
  }

  void take(std::uint64_t length) noexcept {
    taken_ += length;
    if (taken_ < runs_[next_].length) return;
    taken_ = 0;
    ++next_;
  }

 private:
  OpenedFiles const& image_;
  std::vector<Run> runs_;
  std::size_t next_ = 0;
  std::uint64_t taken_ = 0;  // of the run at next_
};

/// Whether the first bytes of both are the same, by what is known of where they are.
bool are_one(Contents const& a, Contents const& b) {
  if (a.is_hole() || b.is_hole()) return a.is_hole() && b.is_hole();
  return !a.layer().empty() && a.layer() == b.layer() && a.offset() == b.offset();
}

/// Reads the first `length` bytes of both and compares them.
Result<bool> read_equal(Contents const& a, Contents const& b, std::uint64_t length) {
  Bytes one(static_cast<std::size_t>(length));
  Bytes other(one.size());
  EROFS_OCI_TRY(a.read(one));
  EROFS_OCI_TRY(b.read(other));
  return one == other;
}

}  // namespace

Result<Sameness> compare_contents(ContentOf const& a, ContentOf const& b, bool reads) {
  if (a.file.size() != b.file.size()) return Sameness::different;
  Contents one(a.image);
  Contents other(b.image);
  EROFS_OCI_TRY(one.find(a.file));
  EROFS_OCI_TRY(other.find(b.file));
  constexpr std::uint64_t most = 1 << 20;  // bytes in memory at a time
  while (!one.ends() && !other.ends()) {
    auto length = std::min(one.length(), other.length());
    if (!are_one(one, other)) {
      if (!reads) return Sameness::unknown;
      length = std::min(length, most);
      EROFS_OCI_TRY_ASSIGN(auto const equal, read_equal(one, other, length));
      if (!equal) return Sameness::different;
    }
    one.take(length);
    other.take(length);
  }
  return Sameness::same;
}

}  // namespace mount_oci
