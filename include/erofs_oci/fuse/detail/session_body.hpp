// SPDX-License-Identifier: Apache-2.0
/// @file
/// What fuse/session.hpp only declares.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include <linux/fuse.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <erofs_oci/core/config.hpp>
#include <erofs_oci/core/function_ref.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/fuse/inflight.hpp>
#include <erofs_oci/fuse/mount.hpp>
#include <erofs_oci/fuse/session.hpp>
#include <erofs_oci/posix/descriptor.hpp>

namespace erofs_oci {

EROFS_OCI_BODY Result<FuseSession> FuseSession::open(fuse_lowlevel_ops const& operations,
                                                     void* user, FuseConnection connection,
                                                     std::size_t threads) {
  EROFS_OCI_TRY_ASSIGN(auto inflight,
                       connection.inflight ? FuseInflight::map(std::move(connection.inflight))
                                           : FuseInflight::make(std::clamp(
                                                 threads, fewest_slots, FuseInflight::most_slots)),
                       "fuse");
  auto state = std::make_unique<State>(std::move(inflight));
  state->connection = std::move(connection);
  state->threads = std::clamp<std::size_t>(threads, 1, state->inflight.slots());
  EROFS_OCI_TRY(state->open(operations, user), "fuse");
  return FuseSession(std::move(state));
}

EROFS_OCI_BODY Result<FuseEnd> FuseSession::run(std::stop_token stop,
                                                FunctionRef<void(FuseSession&)> ready,
                                                FunctionRef<void()> on_stop,
                                                OnFuseTick const& on_tick, std::stop_token leave) {
  auto& state = *state_;
  state.leave = std::move(leave);
  auto end = FuseEnd::unmounted;
  if (!state.connection.opening.empty()) state.take_over();
  std::vector<std::jthread> threads;
  try {
    for (std::size_t i = 0; i < state.threads; ++i) {
      threads.emplace_back([&state, i] { state.work(i); });
    }
    std::unique_lock lock(state.mutex);
    auto const begun = [&] { return state.agreed || state.ended; };
    if (state.changed.wait(lock, stop, begun) && state.agreed) {
      lock.unlock();
      ready(*this);
      lock.lock();
    }
    if (!state.wait_for_end(lock, stop, on_tick)) {
      lock.unlock();
      end = FuseEnd::stopped;
      on_stop();
    }
  } catch (std::system_error const& error) {  // no thread
    state.finish(Error{error.code(), "a thread for requests", {}});
  } catch (...) {
    state.dismiss();
    throw;
  }
  state.dismiss();
  threads.clear();
  if (state.error) return fail(*std::move(state.error), "fuse");
  return end;
}

EROFS_OCI_BODY Result<FuseConnection> FuseSession::share() const {
  EROFS_OCI_TRY_ASSIGN(auto device, duplicate(state_->connection.device.get()));
  EROFS_OCI_TRY_ASSIGN(auto inflight, state_->inflight.share());
  std::lock_guard const lock(state_->mutex);
  return FuseConnection{std::move(device), state_->connection.opening, std::move(inflight)};
}

}  // namespace erofs_oci
