// SPDX-License-Identifier: Apache-2.0
#include "memory_keeper.hpp"

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <malloc.h>
#include <sys/mman.h>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/image/memory_release.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace mount_oci {
namespace {

using erofs_oci::MemoryRelease;

struct Range {
  void* begin;
  std::size_t size;
};

/// A line of /proc/PID/maps, if it is memory of no file that is written to.
std::optional<Range> anonymous_range(std::string_view line) {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  auto const* const last = line.data() + line.size();
  auto const [dash, first_error] = std::from_chars(line.data(), last, begin, 16);
  if (first_error != std::errc() || dash == last) return std::nullopt;
  auto const [rest, second_error] = std::from_chars(dash + 1, last, end, 16);
  if (second_error != std::errc() || begin >= end) return std::nullopt;
  auto const what = std::string_view(rest, static_cast<std::size_t>(last - rest));
  auto const has_file = what.find('/') != what.npos || what.find("[stack") != what.npos;
  if (!what.starts_with(" rw-p ") || has_file) return std::nullopt;
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  return Range{reinterpret_cast<void*>(begin), end - begin};
}

/// Where the allocator's memory is, if it is locked.
std::vector<Range> locked_heap() {
  std::vector<Range> ranges;
  auto const status = erofs_oci::read_text_file("/proc/self/status");
  if (!status || status->find("VmLck:\t       0 kB") != status->npos) return ranges;
  auto const maps = erofs_oci::read_text_file("/proc/self/maps");
  if (!maps) return ranges;
  for (std::string_view left = *maps; !left.empty();) {
    auto const line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(left.size(), line.size() + 1));
    if (auto const range = anonymous_range(line)) ranges.push_back(*range);
  }
  return ranges;
}

}  // namespace

void bound_heap() noexcept {
#ifdef __GLIBC__
  constexpr int large = 256 * 1024;  // a chunk of decoded bytes
  ::mallopt(M_MMAP_THRESHOLD, large);
  ::mallopt(M_TRIM_THRESHOLD, 8 * large);
  // Threads that each have one keep much of what only one of them needs.
  ::mallopt(M_ARENA_MAX, 2);
#endif
}

void release_heap() noexcept {
#ifdef __GLIBC__
  // The kernel takes no page from the middle of locked memory. What comes from no file can be
  // unlocked for a moment: it needs the mount that this process serves only if there is a swap file
  // on it.
  auto const locked = erofs_oci::without_throwing([]() -> Result<std::vector<Range>> {
                        return locked_heap();
                      }).value_or(std::vector<Range>());
  for (auto const& range : locked) ::munlock(range.begin, range.size);
  ::malloc_trim(0);
  for (auto const& range : locked) ::mlock2(range.begin, range.size, MLOCK_ONFAULT);
#endif
}

MemoryKeeper::MemoryKeeper(Log const& log) : log_(log) {
  auto opened = erofs_oci::MemoryPressure::open();
  auto const known = opened.and_then([](auto const& pressure) { return pressure.waited(); });
  if (known) {
    pressure_ = *std::move(opened);
  } else {
    log.say(Level::debug,
            "memory is not given back when the machine needs it: " + known.error().message());
  }
}

std::optional<std::chrono::microseconds> MemoryKeeper::waited() const {
  if (!pressure_) return std::nullopt;
  auto const waited = pressure_->waited();
  return waited ? std::optional(*waited) : std::nullopt;
}

void MemoryKeeper::begin(erofs_oci::HeldMemory held, std::function<std::uint64_t()> reads,
                         std::chrono::seconds quiet) {
  using namespace std::chrono_literals;
  auto const look = [this, held = std::move(held), reads = std::move(reads),
                     quiet](std::stop_token const& stop) {
    MemoryRelease release(std::chrono::steady_clock::now(), {.quiet = quiet});
    std::mutex mutex;
    std::condition_variable_any stopped;
    std::unique_lock lock(mutex);
    auto const once = [&]() -> Result<void> {
      erofs_oci::MemorySight sight{reads(), held.all(), waited()};
      auto const most = release.look(std::chrono::steady_clock::now(), sight);
      if (!most) return {};
      held.shrink_to(*most);
      release_heap();
      return {};
    };
    while (!stopped.wait_for(lock, stop, 1s, [&] { return stop.stop_requested(); })) {
      static_cast<void>(erofs_oci::without_throwing(once));  // in need of memory: once more
    }
  };
  auto begun = start_thread(look);
  if (!begun) {
    return log_.say(Level::info, "memory is not given back: " + begun.error().message());
  }
  thread_ = *std::move(begun);
}

}  // namespace mount_oci
