// SPDX-License-Identifier: Apache-2.0
/// @file
/// BasicBlobCache: a directory of blobs that are kept in part or whole, and how large it gets.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <erofs_oci/cache/blob_file.hpp>
#include <erofs_oci/cache/blob_files.hpp>
#include <erofs_oci/cache/blob_name.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/posix/private_directory.hpp>

namespace erofs_oci {

/// How a cache of blobs keeps them.
struct BlobCacheOptions {
  /// Most bytes on disk, all blobs and processes together; each process that writes may exceed it
  /// by a sixty-fourth, at most 16 MiB. Empty: a tenth of the file system, at most 10 GiB.
  std::optional<std::uint64_t> limit{};
  /// Bytes that are fetched and kept together, > 0. All processes that share the directory must
  /// agree. Default: 8 KiB.
  std::uint64_t chunk = 8 * 1024;
  /// How long nothing is written after a write has failed. Default: 30 s.
  std::chrono::milliseconds pause{30'000};
  uid_t owner = ::geteuid();  ///< who must own all that is there
};

/// What a process has done with a cache.
struct BlobCacheCounts {
  std::uint64_t hits = 0;          ///< chunks that came from disk
  std::uint64_t hit_bytes = 0;     ///< in these
  std::uint64_t misses = 0;        ///< chunks that were fetched
  std::uint64_t missed_bytes = 0;  ///< in these
  std::uint64_t damaged = 0;       ///< chunks on disk that were not what had been written
  std::uint64_t failures = 0;      ///< operations that failed, such as writes to a full disk
  std::uint64_t evicted = 0;       ///< bytes that were removed for room

  friend bool operator==(BlobCacheCounts const&, BlobCacheCounts const&) = default;
};

/// A blob in the cache.
struct KeptBlob {
  BlobName name;
  std::uint64_t on_disk = 0;  ///< bytes that its file takes
  std::int64_t used = 0;      ///< when it was used last: nanoseconds since 1970, to a minute
};

/// The bytes that the files of blobs take.
[[nodiscard]] inline std::uint64_t bytes_on_disk(std::span<KeptBlob const> blobs) noexcept {
  std::uint64_t sum = 0;
  for (auto const& blob : blobs) sum += blob.on_disk;
  return sum;
}

/// What a blob's file holds.
struct BlobContents {
  std::uint64_t kept = 0;     ///< bytes of chunks that are there
  std::uint64_t damaged = 0;  ///< chunks that were not what had been written
};

/// A directory of blobs, one file each:
/// ```
/// blobs-3/sha256-HEX.SIZE   a table of digests, then the blob's chunks, with holes
/// ```
/// It needs neither a journal nor a sync: what is torn, cut short, zeroed or changed counts as not
/// there. Any file may be removed at any time. Another format would have another directory.
///
/// @par Thread safety
/// All const members, from any thread and any number of processes.
template <BlobFiles Files = SystemFiles>
class BasicBlobCache {
 public:
  static constexpr char const* folder = "blobs-3";

  /// Opens the cache below `root`, or makes it, for its owner alone.
  /// @error{an errno, as open_private_directory()}
  [[nodiscard]] static Result<std::shared_ptr<BasicBlobCache const>> open(
      std::string const& root, BlobCacheOptions options = {}, Files files = {}) {
    EROFS_OCI_TRY(make_parents(root));
    EROFS_OCI_TRY(open_private_directory(root, options.owner));
    auto path = root + '/' + folder;
    EROFS_OCI_TRY_ASSIGN(auto directory, open_private_directory(path, options.owner));
    std::error_code ignored;
    for (auto const* const old : {"/blobs-1", "/blobs-2"}) {  // of older versions
      std::filesystem::remove_all(root + old, ignored);
    }
    if (!options.limit) {
      struct statvfs space{};
      if (::fstatvfs(directory.get(), &space) != 0) return fail_errno(errno, root);
      auto const tenth = std::uint64_t{space.f_blocks} * space.f_frsize / 10;
      options.limit = std::min(tenth, std::uint64_t{10} << 30);
    }
    return std::shared_ptr<BasicBlobCache const>(
        new BasicBlobCache(std::move(path), std::move(directory), options, std::move(files)));
  }

