// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/recovery/supervisor.hpp>  // first: proves that the header stands alone

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci {
namespace supervisor_test {

using namespace std::chrono_literals;

/// What children and their parent both see.
struct Board {
  std::atomic<int> starts{0};
  std::atomic<pid_t> latest{0};
  std::atomic<std::int64_t> death{0};  // steady_clock, ns: when the latest was killed
};

class SharedBoard {
 public:
  SharedBoard()
      : memory_(::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                       -1, 0)) {
    REQUIRE(memory_ != MAP_FAILED);
    board_ = new (memory_) Board;
  }
  SharedBoard(SharedBoard const&) = delete;
  SharedBoard& operator=(SharedBoard const&) = delete;
  ~SharedBoard() { ::munmap(memory_, sizeof(Board)); }
  Board* operator->() const noexcept { return board_; }

 private:
  void* memory_;
  Board* board_ = nullptr;
};

std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

/// Forks a daemon that runs `life` with its end of the heartbeat and its number, from 1.
auto starter(SharedBoard const& board, std::function<void(Heartbeat const&, int)> life) {
  return [&board, life = std::move(life)]() -> Result<SupervisedDaemon> {
    auto pair = Heartbeat::pair();
    if (!pair) return fail(pair.error());
    auto const number = ++board->starts;
    auto const pid = ::fork();
    if (pid < 0) return fail_errno(errno, "fork");
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::signal(SIGTERM, SIG_DFL);  // the test framework's handler would report it
      pair->second.reset();
      life(pair->first, number);
      ::_exit(0);
    }
    board->latest = pid;
    return SupervisedDaemon{pid, std::move(pair->second)};
  };
}

