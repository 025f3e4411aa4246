// SPDX-License-Identifier: Apache-2.0
/// @file
/// BlobFile: one blob's chunks in a file that may be torn, cut, emptied or removed at any time.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <erofs_oci/cache/blob_files.hpp>
#include <erofs_oci/cache/blob_name.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/endian.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/sha256.hpp>

namespace erofs_oci {

/// Where the parts of a blob's file lie; see doc/formats/blob_cache.md. All in bytes.
struct BlobLayout {
  static constexpr std::uint64_t page = 4096;
  static constexpr std::uint64_t entry = 32;  ///< of the table: a SHA-256, or zeros

  std::uint64_t size = 0;  ///< of the blob
  std::uint64_t chunk = 0;

  [[nodiscard]] std::uint64_t chunks() const noexcept {
    return size / chunk + (size % chunk == 0 ? 0 : 1);
  }
  [[nodiscard]] std::size_t bytes_in(std::uint64_t index) const noexcept {
    return static_cast<std::size_t>(std::min(chunk, size - index * chunk));
  }
  [[nodiscard]] static std::uint64_t entry_at(std::uint64_t index) noexcept {
    return page + index * entry;
  }
  [[nodiscard]] std::uint64_t data_at(std::uint64_t index) const noexcept {
    auto const table = (chunks() * entry + page - 1) / page * page;
    return page + table + index * chunk;
  }
};

/// The file of one blob. A chunk is there if the table has its digest, which also covers the blob's
/// name and the chunk's number. What has another digest counts as not there, so that no order of
/// writes matters, and no write that is lost.
///
/// @par Thread safety
/// All const members, from any thread and any number of processes.
template <BlobFiles Files>
class BlobFile {
 public:
  /// Opens the file, or with O_CREAT makes it.
  /// @param flags  O_RDONLY or O_RDWR, and O_CREAT
  /// @param owner  who must own it, and gets what is made
  /// @error{an errno, as openat(2)\, fstat(2) and fchown(2); EPERM if it is no regular file with
  /// one name and that owner; ENOENT if it has just been removed}
  [[nodiscard]] static Result<BlobFile> open(Files files, int directory, BlobName const& name,
                                             std::uint64_t chunk, int flags, uid_t owner) {
    auto const text = name.text();
    EROFS_OCI_TRY_ASSIGN(auto fd, files.open(directory, text, flags));
    EROFS_OCI_TRY_ASSIGN(auto facts, files.facts(fd.get()));
    if ((flags & O_CREAT) != 0 && facts.owner != owner && facts.owner == ::geteuid()) {
      EROFS_OCI_TRY(files.give(fd.get(), owner), text);
      facts.owner = owner;
    }
    if (!facts.is_regular || facts.owner != owner || facts.links > 1) {
      return fail_errno(EPERM, text + ": not a file of user " + std::to_string(owner) + " alone");
    }
    BlobFile file(std::move(files), std::move(fd), name, chunk, (flags & O_ACCMODE) == O_RDWR);
    // Whoever removes blobs leaves those that are held; a file system may have no locks.
    static_cast<void>(file.files_.try_hold(file.fd_.get(), false));
    EROFS_OCI_TRY_ASSIGN(facts, file.files_.facts(file.fd_.get()));
    if (facts.links == 0) return fail_errno(ENOENT, text + " has just been removed");
    return file;
  }

