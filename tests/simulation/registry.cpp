// SPDX-License-Identifier: Apache-2.0
#include "registry.hpp"

#include <algorithm>
#include <ctime>
#include <optional>
#include <thread>
#include <utility>

#include <erofs_oci/testing/fake_transport.hpp>

namespace simulation {
namespace {

using namespace erofs_oci;
using namespace std::chrono_literals;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::header_of;
using testing::range_of;

constexpr std::string_view user = "user";
constexpr std::string_view password = "PASSWORD-SECRET";
constexpr std::string_view challenge = R"(Bearer realm="https://auth/token",service="s")";

std::string http_date(milliseconds from_now) {
  auto const at = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now() + from_now);
  std::tm parts{};
  ::gmtime_r(&at, &parts);
  char text[40];
  std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return text;
}

}  // namespace

/// One request while it is answered.
struct SimulatedNet::Exchange {
  HttpRequest const& request;
  HttpHeadSink head;
  ByteSink body;
  Fault fault = Fault::none;
  steady_clock::time_point window = steady_clock::now();  // of the rate
  std::uint64_t in_window = 0;

  /// Lets time pass; the limit that is reached meanwhile, if one is.
  std::optional<Error> wait(milliseconds pause, milliseconds limit) {
    auto const now = steady_clock::now();
    auto const left = std::chrono::floor<milliseconds>(request.deadline - now);
    auto const most = std::max(0ms, std::min(limit, left));
    std::this_thread::sleep_for(std::min(pause, most));
    if (pause < most) return std::nullopt;
    return Error{Errc::timed_out, left <= limit ? "the deadline" : "no byte came"};
  }

  /// Counts what came; an error if it is too slow.
  std::optional<Error> count(std::size_t bytes) {
    in_window += bytes;
    auto const passed = steady_clock::now() - window;
    if (passed < request.limits.rate_time) return std::nullopt;
    auto const least = request.limits.least_rate *
                       static_cast<std::uint64_t>(request.limits.rate_time.count()) / 1000;
    if (in_window < least) return Error{Errc::timed_out, "too slow"};
    window = steady_clock::now();
    in_window = 0;
    return std::nullopt;
  }
};