  /// The directory of the files.
  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  [[nodiscard]] BlobCacheOptions const& options() const noexcept { return options_; }
  [[nodiscard]] std::uint64_t limit() const noexcept { return *options_.limit; }
  [[nodiscard]] Files const& files() const noexcept { return files_; }

  /// What this process has done so far.
  [[nodiscard]] BlobCacheCounts counts() const noexcept {
    return {counted_.hits.load(),         counted_.hit_bytes.load(), counted_.misses.load(),
            counted_.missed_bytes.load(), counted_.damaged.load(),   counted_.failures.load(),
            counted_.evicted.load()};
  }

  /// All blobs, the one that was unused longest first.
  /// @error{as Files::list(), as there}
  [[nodiscard]] Result<std::vector<KeptBlob>> list() const {
    EROFS_OCI_TRY_ASSIGN(auto const names, files_.list(directory_.get()), path_);
    std::vector<KeptBlob> blobs;
    for (auto const& text : names) {
      auto const name = BlobName::parse(text);
      if (!name) continue;
      auto const facts = files_.facts_at(directory_.get(), text);  // it may have just gone
      if (facts && facts->is_regular) blobs.push_back({*name, facts->on_disk, facts->changed});
    }
    std::ranges::sort(blobs, {}, &KeptBlob::used);
    return blobs;
  }

  /// Opens a blob's file.
  /// @param flags  as BlobFile::open()
  /// @error{as BlobFile::open(), as there}
  [[nodiscard]] Result<BlobFile<Files>> open_file(BlobName const& name, int flags) const {
    return BlobFile<Files>::open(files_, directory_.get(), name, options_.chunk, flags,
                                 options_.owner);
  }

  /// Counts the chunks of a blob that are there. Reads the table alone.
  /// @error{as open_file() and BlobFile::walk(), as there}
  [[nodiscard]] Result<BlobContents> look_at(BlobName const& name) const {
    EROFS_OCI_TRY_ASSIGN(auto const file, open_file(name, O_RDONLY));
    BlobContents found;
    EROFS_OCI_TRY_ASSIGN(found.kept, file.kept(0, file.layout().chunks()));
    return found;
  }

  /// Reads all chunks of a blob, and forgets those that are damaged.
  /// @error{as open_file() and BlobFile::walk(), as there}
  [[nodiscard]] Result<BlobContents> verify(BlobName const& name) const {
    EROFS_OCI_TRY_ASSIGN(auto const file, open_file(name, O_RDWR));
    auto const& layout = file.layout();
    BlobContents found;
    Bytes chunk;
    EROFS_OCI_TRY(file.walk(0, layout.chunks(), [&](std::uint64_t index, bool has) {
      if (!has) return true;
      chunk.resize(layout.bytes_in(index));
      if (file.read(index, chunk).value_or(false)) {
        found.kept += chunk.size();
      } else {
        ++found.damaged;
        static_cast<void>(file.erase(index, index + 1));
      }
      return true;
    }));
    return found;
  }

  /// Removes what was unused longest, until the rest takes at most `bytes`; then, of what somebody
  /// reads, all that is kept.
  /// @param before  and what was used before that, in nanoseconds since 1970
  /// @return what is gone, in the order of its last use
  /// @error{as list(), as there}
  [[nodiscard]] Result<std::vector<KeptBlob>> prune(
      std::uint64_t bytes, std::int64_t before = std::numeric_limits<std::int64_t>::min()) const {
    EROFS_OCI_TRY_ASSIGN(auto const blobs, list());
    return drop_others(blobs, [&](KeptBlob const& blob, std::uint64_t left) {
      return left <= bytes && blob.used >= before;
    });
  }

  /// Removes a blob, or all that is kept of one that somebody reads; one that is not there is no
  /// error.
  void remove(BlobName const& name) const { static_cast<void>(drop({name, 0, 0})); }

