// SPDX-License-Identifier: Apache-2.0
// Mounts an EROFS image, which lies at a path or at an http URL, and keeps it mounted: the process
// that reads it may be killed at any time, and the next one goes on. Readers notice nothing but
// time.
//   keep_mounted IMAGE DIRECTORY
// ends when DIRECTORY is unmounted, or after SIGTERM or SIGINT.
#include <iostream>
#include <string>
#include <utility>

#include <erofs_oci/combinator/retry.hpp>
#include <erofs_oci/http/http.hpp>
#include <erofs_oci/mount/image_mount.hpp>
#include <erofs_oci/posix/signals.hpp>
#include <erofs_oci/source/local.hpp>

using namespace erofs_oci;

namespace {

Result<MountableImage> open_image(std::string const& where) {
  if (where.starts_with("http")) {
    EROFS_OCI_TRY_ASSIGN(auto http, Http::open(where));
    return AnySource(Retry(std::move(http)));
  }
  EROFS_OCI_TRY_ASSIGN(auto file, Local::open(where));
  return AnySource(std::move(file));
}

Result<void> keep_mounted(std::string const& where, std::string const& directory) {
  EROFS_OCI_TRY_ASSIGN(auto const signals, Signals::take());
  ImageMountOptions options{.readers = ImageReaders::processes, .interrupt = signals.fd()};
  options.log = [](MountSeverity, std::string const& text) { std::cerr << text << "\n"; };
  EROFS_OCI_TRY_ASSIGN(auto mount,
                       ImageMount::open([&] { return open_image(where); }, directory, options));
  std::cout << "mounted, by " << name_of(mount.way()) << std::endl;
  for (auto is_leaving = false; !mount.wait(signals.fd()); is_leaving = true) {
    if (signals.wait() == 0 || is_leaving || mount.release()) return {};
    std::cerr << directory << " is in use: it is detached, and served to its last user\n";
    if (auto const ok = mount.detach(); !ok) std::cerr << ok.error().message() << "\n";
  }
  if (auto const why = mount.failure()) return fail(*why);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::cerr << "usage: keep_mounted IMAGE DIRECTORY\n", 1;
  auto const ok = keep_mounted(argv[1], argv[2]);
  if (!ok) return std::cerr << ok.error().message() << "\n", 1;
}