SimulatedNet::SimulatedNet(SimulatedImage const& image, Coverage& coverage, Random random)
    : image_(image), coverage_(coverage), random_(random) {
  for (auto const& layer : image.layers) blobs_[layer.descriptor.digest.to_string()] = layer.blob;
  blobs_[image.config_at.digest.to_string()] = image.config;
  // Each run has some kinds of faults, and few or many of them.
  for (auto i = 1; i <= static_cast<int>(Fault::last_of_exchange); ++i) {
    if (random_.one_in(3)) kinds_.push_back(static_cast<Fault>(i));
  }
  constexpr std::array<std::uint64_t, 5> rates{0, 30, 12, 6, 3};
  fault_one_in_ = kinds_.empty() ? 0 : rates[random_.below(rates.size())];
  constexpr std::array logins{Login::none, Login::basic, Login::bearer, Login::bearer};
  login_ = logins[random_.below(logins.size())];
  token_life_ = milliseconds(random_.between(200, 8'000));
  refuse_by_403_ = random_.one_in(3);
  has_mirror_ = random_.one_in(2);
  redirects_ = random_.one_in(2);
}

Credentials SimulatedNet::credentials() const {
  return {std::string(user), std::string(password), {}, {}};
}

void SimulatedNet::poison(std::size_t layer) {
  poisoned_ = static_cast<int>(layer);
  auto& blob = blobs_[image_.layers[layer].descriptor.digest.to_string()];
  blob[random_.below(blob.size())] ^= std::byte{1};
  coverage_.occurred(Fault::poisoned);
}

void SimulatedNet::saw(Error const& error) {
  if (error.code != Errc::digest_mismatch) return;
  if (poisoned_ >= 0) coverage_.effect(Fault::poisoned);
  if (poisoned_ < 0 && wrong_bodies_ > 0) coverage_.effect(Fault::flipped_bit);
  if (poisoned_ < 0 && wrong_bodies_ == 0) broke("a digest mismatch without a wrong byte");
}

void SimulatedNet::broke(std::string rule) {
  if (broken_rule_.empty()) broken_rule_ = std::move(rule);
}

Fault SimulatedNet::choose(bool is_mirror) {
  if (healthy_ || fault_one_in_ == 0 || !random_.one_in(fault_one_in_)) return Fault::none;
  auto const fault = kinds_[random_.below(kinds_.size())];
  if (fault == Fault::mirror_down && !is_mirror) return Fault::none;
  return fault;
}

// What holds of every request, whatever the servers did before.
void SimulatedNet::check_request(HttpRequest const& request) {
  auto const now = steady_clock::now();
  std::size_t largest = 0;
  for (auto const& [digest, blob] : blobs_) largest = std::max(largest, blob.size());
  if (request.deadline > now + request.limits.stream_total(largest))
    broke("a request whose deadline is too far away");
  auto const has_secret = !header_of(request, "Authorization").empty();
  auto const& host = request.url.host;
  auto const is_ours = host == "registry" || host == "mirror" || host == "auth";
  if (has_secret && !is_ours) broke("credentials went to " + host);
  auto const authorization = header_of(request, "Authorization");
  if (host == "auth" && authorization.starts_with("Bearer")) broke("a token went to " + host);
  if (login_ == Login::bearer && host != "auth" && authorization.starts_with("Basic")) {
    broke("the password went to " + host + ", which did not ask for it");
  }
}

SimulatedNet::Result SimulatedNet::exchange(HttpRequest const& request, HttpHeadSink head,
                                            ByteSink body) {
  auto* const scheduler = Scheduler::now_running();
  if (closed_ || scheduler->is_dead(Scheduler::group())) {
    return fail(Errc::unavailable, "the process ends");
  }
  check_request(request);
  auto const begin = steady_clock::now();
  if (auto const again = asked_again_after_.extract(Scheduler::thread())) {
    coverage_.effect(again.mapped());
  }
  Exchange one{request, head, body};
  bool const is_mirror = request.url.host == "mirror";
  one.fault = choose(is_mirror);
  if (one.fault != Fault::none) coverage_.occurred(one.fault);
  auto const name = fault_names[static_cast<std::size_t>(one.fault)];
  scheduler->note("ask " + request.url.host + " " + header_of(request, "Range") + " " +
                  (one.fault == Fault::none ? std::string() : "[" + std::string(name) + "]"));
  bool refused = false;
  auto const watched_head = [&](HttpHead const& response) {
    auto const wanted = head(response);
    refused = refused || !wanted;
    return wanted;
  };
  auto const watched_body = [&](std::span<std::byte const> bytes) {
    auto const wanted = body(bytes);
    refused = refused || !wanted;
    return wanted;
  };
  one.head = watched_head;
  one.body = watched_body;
  auto const done = answer(one);
  if (one.fault != Fault::none) {
    bool const accepted = one.fault == Fault::slow_body || one.fault == Fault::whole_body;
    if (refused || !done || (accepted && done)) {
      coverage_.effect(one.fault);
    } else if (one.fault != Fault::flipped_bit) {
      asked_again_after_[Scheduler::thread()] = one.fault;
    }
  }
  bool const lives = !closed_ && !scheduler->is_dead(Scheduler::group());
  if (lives && steady_clock::now() > request.deadline && steady_clock::now() != begin) {
    broke("the simulated transport took longer than its deadline");
  }
  scheduler->note(done ? "  answered" : "  " + done.error().message());
  return done;
}

SimulatedNet::Result SimulatedNet::answer(Exchange& exchange) {
  auto const& url = exchange.request.url;
  auto const latency = milliseconds(random_.between(1, 30));
  if (auto error = exchange.wait(latency, exchange.request.limits.connect)) return fail(*error);
  bool const is_mirror = url.host == "mirror";
  if (is_mirror && (exchange.fault == Fault::mirror_down ||
                    (!healthy_ && steady_clock::now() < mirror_down_until_))) {
    if (exchange.fault == Fault::mirror_down) {
      mirror_down_until_ = steady_clock::now() + milliseconds(random_.between(100, 5'000));
    }
    return fail(Errc::unavailable, "no connection");
  }
  switch (exchange.fault) {
    case Fault::refused: return fail(Errc::unavailable, "no connection");
    case Fault::forbidden: return send_status(exchange, 403);
    case Fault::rate_limit:
      return send_status(exchange, 429, {{"Retry-After", std::to_string(random_.below(4))}});
    case Fault::rate_limit_date:
      return send_status(exchange, 429,
                         {{"Retry-After", http_date(milliseconds(random_.below(4'000)))}});
    case Fault::unavailable: return send_status(exchange, 503);
    case Fault::server_error: return send_status(exchange, 500);
    case Fault::not_found: return send_status(exchange, 404);
    case Fault::redirect_loop: return send_status(exchange, 307, {{"Location", url.to_string()}});
    case Fault::no_location: return send_status(exchange, 302);
    default: break;
  }
  if (url.host == "auth") return answer_token(exchange);
  if (url.host == "cdn") {
    auto const query = url.target.find("?sig=");
    auto const signature = signatures_.find(url.target.substr(query + 5));
    if (signature == signatures_.end() || signature->second < steady_clock::now()) {
      coverage_.occurred(Fault::expired_url);
      asked_again_after_[Scheduler::thread()] = Fault::expired_url;
      return send_status(exchange, 403);
    }
    return answer_blob(exchange, url.target.substr(1, query - 1));
  }
  if (url.host != "registry" && !is_mirror) {
    broke("a request to " + url.host);
    return fail(Errc::unavailable, "no such host");
  }
  Result done;
  if (!is_logged_in(exchange, done)) return done;
  std::string_view target = url.target;
  constexpr std::string_view manifests = "/v2/n/m/manifests/";
  constexpr std::string_view blobs = "/v2/n/m/blobs/";
  if (target.starts_with(manifests)) {
    return answer_manifest(exchange, target.substr(manifests.size()));
  }
  if (!target.starts_with(blobs)) return send_status(exchange, 404);
  auto const digest = target.substr(blobs.size());
  if (redirects_ && !is_mirror) {
    auto const signature = "SIGNATURE-SECRET-" + std::to_string(++issued_);
    signatures_[signature] = steady_clock::now() + milliseconds(random_.between(200, 4'000));
    return send_status(exchange, 307,
                       {{"Location", "https://cdn/" + std::string(digest) + "?sig=" + signature}});
  }
  return answer_blob(exchange, digest);
}

SimulatedNet::Result SimulatedNet::answer_token(Exchange& exchange) {
  if (header_of(exchange.request, "Authorization") != basic_authorization(credentials())) {
    return send_status(exchange, 401);
  }
  if (!healthy_ && fault_one_in_ != 0 && random_.one_in(2 * fault_one_in_)) {
    auto const fault = random_.one_in(2) ? Fault::login_down : Fault::login_garbage;
    coverage_.occurred(fault);
    coverage_.effect(fault);
    if (fault == Fault::login_down) return send_status(exchange, 503);
    return send(exchange, 200, {}, to_bytes(std::string_view("{\"token\": 7")));
  }
  auto const token = "TOKEN-SECRET-" + std::to_string(++issued_);
  // Some registries end a token before it says so.
  auto const said = random_.one_in(2) ? std::chrono::ceil<std::chrono::seconds>(token_life_) : 60s;
  tokens_[token] = steady_clock::now() + token_life_;
  return send(exchange, 200, {},
              to_bytes("{\"token\":\"" + token +
                       "\",\"expires_in\":" + std::to_string(said.count()) + "}"));
}

// Whether the request may have what it asks for; else `done` is the outcome of refusing it.
bool SimulatedNet::is_logged_in(Exchange& exchange, Result& done) {
  auto const authorization = header_of(exchange.request, "Authorization");
  if (login_ == Login::none) return true;
  if (login_ == Login::basic) {
    if (authorization == basic_authorization(credentials())) return true;
    done = send_status(exchange, 401, {{"WWW-Authenticate", "Basic realm=\"r\""}});
    return false;
  }
  constexpr std::string_view bearer = "Bearer ";
  auto const token = authorization.starts_with(bearer)
                         ? tokens_.find(authorization.substr(bearer.size()))
                         : tokens_.end();
  if (token != tokens_.end() && steady_clock::now() < token->second) return true;
  if (token != tokens_.end()) {
    auto const fault = refuse_by_403_ ? Fault::expired_login_403 : Fault::expired_token;
    coverage_.occurred(fault);
    asked_again_after_[Scheduler::thread()] = fault;
    if (refuse_by_403_) {
      done = send_status(exchange, 403);
      return false;
    }
  }
  done = send_status(exchange, 401, {{"WWW-Authenticate", std::string(challenge)}});
  return false;
}

SimulatedNet::Result SimulatedNet::answer_manifest(Exchange& exchange, std::string_view target) {
  if (target != "latest" && target != image_.manifest_digest.to_string()) {
    return send_status(exchange, 404);
  }
  HttpHeaders headers{{"Content-Type", std::string(media_type::oci_manifest)},
                      {"Docker-Content-Digest", image_.manifest_digest.to_string()}};
  // Nothing but its digest says where it ends.
  if (exchange.fault == Fault::early_end) ++wrong_bodies_;
  return send(exchange, 200, std::move(headers), to_bytes(std::string_view(image_.manifest)));
}

SimulatedNet::Result SimulatedNet::answer_blob(Exchange& exchange, std::string_view digest) {
  auto const found = blobs_.find(digest);
  if (found == blobs_.end()) return send_status(exchange, 404);
  return answer_range(exchange, found->second);
}

SimulatedNet::Result SimulatedNet::answer_range(Exchange& exchange,
                                                std::span<std::byte const> object) {
  auto const total = object.size();
  auto const range = range_of(exchange.request);
  if (!range || range->first > range->second || range->second >= total) {
    broke("a request for bytes outside of the blob");
    return send_status(exchange, 416);
  }
  auto first = static_cast<std::size_t>(range->first);
  auto length = static_cast<std::size_t>(range->second - range->first + 1);
  HttpHeaders headers;
  switch (exchange.fault) {
    case Fault::wrong_range:
      first = first > 0 && random_.one_in(2) ? first - 1 : std::min(first + 1, total - 1);
      length = std::min(length, total - first);
      if (first == range->first) exchange.fault = Fault::none;
      break;
    case Fault::short_range: length = random_.between(1, length); break;
    case Fault::whole_body:
      return send(exchange, 200, {{"Content-Length", std::to_string(total)}}, to_bytes(object));
    case Fault::packed: headers.push_back({"Content-Encoding", "gzip"}); break;
    default: break;
  }
  auto body = to_bytes(object.subspan(first, length));
  auto const said = exchange.fault == Fault::wrong_size ? total + 1 : total;
  if (exchange.fault != Fault::no_range) {
    headers.push_back({"Content-Range", "bytes " + std::to_string(first) + "-" +
                                            std::to_string(first + length - 1) + "/" +
                                            std::to_string(said)});
  }
  if (exchange.fault == Fault::long_body) body.resize(body.size() + random_.between(1, 100));
  if (exchange.fault == Fault::flipped_bit) {
    body[random_.below(body.size())] ^= std::byte{1} << static_cast<int>(random_.below(8));
    ++wrong_bodies_;
  }
  return send(exchange, 206, std::move(headers), std::move(body));
}

SimulatedNet::Result SimulatedNet::send_status(Exchange& exchange, int status,
                                               HttpHeaders headers) {
  return send(exchange, status, std::move(headers), {});
}

SimulatedNet::Result SimulatedNet::send(Exchange& exchange, int status, HttpHeaders headers,
                                        Bytes body) {
  if (!exchange.head({status, std::move(headers)})) return {};
  auto const& limits = exchange.request.limits;
  auto end = body.size();
  bool const ends = exchange.fault == Fault::cut_body || exchange.fault == Fault::early_end ||
                    exchange.fault == Fault::stall;
  if (ends && end > 0) end = random_.below(end);
  for (std::size_t at = 0; at < end;) {
    auto size = random_.between(1, 32'768);
    auto pause = milliseconds(random_.below(4));
    if (exchange.fault == Fault::drip) {
      size = random_.between(1, 64);
      pause = milliseconds(random_.between(100, 900));
    }
    if (exchange.fault == Fault::slow_body) {
      size = random_.between(1'000, 4'000);
      pause = milliseconds(random_.between(100, 600));
    }
    auto const n = std::min<std::size_t>(size, end - at);
    if (auto error = exchange.wait(pause, limits.idle)) return fail(*error);
    if (closed_) return fail(Errc::unavailable, "the process ends");
    if (auto error = exchange.count(n)) return fail(*error);
    if (!exchange.body(std::span(body).subspan(at, n))) return {};
    at += n;
  }
  if (exchange.fault == Fault::stall) return fail(*exchange.wait(24h, limits.idle));
  if (exchange.fault == Fault::cut_body) return fail(Errc::unavailable, "connection reset");
  return {};
}

}  // namespace simulation
