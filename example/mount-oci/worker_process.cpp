// SPDX-License-Identifier: Apache-2.0
#include "worker_process.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/recovery/heartbeat.hpp>

#include "daemon.hpp"
#include "worker.hpp"

namespace mount_oci {

using erofs_oci::EngineEnd;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::SupervisedDaemon;

Result<WorkerProcess> WorkerProcess::make() {
  auto children = Signals::take({SIGCHLD});
  if (!children) return fail(std::move(children).error());
  return WorkerProcess(*std::move(children));
}

Result<SupervisedDaemon> WorkerProcess::start(Options const& options,
                                              std::optional<erofs_oci::Record> const& record,
                                              erofs_oci::MountWay way, std::string const& target,
                                              Log& log) {
  auto heartbeat = erofs_oci::Heartbeat::pair();
  if (!heartbeat) return fail(std::move(heartbeat).error());
  auto links = Link::make();
  if (!links) return fail(std::move(links).error());
  auto const child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child == 0) {
    std::vector<int> keep{heartbeat->first.fd(), links->second.fd()};
    if (log.fd() >= 0) keep.push_back(log.fd());
    close_all_but(std::move(keep));
    Signals::give_back(SIGCHLD);
    std::_Exit(run_worker(
        {options, record, way, target, std::move(links->second), std::move(heartbeat->first)},
        log));
  }
  link_.emplace(std::move(links->first));
  pid_ = child;
  ++starts_;
  earlier_ = counts();
  counts_ = {};
  return SupervisedDaemon{child, std::move(heartbeat->second)};
}

std::optional<Message> WorkerProcess::receive() {
  if (!link_) return std::nullopt;
  auto message = link_->receive();
  if (message) return *std::move(message);
  link_.reset();
  return std::nullopt;
}

void WorkerProcess::let_go_on(Log const& log) const {
  static_cast<void>(children_->wait());
  siginfo_t info{};
  if (pid_ <= 0 || ::waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WNOHANG) != 0 ||
      info.si_pid != pid_) {
    return;
  }
  log.say(Level::warning, "the worker was stopped; it goes on");
  ::kill(pid_, SIGCONT);
}

void WorkerProcess::kill() const noexcept {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

void WorkerProcess::stop() const {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGTERM);
  for (int i = 0; i < 300; ++i) {
    if (::waitpid(pid_, nullptr, WNOHANG) != 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void WorkerProcess::note_end(erofs_oci::ProcessExit const& exit) noexcept {
  auto const hung = std::exchange(hung_, false);
  auto const crashed = exit.signal && *exit.signal != SIGKILL && *exit.signal != SIGTERM;
  end_ = hung || crashed ? EngineEnd::crashed : EngineEnd::killed;
}

WorkerCounts WorkerProcess::counts() const noexcept {
  return {counts_.cached, earlier_.reads + counts_.reads, earlier_.bytes + counts_.bytes,
          earlier_.errors + counts_.errors};
}

}  // namespace mount_oci