[[noreturn]] void beat_for_ever(Heartbeat const& heartbeat) {
  heartbeat.answered();
  for (;;) {
    heartbeat.beat();
    ::usleep(10'000);
  }
}

/// What a supervisor in a thread of its own would be told by a signal.
struct Stop {
  Stop() {
    int fds[2];
    REQUIRE(::pipe(fds) == 0);
    read = UniqueFd(fds[0]);
    write = UniqueFd(fds[1]);
  }
  void ask() const { REQUIRE(write_full(write.get(), as_bytes("x")).has_value()); }
  UniqueFd read;
  UniqueFd write;
};

template <class Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

TEST_CASE("A killed daemon is noticed within 100 ms and replaced", "[recovery][supervisor]") {
  SharedBoard const board;
  Stop const stop;
  std::vector<double> gaps;
  std::atomic<int> serving{0};
  Supervisor supervisor({.start =
                             [&, start = starter(board, [](Heartbeat const& heartbeat,
                                                           int) { beat_for_ever(heartbeat); })] {
                               if (auto const death = board->death.exchange(0)) {
                                 gaps.push_back(static_cast<double>(now_ns() - death) / 1e6);
                               }
                               return start();
                             },
                         .verify = {},
                         .note =
                             [&](Decision decision, Supervision<> const&) {
                               if (decision == Decision::verify) ++serving;
                             }},
                        {.first_pause = 1ms, .most_pause = 1ms});
  auto const rounds = 15;
  std::thread killer([&] {
    for (int i = 1; i <= rounds; ++i) {
      if (!eventually([&] { return serving.load() == i; })) break;
      board->death = now_ns();
      ::kill(board->latest, SIGKILL);
    }
    eventually([&] { return serving.load() == rounds + 1; });
    stop.ask();
  });

  auto const end = supervisor.run(stop.read.get());
  killer.join();

  REQUIRE(end.has_value());
  CHECK(*end == SupervisionState::done);
  CHECK(board->starts == rounds + 1);
  REQUIRE(gaps.size() == rounds);
  std::ranges::sort(gaps);
  CHECK(gaps[gaps.size() / 2] < 100.0);                     // the machine may be busy now and then
  CHECK(::waitpid(board->latest, nullptr, WNOHANG) == -1);  // reaped
}

/// Makes pidfd_open(2) fail with EMFILE in this process.
void refuse_pidfds() {
  std::array<sock_filter, 4> code{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EMFILE),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  sock_fprog const program{code.size(), code.data()};
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

TEST_CASE("A daemon that cannot be watched is not left behind", "[recovery][supervisor][error]") {
  auto const child = ::fork();
  if (child == 0) {
    auto const start = []() -> Result<SupervisedDaemon> {
      auto const daemon = ::fork();
      if (daemon == 0) ::pause();
      refuse_pidfds();
      return SupervisedDaemon{daemon, UniqueFd()};
    };
    Supervisor supervisor({.start = start}, {.most_failures = 0});
    auto const end = supervisor.run(-1);
    auto const nobody = ::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD;
    ::_exit(end == SupervisionState::given_up && nobody ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("A daemon that hangs is killed and replaced", "[recovery][supervisor]") {
  SharedBoard const board;
  Stop const stop;
  std::vector<std::string> reasons;
  std::int64_t killed_at = 0;
  Supervisor supervisor({.start = starter(board,
                                          [](Heartbeat const& heartbeat, int number) {
                                            if (number > 1) beat_for_ever(heartbeat);
                                            heartbeat.answered();
                                            for (int i = 0; i < 10; ++i) {
                                              heartbeat.beat();
                                              ::usleep(10'000);
                                            }
                                            ::pause();  // lives, and does nothing
                                          }),
                         .verify = {},
                         .note =
                             [&](Decision decision, Supervision<> const& machine) {
                               if (decision == Decision::kill) {
                                 reasons.push_back(machine.reason());
                                 killed_at = now_ns();
                               }
                               if (decision == Decision::verify && board->starts == 2) stop.ask();
                             }},
                        {.hung_after = 500ms});
  auto const begin = now_ns();

  auto const end = supervisor.run(stop.read.get());

  CHECK(end.value() == SupervisionState::done);
  CHECK(reasons == std::vector<std::string>{"no sign of life"});
  CHECK(killed_at - begin >= 500'000'000);
  CHECK(board->starts == 2);
}

/// The reasons of two daemons' ends: the first one hangs as `hang` does, after it has said that it
/// is `busy`; patience alone would take an hour.
std::vector<std::string> reasons_of_hang(bool busy, std::function<bool()> asked,
                                         std::function<void()> const& hang) {
  SharedBoard const board;
  Stop const stop;
  std::vector<std::string> reasons;
  Supervisor supervisor({.start = starter(board,
                                          [&](Heartbeat const& heartbeat, int number) {
                                            if (number > 1) beat_for_ever(heartbeat);
                                            heartbeat.answered();
                                            ::usleep(10'000);
                                            heartbeat.beat(busy);
                                            hang();
                                          }),
                         .verify = {},
                         .asked = std::move(asked),
                         .note =
                             [&](Decision decision, Supervision<> const& machine) {
                               if (decision == Decision::kill) reasons.push_back(machine.reason());
                               if (decision == Decision::verify && board->starts == 2) stop.ask();
                             }},
                        {.hung_after = 3600s});
  CHECK(supervisor.run(stop.read.get()).value() == SupervisionState::done);
  CHECK(board->starts == 2);
  return reasons;
}

TEST_CASE("A daemon that hangs at work is found out at once", "[recovery][supervisor]") {
  SECTION("asleep") {
    auto const sleep = [] { ::pause(); };
    std::vector<std::string> const why{"hangs: its main thread is blocked"};
    CHECK(reasons_of_hang(true, {}, sleep) == why);
    CHECK(reasons_of_hang(false, [] { return true; }, sleep) == why);
  }
  SECTION("going round") {
    auto const spin = [] {
      for (std::atomic<unsigned> i{0};; ++i) {}
    };
    CHECK(reasons_of_hang(true, {}, spin) ==
          std::vector<std::string>{"hangs: its main thread is spinning"});
  }
  SECTION("stopped") {
    auto const stop = [] { ::raise(SIGSTOP); };
    CHECK(reasons_of_hang(true, {}, stop) ==
          std::vector<std::string>{"hangs: it was stopped by a signal"});
  }
}

TEST_CASE("A daemon with nothing to do may sleep", "[recovery][supervisor]") {
  SharedBoard const board;
  Stop const stop;
  std::atomic<int> looks{0};
  Supervisor supervisor({.start = starter(board,
                                          [](Heartbeat const& heartbeat, int) {
                                            heartbeat.answered();
                                            heartbeat.beat();
                                            ::pause();
                                          }),
                         .verify = {},
                         .asked = [] { return false; },
                         .note =
                             [&](Decision decision, Supervision<> const&) {
                               if (decision == Decision::examine) ++looks;
                             }},
                        {.hung_after = 3600s});
  std::thread stopper([&] {
    eventually([&] { return board->starts == 1; });
    std::this_thread::sleep_for(300ms);
    stop.ask();
  });
  CHECK(supervisor.run(stop.read.get()).value() == SupervisionState::done);
  stopper.join();
  CHECK(looks == 0);
  CHECK(board->starts == 1);
}

TEST_CASE("A stopped process hangs too", "[recovery][supervisor]") {
  SharedBoard const board;
  Stop const stop;
  Supervisor supervisor({.start = starter(board,
                                          [](Heartbeat const& heartbeat, int number) {
                                            heartbeat.answered();
                                            if (number == 1) ::raise(SIGSTOP);
                                            beat_for_ever(heartbeat);
                                          }),
                         .verify = {},
                         .note =
                             [&](Decision decision, Supervision<> const&) {
                               if (decision == Decision::verify && board->starts == 2) stop.ask();
                             }},
                        {.hung_after = 300ms});

  CHECK(supervisor.run(stop.read.get()).value() == SupervisionState::done);
  CHECK(board->starts == 2);
}

TEST_CASE("A daemon that ends on purpose is not replaced", "[recovery][supervisor]") {
  SharedBoard const board;
  auto const status = GENERATE(0, 7);
  Supervisor supervisor({.start = starter(board, [=](Heartbeat const& heartbeat, int) {
                           heartbeat.answered();
                           heartbeat.finished();
                           ::_exit(status);
                         })});

  CHECK(supervisor.run(-1).value() == SupervisionState::done);
  CHECK(board->starts == 1);
}

TEST_CASE("A daemon that cannot work is given up", "[recovery][supervisor]") {
  SharedBoard const board;
  Supervisor supervisor({.start = starter(board, [](Heartbeat const&, int) { ::_exit(1); })},
                        {.first_pause = 1ms, .most_pause = 4ms, .most_failures = 6});

  CHECK(supervisor.run(-1).value() == SupervisionState::given_up);
  CHECK(board->starts == 7);
  CHECK(supervisor.reason() == "exited with status 1");
}

TEST_CASE("A start that fails is tried again, and is not the end of all",
          "[recovery][supervisor]") {
  SharedBoard const board;
  int attempts = 0;
  Supervisor supervisor({.start = [&, start = starter(board,
                                                      [](Heartbeat const& heartbeat, int) {
                                                        heartbeat.answered();
                                                        heartbeat.finished();
                                                      })]() -> Result<SupervisedDaemon> {
                          if (++attempts < 4) return fail(Errc::unavailable, "no process");
                          return start();
                        }},
                        {.first_pause = 1ms});

  CHECK(supervisor.run(-1).value() == SupervisionState::done);
  CHECK(attempts == 4);
}

/// A verdict that comes with a byte, or with the end.
Result<UniqueFd> verdict(std::string const& bytes) {
  int fds[2];
  if (::pipe(fds) != 0) return fail_errno(errno, "pipe");
  UniqueFd const write(fds[1]);
  if (auto ok = write_full(write.get(), as_bytes(bytes)); !ok) return fail(ok.error());
  return UniqueFd(fds[0]);
}

TEST_CASE("A daemon that serves other bytes is killed and not replaced", "[recovery][supervisor]") {
  SharedBoard const board;
  Supervisor supervisor({.start = starter(board, [](Heartbeat const& h, int) { beat_for_ever(h); }),
                         .verify = [] { return verdict("0"); },
                         .note = {}});

  CHECK(supervisor.run(-1).value() == SupervisionState::given_up);
  CHECK(board->starts == 1);
  CHECK(supervisor.reason() == "other bytes are served than before");
  CHECK(::kill(board->latest, 0) == -1);
}

TEST_CASE("A comparison that fails costs its daemon, one that succeeds keeps it",
          "[recovery][supervisor]") {
  SharedBoard const board;
  Stop const stop;
  std::vector<std::string> verdicts{"", "?", "1"};
  std::size_t asked = 0;
  Supervisor supervisor({.start = starter(board, [](Heartbeat const& h, int) { beat_for_ever(h); }),
                         .verify = [&]() -> Result<UniqueFd> {
                           if (asked == verdicts.size() - 1) stop.ask();
                           return verdict(verdicts[asked++]);
                         },
                         .note = {}},
                        {.first_pause = 1ms});

  CHECK(supervisor.run(stop.read.get()).value() == SupervisionState::done);
  CHECK(asked == 3);
  CHECK(board->starts == 3);
}

TEST_CASE("A comparison that hangs with its daemon does not hold up the next",
          "[recovery][supervisor]") {
  SharedBoard const board;
  Stop const stop;
  std::vector<UniqueFd> never;  // nobody ever writes there
  Supervisor supervisor({.start = starter(board,
                                          [](Heartbeat const& heartbeat, int number) {
                                            heartbeat.answered();
                                            if (number == 1) {
                                              ::usleep(50'000);
                                              ::raise(SIGKILL);
                                            }
                                            beat_for_ever(heartbeat);
                                          }),
                         .verify = [&]() -> Result<UniqueFd> {
                           if (board->starts == 2) stop.ask();
                           int fds[2];
                           if (::pipe(fds) != 0) return fail_errno(errno, "pipe");
                           never.emplace_back(fds[1]);
                           return UniqueFd(fds[0]);
                         },
                         .note = {}});

  CHECK(supervisor.run(stop.read.get()).value() == SupervisionState::done);
  CHECK(board->starts == 2);
}

TEST_CASE("A daemon that ignores the request to stop is killed", "[recovery][supervisor]") {
  SharedBoard const board;
  Stop const stop;
  std::vector<Decision> decisions;
  Supervisor supervisor({.start = starter(board,
                                          [](Heartbeat const& heartbeat, int) {
                                            ::signal(SIGTERM, SIG_IGN);
                                            beat_for_ever(heartbeat);
                                          }),
                         .verify = {},
                         .note =
                             [&](Decision decision, Supervision<> const&) {
                               decisions.push_back(decision);
                               if (decision == Decision::verify) stop.ask();
                             }},
                        {.stop_within = 200ms});

  CHECK(supervisor.run(stop.read.get()).value() == SupervisionState::done);
  CHECK(decisions == std::vector<Decision>{Decision::start, Decision::verify, Decision::terminate,
                                           Decision::kill, Decision::done});
}

TEST_CASE("A daemon that serves already is supervised as any other", "[recovery][supervisor]") {
  SharedBoard const board;
  Stop const stop;
  auto const start = starter(board, [](Heartbeat const& h, int) { beat_for_ever(h); });
  auto first = start();
  REQUIRE(first.has_value());
  auto const pid = first->pid;
  Supervisor supervisor(
      {.start = start, .verify = {}, .note = [&](Decision decision, Supervision<> const&) {
         if (decision == Decision::verify) stop.ask();
       }});
  ::kill(pid, SIGKILL);

  CHECK(supervisor.run(stop.read.get(), std::move(*first)).value() == SupervisionState::done);
  CHECK(board->starts == 2);
}

TEST_CASE("A daemon goes on whose supervisor does not listen or is gone",
          "[recovery][supervisor][heartbeat]") {
  auto pair = Heartbeat::pair().value();
  for (int i = 0; i < 1'000'000; ++i) pair.first.beat();  // more than the socket holds

  std::array<char, 256> buffer;
  CHECK(receive_signs(pair.second, buffer)->size() == 256);
  pair.second.reset();
  pair.first.beat();  // no SIGPIPE
  SUCCEED();
}

TEST_CASE("Signs come in order, and their end differs from none yet",
          "[recovery][supervisor][heartbeat]") {
  auto pair = Heartbeat::pair().value();
  std::array<char, 256> buffer;
  CHECK(receive_signs(pair.second, buffer) == std::string_view(""));
  pair.first.answered();
  pair.first.beat();
  pair.first.finished();
  CHECK(receive_signs(pair.second, buffer) == std::string_view("abf"));
  { auto const gone = std::move(pair.first); }
  CHECK_FALSE(receive_signs(pair.second, buffer).has_value());
}

}  // namespace supervisor_test
}  // namespace erofs_oci
