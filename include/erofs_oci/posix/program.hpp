// SPDX-License-Identifier: Apache-2.0
/// @file
/// ChildProgram, ReportingProgram, run_program(): other programs, started without a shell.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>

namespace erofs_oci {

/// What a program inherits besides standard input, output and error.
struct ProgramOptions {
  /// One of our descriptors, under a number of the program's.
  struct Descriptor {
    int ours = -1;
    int theirs = -1;
  };
  std::vector<Descriptor> descriptors{};
  std::vector<std::string> variables{};  ///< "NAME=VALUE", set beside our environment
};

/// A running program. It is killed and reaped with this object unless it has ended before.
class ChildProgram {
 public:
  /// Starts a program that PATH finds.
  /// @param words  the program's name and its arguments; not empty
  /// @error{an errno, as posix_spawnp(3)}
  [[nodiscard]] static Result<ChildProgram> start(std::vector<std::string> words,
                                                  ProgramOptions const& options = {}) {
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    auto variables = options.variables;
    auto environment = with_variables(variables);
    posix_spawn_file_actions_t actions;
    if (auto const error = ::posix_spawn_file_actions_init(&actions)) {
      return fail_errno(error, words.front());
    }
    int error = 0;
    for (auto const& [ours, theirs] : options.descriptors) {
      if (error == 0) error = ::posix_spawn_file_actions_adddup2(&actions, ours, theirs);
    }
    pid_t pid = -1;
    if (error == 0) {
      error = ::posix_spawnp(&pid, words.front().c_str(), &actions, nullptr, arguments.data(),
                             environment.data());
    }
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return fail_errno(error, words.front());
    return ChildProgram(pid);
  }

  ChildProgram(ChildProgram&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

  ~ChildProgram() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    static_cast<void>(reap(0));
  }

  /// Waits for its end. Yields its exit status, or 128 and the number of the signal that ended it.
  /// Called once.
  /// @error{std::errc::no_child_process, other code waits for all children}
  [[nodiscard]] Result<int> wait() {
    EROFS_OCI_TRY_ASSIGN(auto const status, reap(0));
    return *status;
  }

  /// wait() without blocking; empty while the program runs.
  /// @error{as wait(), as there}
  [[nodiscard]] Result<std::optional<int>> poll() { return reap(WNOHANG); }

 private:
  explicit ChildProgram(pid_t pid) noexcept : pid_(pid) {}

  /// Our environment with some variables more; they are borrowed.
  [[nodiscard]] static std::vector<char*> with_variables(std::vector<std::string>& variables) {
    std::vector<char*> list;
    for (auto** one = ::environ; one != nullptr && *one != nullptr; ++one) {
      auto const is_replaced = [&](std::string_view variable) {
        return std::string_view(*one).starts_with(variable.substr(0, variable.find('=') + 1));
      };
      if (std::ranges::none_of(variables, is_replaced)) list.push_back(*one);
    }
    for (auto& variable : variables) list.push_back(variable.data());
    list.push_back(nullptr);
    return list;
  }

  [[nodiscard]] Result<std::optional<int>> reap(int flags) {
    int status = 0;
    auto done = ::waitpid(pid_, &status, flags);
    while (done < 0 && errno == EINTR) done = ::waitpid(pid_, &status, flags);
    if (done == 0) return std::optional<int>();
    auto const number = errno;
    pid_ = -1;
    if (done < 0) return fail_errno(number, "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  pid_t pid_ = -1;
};

/// A running program whose standard error becomes the text of its error.
class ReportingProgram {
 public:
  /// As ChildProgram::start().
  /// @error{an errno, as pipe(2) and ChildProgram::start()}
  [[nodiscard]] static Result<ReportingProgram> start(std::vector<std::string> words,
                                                      ProgramOptions options = {}) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
    UniqueFd ours(ends[0]);
    UniqueFd const theirs(ends[1]);
    options.descriptors.insert(options.descriptors.begin(), {theirs.get(), STDERR_FILENO});
    EROFS_OCI_TRY_ASSIGN(auto child, ChildProgram::start(std::move(words), options));
    return ReportingProgram(std::move(child), std::move(ours));
  }

  /// Waits for its end. Called once.
  /// @param what  what the program does; put in front of its own text
  /// @error{std::errc::io_error, it ended with a status that is not 0; the text is what it said}
  /// @error{an errno, as ChildProgram::wait()}
  [[nodiscard]] Result<void> wait(std::string const& what) {
    Bytes said(4096);
    auto const n = read_full(errors_.get(), said);
    auto text = std::string(as_text(std::span(said).first(n.value_or(0))));
    while (text.ends_with('\n')) text.pop_back();
    EROFS_OCI_TRY_ASSIGN(auto const status, child_.wait(), what);
    if (status == 0) return {};
    return fail(make_error_code(std::errc::io_error), text.empty() ? what : what + ": " + text);
  }

 private:
  ReportingProgram(ChildProgram child, UniqueFd errors) noexcept
      : child_(std::move(child)), errors_(std::move(errors)) {}

  ChildProgram child_;
  UniqueFd errors_;
};

/// Runs a program to its end.
/// @param words  the program's name, which PATH finds, and its arguments; not empty
/// @error{std::errc::io_error, it ended with a status that is not 0}
/// @error{an errno, as ChildProgram::start() and ChildProgram::wait()}
[[nodiscard]] inline Result<void> run_program(std::vector<std::string> words) {
  auto const name = words.front();
  EROFS_OCI_TRY_ASSIGN(auto child, ChildProgram::start(std::move(words)));
  EROFS_OCI_TRY_ASSIGN(auto const status, child.wait(), name);
  if (status != 0) return fail(make_error_code(std::errc::io_error), name + " has failed");
  return {};
}

}  // namespace erofs_oci
