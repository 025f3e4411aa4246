// SPDX-License-Identifier: Apache-2.0
/// @file
/// CheckpointChooser: chooses checkpoints whose windows are small.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/gzip/checkpoint.hpp>
#include <erofs_oci/gzip/decoder.hpp>
#include <erofs_oci/gzip/inflater.hpp>
#include <erofs_oci/gzip/window.hpp>

namespace erofs_oci {

/// How far checkpoint `b` is behind `a`: decoded bytes or, of what deflate makes less than half as
/// small, twice the compressed bytes, so that those parts are entered as cheaply.
[[nodiscard]] constexpr std::uint64_t checkpoint_distance(Checkpoint const& a,
                                                          Checkpoint const& b) noexcept {
  return std::max(b.out - a.out, 2 * (b.in - a.in));
}

/// What a CheckpointChooser tells. A checkpoint is told before the byte at its `in`, and after all
/// bytes before that.
struct ChosenEvents {
  /// The next checkpoint. `packed_window`: as pack_window() makes it.
  std::function<void(Checkpoint const& point, Bytes packed_window)> checkpoint;
  /// The next compressed bytes, every one of them once, in order.
  std::function<void(std::span<std::byte const> bytes)> compressed;
};

/// Chooses from all block boundaries of a gzip stream, told as GzipScanner tells them: the first
/// one; then, of those whose checkpoint_distance() from the last one chosen is within [0.5, 1.5] of
/// `target`, one with a small window. If there is none, it is the next one behind.
///
/// Nearly all windows can be told to be large by one decode of 4 KiB behind the complement of the
/// window; only the best four are looked at exactly. Which ones are chosen depends on the blob
/// alone, not on the pieces in which it comes. Holds 32 KiB for each of 130 boundaries at most, and
/// the compressed bytes from the first of them on. Not thread-safe.
template <Inflater I = DefaultInflater>
class CheckpointChooser {
 public:
  /// @param target  wanted distance between checkpoints. Range: 64 or more
  CheckpointChooser(std::uint64_t target, ChosenEvents events)
      : target_(target), events_(std::move(events)) {}

  /// Takes the next decoded bytes.
  void decoded(std::span<std::byte const> bytes) {
    // Only the last few can still lack some.
    for (auto c = candidates_.rbegin(); c != candidates_.rend(); ++c) {
      if (c->next.size() == ranked_size) break;
      auto const part = bytes.first(std::min(bytes.size(), ranked_size - c->next.size()));
      c->next.insert(c->next.end(), part.begin(), part.end());
    }
    now_.out += bytes.size();
  }

  /// Takes the next compressed bytes, after what they decode to.
  void compressed(std::span<std::byte const> bytes) {
    if (bytes.empty()) return;
    untold_.insert(untold_.end(), bytes.begin(), bytes.end());
    last_byte_ = bytes.back();
    now_.in += bytes.size();
    decide(AfterBytes::more);
  }

  /// Takes a block boundary, after all bytes before it.
  /// @param window  the decoded data before it
  void boundary(Checkpoint const& point, std::span<std::byte const, gzip_window_size> window) {
    if (!last_) {
      tell(point.in);
      last_ = point;
      return events_.checkpoint(point, {});  // it begins a member, so nothing is before it
    }
    decide(AfterBytes::more);
    add(point, window);
    tell_settled();
  }

  /// Says that no bytes follow.
  void finish() {
    decide(AfterBytes::next_span);
    candidates_.clear();
    tell_settled();
  }

 private:
  struct Candidate {
    Checkpoint point;
    std::byte first{};  // the byte before point.in
    Bytes window;
    Bytes next;                         // decoded bytes behind it, the first few
    std::optional<std::size_t> rank{};  // how many of `next` seem to be copies from the window
    std::optional<WindowUse> use{};
    std::size_t cost = 0;  // bytes of a packed window that is so used, roughly
  };

  static constexpr std::size_t ranked_size = 4096;     // decoded bytes that the rank looks at
  static constexpr std::size_t looked_at = 64 * 1024;  // compressed bytes, at most
  static constexpr std::size_t exact_looks = 4;
  static constexpr std::size_t cheap_enough = 64;  // bytes

  // Near boundaries form a cluster, of which the first and the last count: some boundary is always
  // left in a range that a cluster reaches into. What is in a cluster does not depend on decisions,
  // so the time of those does not matter.
  void add(Checkpoint const& point, std::span<std::byte const, gzip_window_size> window) {
    bool const near = cluster_ && checkpoint_distance(*cluster_, point) < target_ / 64;
    if (near && ends_cluster_ && !candidates_.empty()) candidates_.pop_back();
    ends_cluster_ = near;
    if (!near) cluster_ = point;
    candidates_.push_back({point, last_byte_, to_bytes(window), {}});
  }

  // Chooses while everything that the choice depends on has come.
  void decide(AfterBytes after) {
    if (!last_) return tell_settled();
    for (;;) {
      while (!candidates_.empty() && distance(candidates_.front()) < target_ / 2) {
        candidates_.pop_front();
      }
      tell_settled();
      auto const most = target_ + target_ / 2;
      if (candidates_.empty() || checkpoint_distance(*last_, now_) <= most) return;
      auto const end =
          std::ranges::find_if(candidates_, [&](Candidate const& c) { return distance(c) > most; });
      auto const count = std::max<std::ptrdiff_t>(end - candidates_.begin(), 1);
      auto* const best = cheapest(static_cast<std::size_t>(count), after);
      if (best == nullptr) return;
      choose(*best);
    }
  }

