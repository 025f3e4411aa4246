// SPDX-License-Identifier: Apache-2.0
// mount-oci: wires the command line to the commands and their results to an exit status.
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string_view>
#include <system_error>

#include "commands.hpp"
#include "config_file.hpp"
#include "environment.hpp"
#include "manual.hpp"
#include "reading.hpp"

#ifndef MOUNT_OCI_VERSION
#define MOUNT_OCI_VERSION "unknown"
#endif

namespace mount_oci {
namespace {

constexpr int usage_status = 1;
constexpr int system_status = 2;
constexpr int mount_status = 32;
constexpr int broken_pipe_status = 128 + SIGPIPE;

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

Result<int> run(Options const& options, Log& log) {
  auto const status = [](Result<void> const& done) { return done.map([] { return 0; }); };
  switch (options.command) {
    case Command::mount: return status(run_mount(options, log));
    case Command::umount:
      if (options.umount.target.empty()) return status(run_umount_all(options, log));
      return status(run_umount(options.umount, log));
    case Command::disconnect: return status(run_umount(options.umount, log));
    case Command::reattach: return status(run_reattach(options, log));
    case Command::status: return status(run_status(options, log));
    case Command::gc: return status(run_gc(options, log));
    case Command::serve: return status(run_serve(options, log));
    case Command::cache: return run_cache(options, log);
    case Command::help:
      print(options.page.empty() ? manual(options.topic) : manual_named(options.page));
      return 0;
    case Command::version: print("mount-oci (erofs_oci) " MOUNT_OCI_VERSION "\n"); return 0;
    default: return run_reading(options, log);
  }
}

/// The status of a failure of a command that makes, keeps or ends mounts, else of another one's.
int failed_status(Command command) {
  switch (command) {
    case Command::mount:
    case Command::umount:
    case Command::disconnect:
    case Command::reattach: return mount_status;
    default: return system_status;
  }
}

int run_and_report(Options const& options) {
  auto const opened = Log::open(options.verbosity, options.log);
  if (!opened) {
    std::fprintf(stderr, "mount-oci: --log-file: %s\n", opened.error().message().c_str());
    return system_status;
  }
  auto& log = **opened;
  auto const done = run(options, log);
  if (done) return *done;
  // The reader of the pipe has ended: exit as SIGPIPE, which is ignored, would.
  auto const& error = done.error();
  if (error.code == std::errc::broken_pipe && error.context.starts_with("standard output")) {
    return broken_pipe_status;
  }
  log.say(Level::error, error.message());
  if (options.command == Command::diff) return system_status;  // 1 says that images differ
  return exit_status(error, failed_status(options.command));
}

int main_of(int argc, char** argv) {
  clean_environment();
  auto const options = parse_options(std::vector<std::string>(argv, argv + argc), read_config);
  scrub_secrets(argc, argv);
  if (!options) {
    auto const& [text, command] = options.error();
    std::fprintf(stderr, "mount-oci: %s\nTry 'mount-oci %.*s%s--help' for more information.\n",
                 text.c_str(), static_cast<int>(command.size()), command.data(),
                 command.empty() ? "" : " ");
    return command == "diff" ? system_status : usage_status;
  }
  auto const& other = options->other;
  if (!options->image.password.empty() || (other && !other->password.empty())) hide_memory();
  return run_and_report(*options);
}

}  // namespace
}  // namespace mount_oci

int main(int argc, char** argv) {
  try {
    return mount_oci::main_of(argc, argv);
  } catch (std::bad_alloc const&) {
    std::fputs("mount-oci: out of memory\n", stderr);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "mount-oci: %s\n", error.what());
  }
  return 2;
}
