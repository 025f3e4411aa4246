// SPDX-License-Identifier: Apache-2.0
// Mounts a metadata image with its tar in one of our ways, for bench/fuse.sh to read from.
//
// usage: bench-fuse_mount tree|file|loop|only-file DIR IMAGE TAR [THREADS]
//        bench-fuse_mount nbd SOCKET IMAGE TAR [THREADS]
//
// In the environment, to try what is not the default: FUSE_FILE_DIRECT, LOOP_BUFFERED (set to
// anything), EROFS_DATA (mount options for EROFS).
//
// Prints "ready" when it can be read, and ends when it is unmounted, or on SIGTERM.
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/fuse/fuse_image.hpp>
#include <erofs_oci/fuse/fuse_tree.hpp>
#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/nbd/socket_listen.hpp>
#include <erofs_oci/source/local.hpp>
#include <erofs_oci/source/memory.hpp>

namespace {

using namespace erofs_oci;

int usage() {
  std::cerr << "usage: bench-fuse_mount tree|file|loop|only-file DIR IMAGE TAR [THREADS]\n"
               "       bench-fuse_mount nbd SOCKET IMAGE TAR [THREADS]\n";
  return 1;
}

void say_ready() {
  std::cout << "ready" << std::endl;  // flushed: somebody waits for it
}

Result<void> mount_tree(AnySource image, std::string const& where, FuseServeOptions options,
                        std::stop_token stop) {
  auto reader = erofs::Reader<AnySource>::open(std::move(image));
  if (!reader) return fail(reader.error());
  FuseTree<AnySource> tree(*std::move(reader), std::move(options));
  auto const end = tree.run(where, std::move(stop), [](FuseSession&) { say_ready(); });
  if (!end) return fail(end.error());
  return {};
}

Result<void> mount_file(AnySource image, std::string const& where, FuseServeOptions options,
                        std::stop_token stop) {
  FuseFile<AnySource> file(std::move(image), {.serve = std::move(options)});
  auto const end = file.run(where, std::move(stop), [](FuseSession&) { say_ready(); });
  if (!end) return fail(end.error());
  return {};
}

Result<void> mount_image(AnySource image, std::string const& where, FuseServeOptions options,
                         std::stop_token stop, Backing backing) {
  FuseImageOptions all;
  all.file.serve = std::move(options);
  all.attach.backing = backing;
  if (std::getenv("FUSE_FILE_DIRECT") != nullptr) all.file.cache = FileCache::none;
  if (std::getenv("LOOP_BUFFERED") != nullptr) all.attach.loop_cache = LoopCache::buffered;
  if (auto const* data = std::getenv("EROFS_DATA")) all.attach.data = data;
  FuseImage<AnySource> mount(std::move(image), std::move(all));
  auto const end =
      mount.run(where, std::move(stop), [](AttachedFile const&, FuseSession&) { say_ready(); });
  if (!end) return fail(end.error());
  return {};
}

Result<void> serve_nbd(AnySource image, std::string const& where, std::size_t threads,
                       std::stop_token stop) {
  auto listen = SocketListen::open_unix(where);
  if (!listen) return fail(std::move(listen).error());
  NbdServer<AnySource, SocketListen> server(std::move(image), *std::move(listen),
                                            {.workers = threads});
  return server.run(std::move(stop), [](SocketListen&) { say_ready(); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return usage();
  auto const way = std::string_view(argv[1]);
  auto index = Local::open(argv[3]);
  auto tar = Local::open(argv[4]);
  if (!index || !tar) return usage();
  auto padded = Padded<Local>::to_block(*std::move(tar), 512);
  if (!padded) return usage();
  Bytes metadata(static_cast<std::size_t>(index->size()));  // as a tool would keep it
  if (!read_exact(*index, 0, metadata)) return usage();
  auto image = AnySource(Concat(Memory(std::move(metadata)), *std::move(padded)));
  FuseServeOptions options;
  options.threads = argc > 5 ? static_cast<std::size_t>(std::atoi(argv[5])) : 0;
  options.on_failure = [](FuseFailure const& failure) {
    std::cerr << failure.operation << ": " << failure.error.message() << '\n';
  };

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::stop_source stop;
  std::thread([stop, signals]() mutable {
    int number = 0;
    sigwait(&signals, &number);
    stop.request_stop();
  }).detach();

  auto const result = [&]() -> Result<void> {
    auto const token = stop.get_token();
    if (way == "tree") return mount_tree(std::move(image), argv[2], options, token);
    if (way == "only-file") return mount_file(std::move(image), argv[2], options, token);
    if (way == "file") return mount_image(std::move(image), argv[2], options, token, Backing::file);
    if (way == "loop") return mount_image(std::move(image), argv[2], options, token, Backing::loop);
    if (way == "nbd") return serve_nbd(std::move(image), argv[2], options.threads, token);
    std::exit(usage());
  }();
  if (result) return 0;
  std::cerr << "bench-fuse_mount: " << result.error().message() << '\n';
  return 1;
}
