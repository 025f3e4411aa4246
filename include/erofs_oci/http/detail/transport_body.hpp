// SPDX-License-Identifier: Apache-2.0
/// @file
/// What http/transport.hpp only declares.
#pragma once

#include <chrono>
#include <memory>
#include <utility>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/stop.hpp>
#include <erofs_oci/http/detail/attempt.hpp>
#include <erofs_oci/http/detail/connection_pool.hpp>
#include <erofs_oci/http/detail/hedged_exchange.hpp>
#include <erofs_oci/http/options.hpp>
#include <erofs_oci/http/transport.hpp>
#include <erofs_oci/source/http_transport.hpp>

namespace erofs_oci {
namespace detail {

/// An exchange now, whatever its host has asked for.
inline Result<void> exchange_once(ConnectionPool& pool, HttpRequest const& request,
                                  HttpHeadSink head, ByteSink body) {
  EitherStop const either(request.stop, pool.options.stop);
  auto const& stop = either.token();
  auto const noting = [&](HttpHead const& response) {
    pool.pace->note(request.url.authority(), response, std::chrono::steady_clock::now());
    return head(response);
  };
  EROFS_OCI_TRY_ASSIGN(auto connection, pool.take(request.url, request.deadline, stop));
  EROFS_OCI_TRY(pool.check_reach(request, *connection, stop));
  Attempt first(request, stop, noting, body);
  auto done = first.run(*connection, pool);
  if (first.stale && is_safe(request.method)) {
    EROFS_OCI_TRY_ASSIGN(connection, pool.make(request.url, request.deadline, stop));
    EROFS_OCI_TRY(pool.check_reach(request, *connection, stop));
    done = Attempt(request, stop, noting, body).run(*connection, pool);
  }
  if (done) pool.give_back(request.url, std::move(connection));
  return done;
}

}  // namespace detail

EROFS_OCI_BODY HttplibTransport::HttplibTransport(HttplibOptions options)
    : pool_(std::make_shared<detail::ConnectionPool>(std::move(options))) {}

EROFS_OCI_BODY Result<void> HttplibTransport::exchange(HttpRequest const& request,
                                                       HttpHeadSink head, ByteSink body) const {
  auto const host = request.url.authority();
  EROFS_OCI_TRY(pool_->await_turn(host, request.deadline, request.stop));
  auto& hedging = pool_->options.hedging;
  if (hedging == nullptr || !detail::HedgedExchange<>::is_hedgeable(request)) {
    return detail::exchange_once(*pool_, request, head, body);
  }
  auto* const pool = pool_.get();
  detail::HedgedExchange<> const hedged(
      *hedging, [pool]() -> ThreadPool& { return pool->hedgers(); },
      [pool](HttpRequest const& one, HttpHeadSink to_head, ByteSink to_body) {
        return detail::exchange_once(*pool, one, to_head, to_body);
      },
      [pool, host] { return !pool->pace->turn(host, std::chrono::steady_clock::now()); });
  return hedged.run(request, head, body);
}

}  // namespace erofs_oci
