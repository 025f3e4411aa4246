// SPDX-License-Identifier: Apache-2.0
// mount-oci: wires the command line to the commands and their results to an exit status.
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string_view>
#include <system_error>

#include "commands.hpp"
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

Result<void> run_service(Options const& options, Log& log) {
  switch (options.command) {
    case Command::mount: return run_mount(options, log);
    case Command::umount:
      if (options.umount.target.empty()) return run_umount_all(options, log);
      return run_umount(options.umount, log);
    case Command::disconnect: return run_umount(options.umount, log);
    case Command::reattach: return run_reattach(options, log);
    case Command::status: return run_status(options, log);
    case Command::gc: return run_gc(options, log);
    case Command::serve: return run_serve(options, log);
    case Command::registry: return run_registry(options.registry, log);
    case Command::help: print(manual(options.topic)); return {};
    case Command::version: print("mount-oci (erofs_oci) " MOUNT_OCI_VERSION "\n"); return {};
    default: return {};
  }
}

/// Whether the command reads an image and ends.
bool reads(Command command) {
  switch (command) {
    case Command::index:
    case Command::ls:
    case Command::cat:
    case Command::stat:
    case Command::find:
    case Command::extract:
    case Command::fsck:
    case Command::image: return true;
    default: return false;
  }
}

/// Whether the command makes, keeps or ends mounts.
bool mounts(Command command) {
  switch (command) {
    case Command::mount:
    case Command::umount:
    case Command::disconnect:
    case Command::reattach: return true;
    default: return false;
  }
}

Result<int> run(Options const& options, Log& log) {
  if (reads(options.command)) return run_reading(options, log);
  auto const done = run_service(options, log);
  if (!done) return tl::unexpected(done.error());
  return 0;
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
  // The reader of a pipe has gone: as if the signal had come that was ignored.
  auto const& error = done.error();
  if (error.code == std::errc::broken_pipe && error.context.starts_with("standard output")) {
    return broken_pipe_status;
  }
  log.say(Level::error, done.error().message());
  return exit_status(done.error(), mounts(options.command) ? mount_status : system_status);
}

int main_of(int argc, char** argv) {
  auto const options = parse_options(std::vector<std::string>(argv, argv + argc));
  scrub_secrets(argc, argv);
  if (!options) {
    std::fprintf(stderr, "mount-oci: %s\nTry '%s --help' for more information.\n",
                 options.error().text.c_str(), argc > 0 ? argv[0] : "mount-oci");
    return usage_status;
  }
  if (!options->image.password.empty()) hide_memory();
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
