// SPDX-License-Identifier: Apache-2.0
// Mounts an EROFS image, which lies at a path or at an http URL, and keeps it mounted: the process
// that reads it may be killed at any time, and the next one goes on. Readers notice nothing but
// time.
//   keep_mounted IMAGE DIRECTORY
// ends when DIRECTORY is unmounted, or after SIGTERM or SIGINT.
#include <filesystem>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/mount.h>

#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/host_support.hpp>
#include <erofs_oci/http/http.hpp>
#include <erofs_oci/mount/mount_supervisor.hpp>
#include <erofs_oci/mount/mount_worker.hpp>
#include <erofs_oci/posix/signals.hpp>
#include <erofs_oci/source/local.hpp>

using namespace erofs_oci;

namespace {

Result<AnySource> open_image(std::string const& where) {
  if (where.starts_with("http")) {
    EROFS_OCI_TRY_ASSIGN(auto http, Http::open(where));
    return AnySource(Retry(std::move(http)));
  }
  EROFS_OCI_TRY_ASSIGN(auto file, Local::open(where));
  return AnySource(std::move(file));
}

/// In each worker.
int work(WorkerSeat seat, std::string const& where, FuseServing const& serving) {
  MountWorker worker(std::move(seat));
  auto const serve = [&]() -> Result<bool> {
    EROFS_OCI_TRY_ASSIGN(auto const signals, Signals::take());
    EROFS_OCI_TRY_ASSIGN(auto image, open_image(where));
    MountWorkerOptions options;
    options.serving = serving;
    options.serving.on_failure = [](auto const& text) { std::cerr << text << "\n"; };
    options.signals = &signals;
    WorkerImage const opened{.size = image.size(), .zeros_from = image.size()};
    return worker.serve(opened, std::move(image), std::move(options));
  };
  auto const done = serve();
  if (!done) worker.report(done.error());
  return done && *done ? 0 : 1;
}

Result<void> keep_mounted(std::string const& where, std::string const& directory) {
  EROFS_OCI_TRY_ASSIGN(auto const way, choose_mount(probe_host()).result());
  EROFS_OCI_TRY_ASSIGN(auto const signals, Signals::take());
  FuseServing const serving{.way = way, .target = directory};
  std::unique_ptr<MountSupervisor> mount;

  MountHooks hooks;
  hooks.work = [&](WorkerSeat seat) { return work(std::move(seat), where, serving); };
  hooks.announce = [&](std::string const& device) {
    if (device.empty()) return mount->mounted(directory);  // by FUSE the worker has mounted it
    mount->run_in_child(
        [=] {
          return ::mount(device.c_str(), directory.c_str(), "erofs", MS_RDONLY, nullptr) == 0;
        },
        [&](bool ok) {
          if (ok) return mount->mounted(directory);
          mount->mounting_failed(make_error(Errc::unsupported, "mount at " + directory));
        });
  };
  hooks.settled = [&](std::string const& warning) {
    std::cout << "mounted, by " << name_of(way) << std::endl;
    if (!warning.empty()) std::cerr << warning << "\n";
  };
  hooks.log = [](MountSeverity, std::string const& text) { std::cerr << text << "\n"; };
  hooks.watch = [&](std::vector<pollfd>& fds) { fds.push_back({signals.fd(), POLLIN, 0}); };
  hooks.act = [&](std::span<pollfd const> fds) {
    if (fds[0].revents != 0 && signals.wait() != 0) mount->interrupt();
  };

  mount = std::make_unique<MountSupervisor>(MountPlan{.way = way, .target = directory}, hooks);
  EROFS_OCI_TRY_ASSIGN(auto const end, mount->run());
  if (end == MountEnd::given_up) return fail(Errc::unavailable, mount->last_error());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::cerr << "usage: keep_mounted IMAGE DIRECTORY\n", 1;
  auto const ok = keep_mounted(argv[1], std::filesystem::absolute(argv[2]).string());
  if (!ok) return std::cerr << ok.error().message() << "\n", 1;
}
