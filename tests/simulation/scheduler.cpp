// SPDX-License-Identifier: Apache-2.0
#include "scheduler.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

namespace simulation {
namespace {

using Nanoseconds = std::int64_t;
constexpr Nanoseconds second = 1'000'000'000;
constexpr Nanoseconds never = std::numeric_limits<Nanoseconds>::max();
constexpr Nanoseconds steady_start = 1'000'000 * second;
constexpr Nanoseconds system_offset = 1'700'000'000 * second - steady_start;
constexpr Nanoseconds longest_run = 3'600 * second;
constexpr std::uint64_t most_switches = 5'000'000;

/// A simulated thread. Only the one that runs touches any of them.
struct Task {
  enum class State { runnable, blocked, ended };

  int id = 0;
  int group = 0;
  int children_group = 0;  // of the threads that it starts
  sem_t turn{};
  State state = State::runnable;
  void const* key = nullptr;  // what it waits for
  Nanoseconds until = never;
  pollfd* fds = nullptr;
  nfds_t fd_count = 0;
  bool timed_out = false;
  bool joined = false;
  void* (*run)(void*) = nullptr;
  void* argument = nullptr;
  pthread_t handle{};
};

thread_local Task* self = nullptr;
Scheduler::State* running = nullptr;
Scheduler* running_scheduler = nullptr;

/// libc's own function behind one that is defined here.
template <class F>
F* next(F*& known, char const* name) noexcept {
  if (known == nullptr) known = reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name));
  return known;
}

#define SIMULATION_REAL(name)                \
  decltype(::name)* known_##name = nullptr;  \
  decltype(::name)* real_##name() noexcept { \
    return next(known_##name, #name);        \
  }
SIMULATION_REAL(pthread_mutex_lock)
SIMULATION_REAL(pthread_mutex_unlock)
SIMULATION_REAL(pthread_cond_wait)
SIMULATION_REAL(pthread_cond_timedwait)
SIMULATION_REAL(pthread_cond_clockwait)
SIMULATION_REAL(pthread_cond_signal)
SIMULATION_REAL(pthread_cond_broadcast)
SIMULATION_REAL(pthread_create)
SIMULATION_REAL(pthread_join)
SIMULATION_REAL(pthread_once)
SIMULATION_REAL(clock_gettime)
SIMULATION_REAL(nanosleep)
SIMULATION_REAL(poll)
SIMULATION_REAL(write)
SIMULATION_REAL(fsync)
SIMULATION_REAL(mkdir)
SIMULATION_REAL(rename)
#undef SIMULATION_REAL

Nanoseconds to_nanoseconds(timespec const& t) {
  return Nanoseconds{t.tv_sec} * second + t.tv_nsec;
}

}  // namespace

struct Scheduler::State {
  Random random{0};
  std::function<void(std::string const&)> print;
  std::vector<std::unique_ptr<Task>> tasks;
  std::set<int> dead;
  std::set<void const*> once_running;
  bool thawed = false;
  Nanoseconds now = steady_start;
  std::uint64_t hash = 0xCBF29CE484222325U;
  std::uint64_t switches = 0;
  std::uint64_t preempt_one_in = 64;
  std::size_t waiting_for_locks = 0;

  void mix(std::uint64_t x) noexcept {
    hash = (hash ^ x) * 0x100000001B3U;
    hash ^= hash >> 29;
  }

  [[nodiscard]] bool may_run(Task const& task) const {
    return thawed || dead.empty() || !dead.contains(task.group);
  }

  [[noreturn]] void stuck(std::string const& why) const {
    if (running_scheduler->on_stuck) running_scheduler->on_stuck(why);
    std::abort();
  }

  void wake_polls() {
    for (auto& task : tasks) {
      if (task->state == Task::State::blocked && task->fds != nullptr && may_run(*task) &&
          real_poll()(task->fds, task->fd_count, 0) != 0) {
        task->state = Task::State::runnable;
      }
    }
  }

