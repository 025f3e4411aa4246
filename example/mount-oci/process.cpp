// SPDX-License-Identifier: Apache-2.0
#include "process.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <unistd.h>

#include <erofs_oci/oci/json.hpp>

#include "options.hpp"

namespace mount_oci {

using erofs_oci::fail;
using erofs_oci::fail_errno;

namespace {

std::string_view name_of(Level level) noexcept {
  switch (level) {
    case Level::error: return "error";
    case Level::notice: return "notice";
    case Level::warning: return "warning";
    case Level::info: return "info";
    default: return "debug";
  }
}

/// The time of day in UTC, to the millisecond. @spec{RFC 3339}
std::string timestamp() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  ::gmtime_r(&now.tv_sec, &parts);
  std::array<char, 40> text{};
  auto const n = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  auto const milliseconds = std::to_string(1000 + now.tv_nsec / 1'000'000).substr(1);
  return std::string(text.data(), n) + "." + milliseconds + "Z";
}

std::string json_line(Level level, std::string_view text) {
  erofs_oci::json::Value line;
  line["time"] = timestamp();
  line["level"] = name_of(level);
  line["pid"] = ::getpid();
  line["message"] = text;
  // A message may hold a path, which may be no UTF-8.
  return line.dump(-1, ' ', false, erofs_oci::json::Value::error_handler_t::replace);
}

std::string text_line(Level level, std::string_view text) {
  return std::string("mount-oci: ") + (level == Level::warning ? "warning: " : "") +
         std::string(text);
}

void to_syslog(Level level, std::string const& line) {
  constexpr std::array priorities{LOG_ERR, LOG_NOTICE, LOG_WARNING, LOG_INFO};
  auto const at = std::min<std::size_t>(static_cast<std::size_t>(level), priorities.size());
  ::syslog(at < priorities.size() ? priorities[at] : LOG_DEBUG, "%s", line.c_str());
}

}  // namespace

Result<std::unique_ptr<Log>> Log::open(int verbosity, LogOptions const& options) {
  auto log = std::make_unique<Log>(verbosity);
  log->json_ = options.json;
  if (options.file.empty()) return log;
  log->file_ = UniqueFd(
      ::open(options.file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600));
  if (!log->file_) return fail_errno(errno, options.file);
  return log;
}

void Log::say(Level level, std::string_view text) const noexcept {
  if (static_cast<int>(level) > verbosity_) return;
  try {
    if (detached_ && !file_) {
      return to_syslog(level, json_ ? json_line(level, text) : std::string(text));
    }
    auto line = json_   ? json_line(level, text)
                : file_ ? timestamp() + " " + text_line(level, text)
                        : text_line(level, text);
    line += '\n';
    // One write, so that lines of several processes do not mix.
    [[maybe_unused]] auto const n =
        ::write(file_ ? file_.get() : STDERR_FILENO, line.data(), line.size());
  } catch (std::exception const&) {
    // Memory is short: nothing more can be said.
  }
}

void Log::detach() noexcept {
  ::openlog("mount-oci", LOG_PID, LOG_DAEMON);
  detached_ = true;
}

void Signals::give_back(int number) noexcept {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

Result<Signals> Signals::take(std::initializer_list<int> numbers) {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  for (auto const number : numbers) sigaddset(&set, number);
  if (auto const number = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); number != 0) {
    return fail_errno(number, "signals");
  }
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!fd) return fail_errno(errno, "signals");
  return Signals(std::move(fd));
}

int Signals::wait() const noexcept {
  signalfd_siginfo info{};
  for (;;) {
    auto const n = ::read(fd_.get(), &info, sizeof info);
    if (n == sizeof info) return static_cast<int>(info.ssi_signo);
    if (n < 0 && errno != EINTR) return SIGTERM;
  }
}

bool Signals::wait_or(int other) const noexcept {
  std::array<pollfd, 2> fds{{{fd_.get(), POLLIN, 0}, {other, POLLIN, 0}}};
  while (::poll(fds.data(), fds.size(), -1) < 0) {
    if (errno != EINTR) return true;
  }
  if (fds[0].revents == 0) return false;
  return wait() != 0;
}

Result<ExitOnSignal> ExitOnSignal::make(Signals const& signals, int peer) {
  auto over = erofs_oci::nbd::Wakeup::open();
  if (!over) return fail(std::move(over).error());
  ExitOnSignal guard(std::make_unique<State>(*std::move(over)));
  guard.thread_ =
      std::jthread([state = guard.state_.get(), &signals, peer] { watch(*state, signals, peer); });
  return guard;
}

void ExitOnSignal::watch(State& state, Signals const& signals, int peer) {
  constexpr int patience = 3000;  // milliseconds
  for (;;) {
    std::array<pollfd, 3> fds{
        {{state.over.fd(), POLLIN, 0}, {signals.fd(), POLLIN, 0}, {peer, 0, 0}}};
    auto const stopping = state.stop.stop_requested();
    auto const n = ::poll(fds.data(), fds.size(), stopping ? patience : -1);
    if (n < 0 && errno == EINTR) continue;
    if (fds[0].revents != 0) return;
    auto const number = fds[1].revents != 0 ? signals.wait() : SIGTERM;
    if (stopping || !state.pauses) std::_Exit(128 + number);
    state.stop.request_stop();
    peer = -1;  // it is not heard of twice
  }
}

ExitOnSignal::~ExitOnSignal() {
  if (state_) state_->over.notify();
  if (thread_.joinable()) thread_.join();  // before the eventfd is closed
}

Result<Address> Address::parse(std::string_view text) {
  auto const bad = [&] {
    return fail(Errc::invalid_argument, std::string(text) + ": not HOST:PORT");
  };
  auto const colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad();
  Address address;
  auto const digits = text.substr(colon + 1);
  auto const* end = digits.data() + digits.size();
  if (digits.empty() || std::from_chars(digits.data(), end, address.port).ptr != end) return bad();
  auto host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad();
  }
  address.host = host.empty() ? "127.0.0.1" : std::string(host);
  return address;
}

std::string Address::text() const {
  auto const quoted = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return quoted + ":" + std::to_string(port);
}

void hide_memory() noexcept {
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

int exit_status(Error const& error, int otherwise) noexcept {
  return error.code == Errc::invalid_argument ? 1 : otherwise;
}

}  // namespace mount_oci