  [[nodiscard]] BlobLayout const& layout() const noexcept { return layout_; }
  [[nodiscard]] bool is_writable() const noexcept { return writable_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  /// Whether a chunk may be there: whether the table has a digest for it.
  /// @error{as Files::read(), as there}
  [[nodiscard]] Result<bool> has(std::uint64_t index) const {
    EROFS_OCI_TRY_ASSIGN(auto const found, entry(index));
    return found != Entry{};
  }

  /// Reads a chunk, and yields whether it was there and is what was written.
  /// @param out  as long as the chunk; rubbish if not
  /// @error{as Files::read(), as there}
  [[nodiscard]] Result<bool> read(std::uint64_t index, std::span<std::byte> out) const {
    EROFS_OCI_TRY_ASSIGN(auto const wanted, entry(index));
    if (wanted == Entry{}) return false;
    EROFS_OCI_TRY_ASSIGN(auto const n, files_.read(fd_.get(), layout_.data_at(index), out));
    return n == out.size() && digest_of_chunk(index, out) == wanted;
  }

  /// Keeps a chunk.
  /// @param bytes  all of the chunk
  /// @error{as Files::write(), as there; the chunk is then there\, or not}
  [[nodiscard]] Result<void> write(std::uint64_t index, std::span<std::byte const> bytes) const {
    EROFS_OCI_TRY(files_.write(fd_.get(), layout_.data_at(index), bytes));
    auto const digest = digest_of_chunk(index, bytes);
    return files_.write(fd_.get(), BlobLayout::entry_at(index), digest);
  }

  /// Forgets chunks [begin, end).
  /// @error{as Files::write(), as there}
  [[nodiscard]] Result<void> erase(std::uint64_t begin, std::uint64_t end) const {
    Bytes const zeros(static_cast<std::size_t>((end - begin) * BlobLayout::entry));
    return files_.write(fd_.get(), BlobLayout::entry_at(begin), zeros);
  }

  /// Gives the space of chunks [begin, end) back; they must be erased already.
  /// @error{as Files::punch(), as there}
  [[nodiscard]] Result<void> release(std::uint64_t begin, std::uint64_t end) const {
    return files_.punch(fd_.get(), layout_.data_at(begin), (end - begin) * layout_.chunk);
  }

  /// Forgets all chunks and gives their space back.
  /// @error{as Files::punch(), as there}
  [[nodiscard]] Result<void> clear() const {
    return files_.punch(fd_.get(), BlobLayout::page,
                        layout_.data_at(layout_.chunks()) - BlobLayout::page);
  }

  /// Notes that the blob has been used, by the file's time. It writes what the first page always
  /// has: a confined process may write, but not set times.
  /// @error{as Files::write(), as there}
  [[nodiscard]] Result<void> touch() const { return files_.write(fd_.get(), 0, as_bytes(magic)); }

  /// The bytes of those of the chunks [begin, end) that are there, by the table.
  /// @error{as walk(), as there}
  [[nodiscard]] Result<std::uint64_t> kept(std::uint64_t begin, std::uint64_t end) const {
    std::uint64_t sum = 0;
    EROFS_OCI_TRY(walk(begin, end, [&](std::uint64_t index, bool has) {
      if (has) sum += layout_.bytes_in(index);
      return true;
    }));
    return sum;
  }

  /// Calls `visit(index, has)` for the chunks [begin, end), in order, until it yields false. Reads
  /// the table a page at a time.
  /// @error{as Files::read(), as there}
  template <class Visit>
  [[nodiscard]] Result<void> walk(std::uint64_t begin, std::uint64_t end,
                                  Visit const& visit) const {
    constexpr auto most = BlobLayout::page / BlobLayout::entry;
    std::array<std::byte, BlobLayout::page> page;
    while (begin < end) {
      auto const count = std::min(end - begin, most);
      auto const part = std::span(page).first(static_cast<std::size_t>(count * BlobLayout::entry));
      EROFS_OCI_TRY_ASSIGN(auto const n, files_.read(fd_.get(), BlobLayout::entry_at(begin), part));
      std::ranges::fill(part.subspan(n), std::byte{});
      for (std::size_t i = 0; i < count; ++i) {
        auto const one = part.subspan(i * BlobLayout::entry, BlobLayout::entry);
        auto const has = std::ranges::any_of(one, [](auto byte) { return byte != std::byte{}; });
        if (!visit(begin + i, has)) return {};
      }
      begin += count;
    }
    return {};
  }

 private:
  using Entry = std::array<std::byte, BlobLayout::entry>;

  static constexpr std::string_view magic = "erofs_oci blob cache 1\n";

  BlobFile(Files files, UniqueFd fd, BlobName const& name, std::uint64_t chunk, bool writable)
      : files_(std::move(files)),
        fd_(std::move(fd)),
        digest_(name.digest),
        layout_{name.size, chunk},
        writable_(writable) {}

  [[nodiscard]] Result<Entry> entry(std::uint64_t index) const {
    Entry found{};
    EROFS_OCI_TRY_ASSIGN(auto const n, files_.read(fd_.get(), BlobLayout::entry_at(index), found));
    return n == found.size() ? found : Entry{};
  }

  [[nodiscard]] Entry digest_of_chunk(std::uint64_t index, std::span<std::byte const> bytes) const {
    std::array<std::byte, 8> number{};
    store_le(index, std::span(number));
    Sha256 hash;
    hash.update(digest_.bytes());
    hash.update(number);
    hash.update(bytes);
    Entry result{};
    std::ranges::copy(hash.finish().bytes(), result.begin());
    return result;
  }

  Files files_;
  UniqueFd fd_;
  Digest digest_;
  BlobLayout layout_;
  bool writable_;
};

}  // namespace erofs_oci