  // The time of the next deadline; those that have it run.
  void advance() {
    auto earliest = never;
    for (auto const& task : tasks) {
      if (task->state == Task::State::blocked && may_run(*task)) {
        earliest = std::min(earliest, task->until);
      }
    }
    if (earliest == never) stuck("no thread can run: a deadlock, or a wake-up that was lost");
    now = std::max(now, earliest);
    if (now - steady_start > longest_run) stuck("an hour has passed without an end");
    for (auto& task : tasks) {
      if (task->state == Task::State::blocked && task->until <= now && may_run(*task)) {
        task->timed_out = true;
        task->state = Task::State::runnable;
      }
    }
  }

  Task* pick() {
    if (random.one_in(8)) wake_polls();
    for (;;) {
      std::size_t count = 0;
      for (auto const& task : tasks) {
        count += task->state == Task::State::runnable && may_run(*task) ? 1U : 0U;
      }
      if (count != 0) {
        auto chosen = random.below(count);
        for (auto const& task : tasks) {
          if (task->state != Task::State::runnable || !may_run(*task)) continue;
          if (chosen-- == 0) return task.get();
        }
      }
      wake_polls();
      auto const any = std::ranges::any_of(tasks, [this](auto const& task) {
        return task->state == Task::State::runnable && may_run(*task);
      });
      if (!any) advance();
    }
  }

  // Another thread may run; returns when it is this one's turn again.
  void pass(Task* me) {
    auto* const chosen = pick();
    if (chosen == me) return;
    mix(static_cast<std::uint64_t>(chosen->id));
    mix(static_cast<std::uint64_t>(now));
    if (++switches > most_switches) stuck("no end after 5,000,000 switches");
    ::sem_post(&chosen->turn);
    while (::sem_wait(&me->turn) != 0) {}
  }

  void yield() {
    if (random.one_in(preempt_one_in) || !may_run(*self)) pass(self);
  }

  // Waits until wake() is called with the key, or time has passed; whether the latter.
  bool block(void const* key, Nanoseconds until) {
    self->state = Task::State::blocked;
    self->key = key;
    self->until = until;
    self->timed_out = false;
    pass(self);
    self->key = nullptr;
    self->until = never;
    return self->timed_out;
  }

  void wake_all(void const* key) {
    for (auto& task : tasks) {
      if (task->state == Task::State::blocked && task->key == key) {
        task->state = Task::State::runnable;
      }
    }
  }

  void wake_one(void const* key) {
    std::vector<Task*> waiting;
    for (auto& task : tasks) {
      if (task->state == Task::State::blocked && task->key == key) waiting.push_back(task.get());
    }
    if (!waiting.empty()) waiting[random.below(waiting.size())]->state = Task::State::runnable;
  }

  void lock(pthread_mutex_t* mutex) {
    while (::pthread_mutex_trylock(mutex) == EBUSY) {
      ++waiting_for_locks;
      block(mutex, never);
      --waiting_for_locks;
    }
  }

  int unlock(pthread_mutex_t* mutex) {
    auto const code = real_pthread_mutex_unlock()(mutex);
    if (waiting_for_locks != 0) wake_all(mutex);
    return code;
  }

  int wait(pthread_cond_t* condition, pthread_mutex_t* mutex, Nanoseconds until) {
    unlock(mutex);
    bool timed_out = false;
    if (random.one_in(64)) {
      pass(self);  // a spurious wake-up
    } else {
      timed_out = block(condition, until);
    }
    lock(mutex);
    return timed_out ? ETIMEDOUT : 0;
  }

  static void* run_task(void* argument) {
    auto* const task = static_cast<Task*>(argument);
    self = task;
    while (::sem_wait(&task->turn) != 0) {}
    auto* const result = task->run(task->argument);
    self = nullptr;
    running->end(task);
    return result;
  }

  void end(Task* task) {
    task->state = Task::State::ended;
    wake_all(task);
    auto* const chosen = pick();
    mix(static_cast<std::uint64_t>(chosen->id));
    ::sem_post(&chosen->turn);
  }

  Task* add(int group) {
    tasks.push_back(std::make_unique<Task>());
    auto* const task = tasks.back().get();
    task->id = static_cast<int>(tasks.size()) - 1;
    task->group = task->children_group = group;
    ::sem_init(&task->turn, 0, 0);
    return task;
  }

