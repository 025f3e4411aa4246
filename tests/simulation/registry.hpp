// SPDX-License-Identifier: Apache-2.0
/// @file
/// A registry, its mirror, its token server and its store of blobs, with faults; and the transport
/// that reaches them.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/source/http_transport.hpp>

#include "coverage.hpp"
#include "image.hpp"
#include "scheduler.hpp"

namespace simulation {

/// What no message, trace or foreign host may ever see is made of this word.
inline constexpr std::string_view secret_mark = "SECRET";

/// All servers of a run. Answers in virtual time, and breaks a promise here and there.
///
/// @par Thread safety
/// exchange(), from any simulated thread.
class SimulatedNet {
 public:
  enum class Login : std::uint8_t { none, basic, bearer };

  /// Borrows both.
  SimulatedNet(SimulatedImage const& image, Coverage& coverage, Random random);

  /// HttpTransport: keeps its rules, limits and deadlines, whatever the servers do.
  [[nodiscard]] erofs_oci::Result<void> exchange(erofs_oci::HttpRequest const& request,
                                                 erofs_oci::HttpHeadSink head,
                                                 erofs_oci::ByteSink body);

  /// From now on more fails: a read makes few requests.
  void press() { fault_one_in_ = std::min<std::uint64_t>(fault_one_in_, 4); }

  /// From now on nothing fails but what is poisoned.
  void heal() { healthy_ = true; }

  /// The process ends: every exchange fails at once.
  void close() { closed_ = true; }

  /// Changes a byte of a layer for good.
  void poison(std::size_t layer);

  /// The layer that is poisoned; -1: none.
  [[nodiscard]] int poisoned() const noexcept { return poisoned_; }

  [[nodiscard]] bool has_mirror() const noexcept { return has_mirror_; }
  [[nodiscard]] erofs_oci::Credentials credentials() const;

  /// The first rule that a request broke; empty: none.
  [[nodiscard]] std::string const& broken_rule() const noexcept { return broken_rule_; }

  /// Tells of an error that came of reading, for the faults whose effect shows only there.
  void saw(erofs_oci::Error const& error);

 private:
  struct Exchange;
  using Result = erofs_oci::Result<void>;

  [[nodiscard]] Fault choose(bool is_mirror);
  void broke(std::string rule);
  void check_request(erofs_oci::HttpRequest const& request);
  [[nodiscard]] Result answer(Exchange& exchange);
  [[nodiscard]] Result answer_token(Exchange& exchange);
  [[nodiscard]] bool is_logged_in(Exchange& exchange, Result& done);
  [[nodiscard]] Result answer_manifest(Exchange& exchange, std::string_view target);
  [[nodiscard]] Result answer_blob(Exchange& exchange, std::string_view digest);
  [[nodiscard]] Result answer_range(Exchange& exchange, std::span<std::byte const> object);
  [[nodiscard]] Result send_status(Exchange& exchange, int status,
                                   erofs_oci::HttpHeaders headers = {});
  [[nodiscard]] Result send(Exchange& exchange, int status, erofs_oci::HttpHeaders headers,
                            erofs_oci::Bytes body);

  SimulatedImage const& image_;
  Coverage& coverage_;
  Random random_;
  std::map<std::string, erofs_oci::Bytes, std::less<>> blobs_;  // by digest
  std::vector<Fault> kinds_;                                    // that this run has
  std::uint64_t fault_one_in_ = 0;                              // 0: none
  Login login_ = Login::none;
  std::chrono::milliseconds token_life_{};
  bool refuse_by_403_ = false;
  bool has_mirror_ = false;
  bool redirects_ = false;
  std::map<std::string, std::chrono::steady_clock::time_point> tokens_;  // and when they end
  std::map<std::string, std::chrono::steady_clock::time_point> signatures_;
  std::chrono::steady_clock::time_point mirror_down_until_{};
  std::map<int, Fault> asked_again_after_;  // by thread: what its next request answers
  unsigned issued_ = 0;
  unsigned wrong_bodies_ = 0;
  int poisoned_ = -1;
  bool healthy_ = false;
  bool closed_ = false;
  std::string broken_rule_;
};

/// The transport of one process.
class SimulatedTransport {
 public:
  explicit SimulatedTransport(SimulatedNet& net) noexcept : net_(&net) {}

  [[nodiscard]] erofs_oci::Result<void> exchange(erofs_oci::HttpRequest const& request,
                                                 erofs_oci::HttpHeadSink head,
                                                 erofs_oci::ByteSink body) const {
    return net_->exchange(request, head, body);
  }

 private:
  SimulatedNet* net_;
};

static_assert(erofs_oci::HttpTransport<SimulatedTransport>);

}  // namespace simulation