  [[nodiscard]] std::uint64_t distance(Candidate const& c) const {
    return checkpoint_distance(*last_, c.point);
  }

  // The best of the first `count`; null: more bytes must come first.
  Candidate* cheapest(std::size_t count, AfterBytes after) {
    auto const& last = candidates_[count - 1].point;
    bool const enough = now_.in - last.in >= looked_at || now_.out - last.out >= gzip_window_size;
    if (!enough && after == AfterBytes::more) return nullptr;
    std::vector<Candidate*> order;
    for (std::size_t i = 0; i < count; ++i) {
      if (!rank(candidates_[i], after)) return nullptr;
      order.push_back(&candidates_[i]);
    }
    // Of those that are alike, the one that makes the span as long as was asked.
    auto const off = [&](Candidate const& c) {
      auto const d = distance(c);
      return d > target_ ? d - target_ : target_ - d;
    };
    std::ranges::sort(order, {}, [&](Candidate const* c) {
      return std::tuple(*c->rank, off(*c), c->point.bit_position());
    });
    Candidate* best = nullptr;
    for (auto* const c : std::span(order).first(std::min(order.size(), exact_looks))) {
      if (!look(*c, after)) return nullptr;
      if (best == nullptr || c->cost < best->cost) best = c;
      if (best->cost <= cheap_enough) break;
    }
    return best;
  }

  [[nodiscard]] std::span<std::byte const> behind(Candidate const& c) const {
    auto const bytes = std::span(untold_).subspan(static_cast<std::size_t>(c.point.in - told_));
    return bytes.first(std::min(bytes.size(), looked_at));
  }

  // Whether what is looked at is all that will ever be.
  [[nodiscard]] AfterBytes after_look(std::span<std::byte const> bytes, AfterBytes after) const {
    return bytes.size() < looked_at ? after : AfterBytes::more;
  }

  // False: more bytes must come first.
  bool rank(Candidate& c, AfterBytes after) {
    if (c.rank) return true;
    auto const bytes = behind(c);
    auto other = c.window;
    for (auto& byte : other) byte = ~byte;
    auto const found = detail::decode_behind(inflater_, c.point.bits, c.first,
                                             std::span<std::byte const, gzip_window_size>(other),
                                             bytes, after_look(bytes, after), c.next.size());
    if (found && !*found && bytes.size() < looked_at) return false;
    c.rank = c.next.size();
    if (!found || !*found) return true;
    auto const n = std::min((*found)->size(), c.next.size());
    std::size_t copies = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if ((**found)[i] != c.next[i]) ++copies;
    }
    c.rank = copies;
    return true;
  }

  // The same for exactly which bytes are used. What cannot be looked at counts as used.
  bool look(Candidate& c, AfterBytes after) {
    if (c.use) return true;
    auto const bytes = behind(c);
    auto const found =
        find_window_use(inflater_, c.point.bits, c.first, bytes, after_look(bytes, after));
    if (found && !*found && bytes.size() < looked_at) return false;
    c.use = found && *found ? **found : WindowUse{}.set();
    auto const edges = (*c.use ^ *c.use << 1).count();  // each takes about a byte to tell of
    c.cost = c.use->count() + edges;
    return true;
  }

  void choose(Candidate& best) {
    auto const chosen = std::move(best);
    auto const window = std::span<std::byte const, gzip_window_size>(chosen.window);
    auto packed = pack_window(window, *chosen.use);
    tell(chosen.point.in);
    last_ = chosen.point;
    events_.checkpoint(chosen.point, std::move(packed));
    auto const rest = std::ranges::find_if(candidates_, [&](Candidate const& c) {
      return c.point.bit_position() > chosen.point.bit_position();
    });
    candidates_.erase(candidates_.begin(), rest);
  }

  // Tells of the bytes that no choice still to be made can move to another span.
  void tell_settled() { tell(candidates_.empty() ? now_.in : candidates_.front().point.in); }

  void tell(std::uint64_t end) {
    if (end <= told_) return;
    auto const n = static_cast<std::size_t>(end - told_);
    events_.compressed(std::span(std::as_const(untold_)).first(n));
    untold_.erase(untold_.begin(), untold_.begin() + static_cast<std::ptrdiff_t>(n));
    told_ = end;
  }

  std::uint64_t const target_;
  ChosenEvents events_;
  I inflater_;
  std::optional<Checkpoint> last_;     // that was chosen
  std::deque<Candidate> candidates_;   // behind it
  std::optional<Checkpoint> cluster_;  // where the last one begins
  bool ends_cluster_ = false;          // the last candidate is not its first
  Checkpoint now_;                     // how much has come
  std::byte last_byte_{};
  Bytes untold_;  // compressed bytes from told_ on
  std::uint64_t told_ = 0;
};

}  // namespace erofs_oci