  // The fault for a step, after a crash that comes before it.
  DiskFault disk(DiskStep step) {
    if (thawed && dead.contains(self->group)) return DiskFault::broken;
    if (!running_scheduler->on_disk) return DiskFault::none;
    auto const fault = running_scheduler->on_disk(step);
    if (fault != DiskFault::crash_before) return fault;
    running_scheduler->kill(self->group);
    return DiskFault::broken;
  }

  // What a system call on a file yields: `act()`, or an error.
  template <class Act>
  auto on_file(DiskStep step, Act const& act) -> decltype(act(false)) {
    auto const fault = disk(step);
    if (fault == DiskFault::no_space || fault == DiskFault::broken) {
      errno = fault == DiskFault::no_space ? ENOSPC : EIO;
      return -1;
    }
    auto const result = act(fault == DiskFault::short_write);
    if (fault == DiskFault::crash_after) running_scheduler->kill(self->group);
    return result;
  }
};

Scheduler::Scheduler(std::uint64_t seed, std::function<void(std::string const&)> print)
    : state_(std::make_unique<State>()) {
  state_->random = Random(seed);
  state_->preempt_one_in = std::uint64_t{4} << state_->random.below(6);
  state_->print = std::move(print);
  running = state_.get();
  running_scheduler = this;
  self = state_->add(0);
}

Scheduler::~Scheduler() {
  self = nullptr;
  for (auto& task : state_->tasks) ::sem_destroy(&task->turn);
  running = nullptr;
  running_scheduler = nullptr;
}

Scheduler* Scheduler::now_running() noexcept {
  return self == nullptr ? nullptr : running_scheduler;
}
int Scheduler::thread() noexcept {
  return self == nullptr ? -1 : self->id;
}
int Scheduler::group() noexcept {
  return self == nullptr ? -1 : self->group;
}
void Scheduler::start_in_group(int group) noexcept {
  self->children_group = group;
}

void Scheduler::kill(int group) {
  state_->dead.insert(group);
  if (!state_->may_run(*self)) state_->pass(self);
}

void Scheduler::thaw() {
  state_->thawed = true;
}
bool Scheduler::is_dead(int group) const {
  return state_->dead.contains(group);
}
std::uint64_t Scheduler::trace() const noexcept {
  return state_->hash;
}
std::uint64_t Scheduler::switches() const noexcept {
  return state_->switches;
}

void Scheduler::note(std::string_view what) {
  auto& s = *state_;
  s.mix(static_cast<std::uint64_t>(s.now));
  for (auto const c : what) s.mix(static_cast<unsigned char>(c));
  if (!s.print) return;
  char head[64];
  std::snprintf(head, sizeof head, "%10.3f  %2d.%-3d ",
                static_cast<double>(s.now - steady_start) / static_cast<double>(second), group(),
                thread());
  s.print(head + std::string(what));
}

}  // namespace simulation

// -------------------------------------------------------------------- in place of libc's functions

using simulation::DiskStep;
using simulation::running;
using simulation::self;

extern "C" {

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  if (self == nullptr) return simulation::real_pthread_mutex_lock()(mutex);
  running->yield();
  running->lock(mutex);
  return 0;
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
  if (self == nullptr) return simulation::real_pthread_mutex_unlock()(mutex);
  return running->unlock(mutex);
}

int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  if (self == nullptr) return simulation::real_pthread_cond_wait()(condition, mutex);
  return running->wait(condition, mutex, simulation::never);
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           timespec const* until) {
  if (self == nullptr) {
    return simulation::real_pthread_cond_clockwait()(condition, mutex, clock, until);
  }
  auto const offset = clock == CLOCK_REALTIME ? simulation::system_offset : 0;
  return running->wait(condition, mutex, simulation::to_nanoseconds(*until) - offset);
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           timespec const* until) {
  if (self == nullptr) return simulation::real_pthread_cond_timedwait()(condition, mutex, until);
  return ::pthread_cond_clockwait(condition, mutex, CLOCK_REALTIME, until);
}

int pthread_cond_signal(pthread_cond_t* condition) noexcept {
  if (self == nullptr) return simulation::real_pthread_cond_signal()(condition);
  running->wake_one(condition);
  return 0;
}

