// SPDX-License-Identifier: Apache-2.0
#include "process.hpp"

#include <algorithm>
#include <array>
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

using erofs_oci::fail_errno;

namespace {

/// What a table has for a level: one entry each up to `info`, and one for those above.
auto of_level(auto const& table, Level level) {
  return table[std::min(static_cast<std::size_t>(level), table.size() - 1)];
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
  constexpr std::array names{"error", "notice", "warning", "info", "debug"};
  erofs_oci::json::Value line;
  line["time"] = timestamp();
  line["level"] = of_level(names, level);
  line["pid"] = ::getpid();
  line["message"] = text;
  // A message may hold a path, which may be no UTF-8.
  return line.dump(-1, ' ', false, erofs_oci::json::Value::error_handler_t::replace);
}

std::string text_line(Level level, std::string_view text) {
  return std::string("mount-oci: ") + (level == Level::warning ? "warning: " : "") + escaped(text);
}

void to_syslog(Level level, std::string const& line) {
  constexpr std::array priorities{LOG_ERR, LOG_NOTICE, LOG_WARNING, LOG_INFO, LOG_DEBUG};
  ::syslog(of_level(priorities, level), "%s", line.c_str());
}

}  // namespace

std::string escaped(std::string_view text, std::string_view more) {
  std::string out;
  for (auto const c : text) {
    auto const byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f && more.find(c) == std::string_view::npos) {
      out += c;
      continue;
    }
    out += '\\';
    for (auto const shift : {6, 3, 0}) out += static_cast<char>('0' + (byte >> shift & 7));
  }
  return out;
}

Result<std::unique_ptr<Log>> Log::open(int verbosity, LogOptions const& options) {
  auto log = std::make_unique<Log>(verbosity);
  log->json_ = options.json;
  if (options.file.empty()) return log;
  log->file_ =
      UniqueFd(::open(options.file.c_str(),
                      O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600));
  if (!log->file_) return fail_errno(errno, options.file);
  return log;
}

void Log::say(Level level, std::string_view text) const noexcept {
  if (static_cast<int>(level) > verbosity_) return;
  try {
    if (detached_ && !file_) {
      return to_syslog(level, json_ ? json_line(level, text) : escaped(text));
    }
    auto line = json_   ? json_line(level, text)
                : file_ ? timestamp() + " " + text_line(level, text)
                        : text_line(level, text);
    line += '\n';
    // One write, so that lines of several processes do not mix.
    [[maybe_unused]] auto const n =
        ::write(file_ ? file_.get() : STDERR_FILENO, line.data(), line.size());
  } catch (std::exception const&) {
    // Allocating failed: the message is lost.
  }
}

void Log::detach() noexcept {
  ::openlog("mount-oci", LOG_PID, LOG_DAEMON);
  detached_ = true;
}

Result<ExitOnSignal> ExitOnSignal::make(Signals const& signals, int peer) {
  EROFS_OCI_TRY_ASSIGN(auto over, erofs_oci::nbd::Wakeup::open());
  ExitOnSignal guard(std::make_unique<State>(std::move(over)));
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
    peer = -1;  // poll it only once
  }
}

ExitOnSignal::~ExitOnSignal() {
  if (state_) state_->over.notify();
}

void hide_memory() noexcept {
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

int exit_status(Error const& error, int otherwise) noexcept {
  return error.code == Errc::invalid_argument ? 1 : otherwise;
}

}  // namespace mount_oci
