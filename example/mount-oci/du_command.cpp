// SPDX-License-Identifier: Apache-2.0
// du.
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include <erofs_oci/core/arithmetic.hpp>

#include "entry.hpp"
#include "reading.hpp"

namespace mount_oci {
namespace {

using erofs_oci::erofs::Follow;
using erofs_oci::erofs::Inode;
using erofs_oci::erofs::Step;
using erofs_oci::erofs::Visit;

/// Bytes of files together. Sums of what an image says saturate.
struct Usage {
  std::uint64_t apparent = 0;  ///< contents of regular files and symbolic links
  std::uint64_t blocks = 0;    ///< of all files, each up to a whole block

  void add(Usage const& other) noexcept {
    constexpr auto most = ~std::uint64_t{0};
    apparent = erofs_oci::checked_add(apparent, other.apparent).value_or(most);
    blocks = erofs_oci::checked_add(blocks, other.blocks).value_or(most);
  }
};

class Counter {
 public:
  Counter(Reading const& reading, ImageReader const& reader)
      : reading_(reading), read_(reading.options.read), reader_(reader) {}

  [[nodiscard]] Result<Status> count(std::string const& path) {
    EROFS_OCI_TRY_ASSIGN(auto const start, find_path(reader_, path, Follow::parents));
    Status status = 0;
    Result<void> ok;
    ++path_;
    walk_from(reader_, start, path_in_image(path), [&](Visit const& at) {
      if (at.error != nullptr) {
        reading_.complain(erofs_oci::make_error(*at.error, at.path));
        status = 1;
        return Step::enter;
      }
      if (ok) ok = close(at.depth);
      if (ok) ok = take(at);
      if (!ok) return Step::stop;
      return was_counted_before(at) ? Step::skip : Step::enter;
    });
    if (ok) ok = close(0);
    EROFS_OCI_TRY(ok);
    return status;
  }

  [[nodiscard]] Result<void> print_total() const {
    return read_.grand_total ? print(nullptr, total_) : Result<void>();
  }

 private:
  /// A directory that the walk is in.
  struct Open {
    std::size_t path_size;  // of way_
    std::size_t depth;
    Usage usage;
  };

  /// Whether a directory was in another path. In this one, it would be an error, which the walk
  /// reports when it is to enter it again.
  [[nodiscard]] bool was_counted_before(Visit const& at) const {
    return at.inode->is_directory() && seen_.at(at.inode->nid) != path_;
  }

  Result<void> take(Visit const& at) {
    auto const& inode = *at.inode;
    // A file of several names counts once, and so does what is in two of the paths.
    auto const may_come_again = inode.is_directory() || inode.record.links > 1 || at.depth == 0;
    if (may_come_again && !seen_.try_emplace(inode.nid, path_).second) return {};
    auto const usage = usage_of(inode);
    if (inode.is_directory()) {
      way_ = at.path;
      open_.push_back({way_.size(), at.depth, usage});
      return {};
    }
    add(usage);
    if (at.depth > 0 && (!read_.all_files || at.depth > read_.max_depth)) return {};
    return print(&at.path, usage);
  }

  /// Ends the directories of this depth and below, from below.
  Result<void> close(std::size_t depth) {
    while (!open_.empty() && open_.back().depth >= depth) {
      auto const done = open_.back();
      open_.pop_back();
      add(done.usage);
      way_.resize(done.path_size);
      if (done.depth <= read_.max_depth) EROFS_OCI_TRY(print(&way_, done.usage));
    }
    return {};
  }

  void add(Usage const& usage) noexcept {
    (open_.empty() ? total_ : open_.back().usage).add(usage);
  }

  [[nodiscard]] Usage usage_of(Inode const& inode) const noexcept {
    auto const block = reader_.frame().block();
    auto const size = inode.size();
    return {inode.is_regular() || inode.is_symlink() ? size : 0,
            erofs_oci::align_up(size, block).value_or(size)};
  }

  /// @param path  null: of all
  Result<void> print(std::string const* path, Usage const& usage) const {
    auto& output = reading_.output;
    if (read_.json) {
      erofs_oci::json::Value object{{"apparent", usage.apparent}, {"blocks", usage.blocks}};
      if (path != nullptr) put_name(object, "path", *path);
      if (path == nullptr) object["total"] = true;
      return output.put_json(object);
    }
    auto const bytes = read_.apparent ? usage.apparent : usage.blocks;
    auto const in_units = read_.in_bytes ? bytes : bytes / 1024 + (bytes % 1024 != 0 ? 1 : 0);
    auto const number = read_.human ? short_size(bytes) : std::to_string(in_units);
    return output.put(number + "\t" + (path == nullptr ? "total" : output.shown(*path)) + "\n");
  }

  Reading const& reading_;
  ReadOptions const& read_;
  ImageReader const& reader_;
  std::vector<Open> open_;
  std::string way_;       // the path of the last one; of each, it is a beginning
  std::size_t path_ = 0;  // number of the path
  std::unordered_map<std::uint64_t, std::size_t> seen_;  // by nid, the path that it was met in
  Usage total_;
};

}  // namespace

Result<Status> run_du(Reading const& reading) {
  EROFS_OCI_TRY_ASSIGN(auto const reader, reading.open());
  Counter counter(reading, reader);
  EROFS_OCI_TRY_ASSIGN(auto const status, for_each_path(reading, reader, [&](auto const& path) {
                         return counter.count(path);
                       }));
  EROFS_OCI_TRY(counter.print_total());
  return status;
}

}  // namespace mount_oci