int pthread_cond_broadcast(pthread_cond_t* condition) noexcept {
  if (self == nullptr) return simulation::real_pthread_cond_broadcast()(condition);
  running->wake_all(condition);
  return 0;
}

int pthread_create(pthread_t* thread, pthread_attr_t const* attributes, void* (*run)(void*),
                   void* argument) noexcept {
  if (self == nullptr) {
    return simulation::real_pthread_create()(thread, attributes, run, argument);
  }
  auto* const task = running->add(self->children_group);
  task->run = run;
  task->argument = argument;
  auto const code = simulation::real_pthread_create()(&task->handle, attributes,
                                                      simulation::Scheduler::State::run_task, task);
  if (code != 0) running->stuck("pthread_create");
  *thread = task->handle;
  running->yield();
  return code;
}

int pthread_join(pthread_t thread, void** result) {
  if (self != nullptr) {
    for (auto& task : running->tasks) {
      if (task->joined || task.get() == self || ::pthread_equal(task->handle, thread) == 0)
        continue;
      auto* const one = task.get();
      while (one->state != simulation::Task::State::ended) running->block(one, simulation::never);
      one->joined = true;
      break;
    }
  }
  return simulation::real_pthread_join()(thread, result);
}

int pthread_once(pthread_once_t* control, void (*run)()) {
  if (self == nullptr) return simulation::real_pthread_once()(control, run);
  while (running->once_running.contains(control)) running->block(control, simulation::never);
  running->once_running.insert(control);
  struct Guard {
    pthread_once_t* control;
    ~Guard() {
      running->once_running.erase(control);
      running->wake_all(control);
    }
  } const guard{control};
  return simulation::real_pthread_once()(control, run);
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  if (self == nullptr || (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME)) {
    return simulation::real_clock_gettime()(clock, time);
  }
  auto const now = running->now + (clock == CLOCK_REALTIME ? simulation::system_offset : 0);
  time->tv_sec = now / simulation::second;
  time->tv_nsec = now % simulation::second;
  return 0;
}

int nanosleep(timespec const* pause, timespec* rest) {
  if (self == nullptr) return simulation::real_nanosleep()(pause, rest);
  running->block(nullptr, running->now + simulation::to_nanoseconds(*pause));
  return 0;
}

int poll(pollfd* fds, nfds_t count, int timeout) {
  if (self == nullptr) return simulation::real_poll()(fds, count, timeout);
  running->yield();
  auto ready = simulation::real_poll()(fds, count, 0);
  if (ready != 0 || timeout == 0) return ready;
  self->fds = fds;
  self->fd_count = count;
  auto const until = timeout < 0 ? simulation::never
                                 : running->now + std::int64_t{timeout} * simulation::second / 1000;
  running->block(nullptr, until);
  self->fds = nullptr;
  return simulation::real_poll()(fds, count, 0);
}

ssize_t write(int fd, void const* bytes, size_t count) {
  struct stat status{};
  auto const is_file = self != nullptr && ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  if (!is_file) return simulation::real_write()(fd, bytes, count);
  return running->on_file(DiskStep::write, [&](bool is_short) {
    return simulation::real_write()(fd, bytes, is_short ? (count + 1) / 2 : count);
  });
}

int fsync(int fd) {
  if (self == nullptr) return simulation::real_fsync()(fd);
  return running->on_file(DiskStep::sync, [&](bool) { return 0; });
}

int mkdir(char const* path, mode_t mode) noexcept {
  if (self == nullptr) return simulation::real_mkdir()(path, mode);
  return running->on_file(DiskStep::make_directory,
                          [&](bool) { return simulation::real_mkdir()(path, mode); });
}

int rename(char const* from, char const* to) noexcept {
  if (self == nullptr) return simulation::real_rename()(from, to);
  return running->on_file(DiskStep::rename,
                          [&](bool) { return simulation::real_rename()(from, to); });
}

}  // extern "C"

/// What jitter is taken from.
std::random_device::result_type std::random_device::_M_getval() {
  if (self == nullptr) return 0;
  return static_cast<result_type>(running->random.next());
}
