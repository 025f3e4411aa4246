// SPDX-License-Identifier: Apache-2.0
/// @file
/// One exchange, and a second one like it if the first is slow to be answered.
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/core/stop.hpp>
#include <erofs_oci/core/thread_pool.hpp>
#include <erofs_oci/http/hedging.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci::detail {

/// Lets time pass until something has happened.
struct HedgeTimer {
  /// @return whether `delay` has passed without it
  template <class Happened>
  bool passes(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
              Hedging::Duration delay, Happened const& happened) const {
    return !changed.wait_for(lock, delay, happened);
  }
};

/// Makes an exchange in the caller's thread and, unless its answer begins in time, the same one in
/// a thread of the pool. The answer that begins first goes to the caller's sinks; the other
/// exchange is stopped. Only for requests that may be made twice: see is_hedgeable().
template <class Timer = HedgeTimer>
class HedgedExchange {
 public:
  /// As HttpTransport's; may be called from two threads at once.
  using Exchange = std::function<Result<void>(HttpRequest const&, HttpHeadSink, ByteSink)>;

  /// @param threads   the pool; asked for when a second request may be needed
  /// @param exchange  used until the pool has no task of this object
  /// @param may_send  whether the host takes another request now
  HedgedExchange(Hedging& hedging, std::function<ThreadPool&()> threads, Exchange exchange,
                 std::function<bool()> may_send, Timer timer = {})
      : hedging_(hedging),
        threads_(std::move(threads)),
        exchange_(std::move(exchange)),
        may_send_(std::move(may_send)),
        timer_(std::move(timer)) {}

  /// Whether a request asks for a range of what does not change.
  [[nodiscard]] static bool is_hedgeable(HttpRequest const& request) {
    return request.method == HttpMethod::get &&
           HttpHead{0, request.headers}.find("Range").has_value();
  }

  /// One exchange with its answer, as HttpTransport. What a second exchange gets wrong before it is
  /// answered, or answers with an error, is not told: then the first one's outcome counts.
  [[nodiscard]] Result<void> run(HttpRequest const& request, HttpHeadSink head,
                                 ByteSink body) const {
    auto const race = std::make_shared<Race>(hedging_, request.url.authority(), head, body);
    if (auto const delay = hedging_.begin(race->host)) {
      // No thread, no second request.
      static_cast<void>(threads_().try_submit([race, request, delay = *delay, exchange = exchange_,
                                               may_send = may_send_, timer = timer_] {
        if (race->is_late(timer, delay, may_send)) race->run_second(request, exchange);
      }));
    }
    return race->run_first(request, exchange_);
  }

 private:
  enum class Runner { none, first, second };

  /// What both exchanges share; the caller's sinks only while they are not decided, or by the
  /// winner, for whom the caller waits.
  struct Race {
    Race(Hedging& h, std::string name, HttpHeadSink to_head, ByteSink to_body)
        : hedging(h), host(std::move(name)), head(to_head), body(to_body) {}

    Hedging& hedging;
    std::string host;
    HttpHeadSink head;
    ByteSink body;
    std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
    std::stop_source stop_first;
    std::stop_source stop_second;
    std::mutex mutex;  // guards what follows
    std::condition_variable changed;
    Runner winner = Runner::none;
    bool first_is_over = false;
    bool second_runs = false;
    std::optional<Result<void>> second;

    /// Whether a second exchange is wanted, and begins.
    bool is_late(Timer const& timer, Hedging::Duration delay,
                 std::function<bool()> const& may_send) {
      std::unique_lock lock(mutex);
      auto const decided = [this] { return winner != Runner::none || first_is_over; };
      if (!timer.passes(lock, changed, delay, decided)) return false;
      second_runs = may_send() && hedging.spend();
      return second_runs;
    }

    Result<void> run_first(HttpRequest const& request, Exchange const& exchange) {
      Result<void> done;
      std::exception_ptr thrown;
      try {
        done = run(Runner::first, request, stop_first, exchange);
      } catch (...) {  // the other exchange must not outlive the caller's sinks
        thrown = std::current_exception();
        stop_second.request_stop();
      }
      std::unique_lock lock(mutex);
      first_is_over = true;
      changed.notify_all();
      if (winner == Runner::first && !thrown) return done;
      changed.wait(lock, [this] { return !second_runs || second.has_value(); });
      if (thrown) std::rethrow_exception(thrown);
      if (winner == Runner::second) return *std::move(second);
      return done;
    }

    void run_second(HttpRequest const& request, Exchange const& exchange) {
      auto done =
          without_throwing([&] { return run(Runner::second, request, stop_second, exchange); });
      std::lock_guard const lock(mutex);
      second = std::move(done);
      changed.notify_all();
    }

    Result<void> run(Runner who, HttpRequest const& request, std::stop_source const& own,
                     Exchange const& exchange) {
      EitherStop const stop(request.stop, own.get_token());
      auto mine = request;
      mine.stop = stop.token();
      auto const on_head = [&](HttpHead const& response) {
        return wins(who, response) && head(response);
      };
      return exchange(mine, on_head, body);
    }

    /// Whether the answer that begins is the one that counts.
    bool wins(Runner who, HttpHead const& response) {
      if (who == Runner::second && response.status >= 400) return false;
      {
        std::lock_guard const lock(mutex);
        if (winner != Runner::none) return false;
        winner = who;
        changed.notify_all();
      }
      hedging.note(host, std::chrono::steady_clock::now() - begin);
      if (who == Runner::second) hedging.won();
      (who == Runner::first ? stop_second : stop_first).request_stop();
      return true;
    }
  };

  Hedging& hedging_;
  std::function<ThreadPool&()> threads_;
  Exchange exchange_;
  std::function<bool()> may_send_;
  Timer timer_;
};

}  // namespace erofs_oci::detail
