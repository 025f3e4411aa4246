// SPDX-License-Identifier: Apache-2.0
/// @file
/// FaultyFiles: a file system in which operations fail, by a plan that a test draws.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <mutex>
#include <random>
#include <string>

#include <erofs_oci/cache/blob_files.hpp>

namespace erofs_oci::cache_testing {

/// What goes wrong. One of `one_in` operations fails, in a way that is drawn, too; a write may also
/// do a part of its work, or none and say nothing, as after a loss of power.
struct FaultPlan {
  std::atomic<unsigned> one_in{0};        ///< 0: never
  std::atomic<bool> dead{false};          ///< all fail: the process was killed
  std::atomic<std::int64_t> dies_in{-1};  ///< operations until it is; negative: never
  std::atomic<int> write_error{0};        ///< that all writes fail with; 0: none
  std::atomic<bool> read_only{false};
  std::atomic<std::uint64_t> faults{0};
  std::mutex mutex{};
  std::mt19937 random{1};

  enum class Fate { good, fails, torn, lost };

  Fate next() {
    std::lock_guard const lock(mutex);
    if (dies_in >= 0 && dies_in-- == 0) {
      dead = true;
      ++faults;
      return Fate::torn;  // what it was about to write is half written
    }
    if (dead) return Fate::fails;
    if (one_in == 0 || random() % one_in != 0) return Fate::good;
    ++faults;
    constexpr Fate fates[] = {Fate::fails, Fate::torn, Fate::lost};
    return fates[random() % 3];
  }
};

class FaultyFiles {
 public:
  explicit FaultyFiles(std::shared_ptr<FaultPlan> plan = std::make_shared<FaultPlan>())
      : plan_(std::move(plan)) {}

  [[nodiscard]] Result<UniqueFd> open(int directory, std::string const& name, int flags) const {
    if (plan_->read_only && (flags & O_ACCMODE) != O_RDONLY) return fail_errno(EROFS, name);
    if (fails()) return fail_errno(EMFILE, name);
    return files_.open(directory, name, flags);
  }
  [[nodiscard]] Result<FileFacts> facts(int fd) const {
    if (fails()) return fail_errno(EIO, "facts");
    return files_.facts(fd);
  }
  [[nodiscard]] Result<FileFacts> facts_at(int fd, std::string const& name) const {
    if (fails()) return fail_errno(EIO, "facts_at");
    return files_.facts_at(fd, name);
  }
  [[nodiscard]] Result<void> give(int fd, uid_t owner) const { return files_.give(fd, owner); }
  [[nodiscard]] Result<std::size_t> read(int fd, std::uint64_t at, std::span<std::byte> out) const {
    switch (plan_->next()) {
      case FaultPlan::Fate::fails: return fail_errno(EIO, "read");
      case FaultPlan::Fate::torn: return files_.read(fd, at, out.first(out.size() / 2));
      case FaultPlan::Fate::lost: std::ranges::fill(out, std::byte{0}); return out.size();
      case FaultPlan::Fate::good: break;
    }
    return files_.read(fd, at, out);
  }
  [[nodiscard]] Result<void> write(int fd, std::uint64_t at,
                                   std::span<std::byte const> bytes) const {
    if (auto const error = plan_->write_error.load()) return fail_errno(error, "write");
    switch (plan_->next()) {
      case FaultPlan::Fate::fails: return fail_errno(ENOSPC, "write");
      case FaultPlan::Fate::torn:
        static_cast<void>(files_.write(fd, at, bytes.first(bytes.size() / 2)));
        return fail_errno(EIO, "write");
      case FaultPlan::Fate::lost: return {};
      case FaultPlan::Fate::good: break;
    }
    return files_.write(fd, at, bytes);
  }
  [[nodiscard]] Result<void> punch(int fd, std::uint64_t at, std::uint64_t n) const {
    if (fails()) return fail_errno(EOPNOTSUPP, "punch");
    return files_.punch(fd, at, n);
  }
  [[nodiscard]] Result<void> remove(int fd, std::string const& name) const {
    if (fails()) return fail_errno(EIO, name);
    return files_.remove(fd, name);
  }
  [[nodiscard]] Result<std::vector<std::string>> list(int fd) const {
    if (fails()) return fail_errno(EIO, "list");
    return files_.list(fd);
  }
  [[nodiscard]] Result<bool> try_hold(int fd, bool alone) const {
    if (fails()) return fail_errno(ENOLCK, "hold");
    return files_.try_hold(fd, alone);
  }
  [[nodiscard]] Result<bool> try_lock(int fd, std::uint64_t at, std::uint64_t n) const {
    if (fails()) return fail_errno(ENOLCK, "lock");
    return files_.try_lock(fd, at, n);
  }
  void unlock(int fd, std::uint64_t at, std::uint64_t n) const noexcept {
    files_.unlock(fd, at, n);
  }

 private:
  [[nodiscard]] bool fails() const { return plan_->next() != FaultPlan::Fate::good; }

  std::shared_ptr<FaultPlan> plan_;
  SystemFiles files_;
};

static_assert(BlobFiles<FaultyFiles>);

}  // namespace erofs_oci::cache_testing