  /// Makes room if there is more than limit(): tells that a process has written `bytes`.
  /// @param own       the blob that was written, which is the last to go
  /// @param drop_own  `(std::uint64_t bytes)`: gives up so much of it
  template <class Drop>
  void wrote(std::uint64_t bytes, BlobName const& own, Drop const& drop_own) const {
    auto const step = std::clamp<std::uint64_t>(limit() / 64, 1, std::uint64_t{16} << 20);
    auto const before = written_.fetch_add(bytes);
    if (before != 0 && before / step == (before + bytes) / step) return;
    // One process at a time; another one will look again after its next writes.
    auto const gate = files_.open(directory_.get(), ".", O_RDONLY | O_DIRECTORY);
    if (!gate || !files_.try_hold(gate->get(), true).value_or(true)) return;
    auto const blobs = list();
    if (!blobs) return failed();
    auto const sum = bytes_on_disk(*blobs);
    if (sum <= limit()) return;
    auto const target = limit() - limit() / 16;
    auto const gone =
        bytes_on_disk(drop_others(*blobs, [&](KeptBlob const& blob, std::uint64_t left) {
          return left <= target || blob.name == own;
        }));
    counted_.evicted += gone;
    auto const left = sum - std::min(sum, gone);
    if (left > target) {
      drop_own(left - target);
      counted_.evicted += left - target;
    }
  }

  /// @name For what reads and writes blobs: counts
  /// @{
  void hit(std::uint64_t bytes) const noexcept {
    ++counted_.hits;
    counted_.hit_bytes += bytes;
  }
  void missed(std::uint64_t bytes) const noexcept {
    ++counted_.misses;
    counted_.missed_bytes += bytes;
  }
  void damaged() const noexcept { ++counted_.damaged; }
  void failed() const noexcept { ++counted_.failures; }
  /// @}

 private:
  struct Counted {
    std::atomic<std::uint64_t> hits{0}, hit_bytes{0}, misses{0}, missed_bytes{0}, damaged{0},
        failures{0}, evicted{0};
  };

  BasicBlobCache(std::string path, UniqueFd directory, BlobCacheOptions const& options, Files files)
      : path_(std::move(path)),
        directory_(std::move(directory)),
        options_(options),
        files_(std::move(files)) {}

  /// drop() for each blob of which `keep(blob, bytes that are left)` is not true. Yields those of
  /// which something is gone, with how much.
  template <class Keep>
  std::vector<KeptBlob> drop_others(std::span<KeptBlob const> blobs, Keep const& keep) const {
    auto left = bytes_on_disk(blobs);
    std::vector<KeptBlob> gone;
    for (auto const& blob : blobs) {
      if (keep(blob, left)) continue;
      auto const freed = drop(blob);
      left -= std::min(left, freed);
      if (freed > 0) gone.push_back({blob.name, freed, blob.used});
    }
    return gone;
  }

  /// Removes a blob's file, or empties it if somebody reads it: a file without a name would take
  /// space that nobody sees. Yields the bytes that are free now.
  std::uint64_t drop(KeptBlob const& blob) const {
    auto const text = blob.name.text();
    auto const fd = files_.open(directory_.get(), text, O_RDWR);
    if (!fd) {  // no file of ours, or a directory that others write: the name can go
      if (fd.error().code == std::errc::no_such_file_or_directory) return 0;
      return files_.remove(directory_.get(), text) ? blob.on_disk : 0;
    }
    auto const before = files_.facts(fd->get());
    if (!before) return 0;
    if (before->links > 1 || before->owner != options_.owner) {  // not ours to empty
      return files_.remove(directory_.get(), text) ? blob.on_disk : 0;
    }
    auto const alone = files_.try_hold(fd->get(), true);
    if (!alone || *alone) {
      return files_.remove(directory_.get(), text) ? before->on_disk : 0;
    }
    if (before->size <= BlobLayout::page) return 0;
    auto const emptied = files_.punch(fd->get(), BlobLayout::page, before->size - BlobLayout::page);
    auto const after = files_.facts(fd->get());
    if (!emptied || !after || after->on_disk > before->on_disk) return 0;
    return before->on_disk - after->on_disk;
  }

  std::string path_;
  UniqueFd directory_;
  BlobCacheOptions options_;
  Files files_;
  mutable Counted counted_;
  mutable std::atomic<std::uint64_t> written_{0};
};

/// A cache of the machine's files.
using BlobCache = BasicBlobCache<>;

}  // namespace erofs_oci
