// SPDX-License-Identifier: Apache-2.0
// Images served by FUSE and seen by the running kernel, compared with what is in their archives by
// programs that know nothing of us. Needs root for most, and says "skipped" otherwise. All mounts
// are in a mount namespace of the test's own, and vanish with it.
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/combinator/concat.hpp>
#include <erofs_oci/combinator/padded.hpp>
#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/fuse/fuse_image.hpp>
#include <erofs_oci/fuse/fuse_tree.hpp>
#include <erofs_oci/host/host_support.hpp>
#include <erofs_oci/source/local.hpp>

#include "../mounting.hpp"
#include "data_path.hpp"

namespace erofs_oci {
namespace mounts_test {

using namespace std::chrono_literals;

constexpr unsigned nobody = 65534;

/// Why there is nothing to test here; empty if there is.
std::string why_skip() {
  if (::geteuid() != 0) return "skipped: not root";
  if (::access("/dev/fuse", R_OK | W_OK) != 0) return "skipped: no /dev/fuse";
  if (auto const why = mounting::own_mounts(); !why.empty()) return why;
  // A machine without udev leaves /dev/fuse to root; users of others may open it.
  static std::string const node = "/var/tmp/erofs_oci-fuse-" + std::to_string(::getpid());
  struct stat status{};
  if (::stat("/dev/fuse", &status) != 0 || (status.st_mode & 0006) == 0006) return {};
  auto const bound = ::mknod(node.c_str(), S_IFCHR | 0600, status.st_rdev) == 0 &&
                     ::chmod(node.c_str(), 0666) == 0 &&
                     ::mount(node.c_str(), "/dev/fuse", nullptr, MS_BIND, nullptr) == 0;
  ::unlink(node.c_str());
  return bound ? "" : "skipped: users may not open /dev/fuse";
}

bool skip() {
  static auto const why = why_skip();
  if (!why.empty()) WARN(why);
  return !why.empty();
}

/// A folder for one test on the disk, for everyone to enter; removed with it.
class Folder {
 public:
  Folder() {
    ::chmod(path().c_str(), 0755);
    std::filesystem::create_directory(mnt());
  }
  ~Folder() { ::umount2(mnt().c_str(), MNT_DETACH); }
  Folder(Folder const&) = delete;
  Folder& operator=(Folder const&) = delete;

  [[nodiscard]] std::string const& path() const { return scratch_.path(); }
  [[nodiscard]] std::string mnt() const { return scratch_ / "mnt"; }
  /// Whether something is mounted there.
  [[nodiscard]] bool mounted() const {
    std::ifstream file("/proc/self/mounts");
    std::stringstream text;
    text << file.rdbuf();
    return text.str().find(' ' + mnt() + ' ') != std::string::npos;
  }

 private:
  test::Scratch scratch_{"/var/tmp"};
};

/// A shell command's status; what it prints is shown if that is not 0.
int run(std::string const& command) {
  auto const status = std::system(("exec </dev/null\n" + command).c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/// A metadata image and its tar, ungzipped on the disk.
struct Layer {
  std::string index;
  std::string packed;
  std::string tar;

  [[nodiscard]] AnySource open() const {
    auto data = Padded<Local>::to_block(Local::open(tar).value(), 512).value();
    return AnySource(Concat(Local::open(index).value(), std::move(data)));
  }
};

class Layers {
 public:
  static Layer const& basic() {
    static auto const layer =
        make(test_data("/oci/gz-basic.erofs"), test_data("/oci/basic.tar.gz"));
    return *layer;
  }
  /// Null without it.
  static Layer const* debian() {
    static auto const layer =
        make(fixtures("/debian-essential/layer.erofs"), fixtures("/debian-essential/layer.tar.gz"));
    return layer ? &*layer : nullptr;
  }

 private:
  static std::optional<Layer> make(std::string const& index, std::string const& packed) {
    if (::access(packed.c_str(), R_OK) != 0) return std::nullopt;
    static Folder const folder;
    static int number = 0;
    Layer layer{index, packed, folder.path() + '/' + std::to_string(++number) + ".tar"};
    REQUIRE(run("gzip -dc '" + packed + "' >'" + layer.tar + "'") == 0);
    return layer;
  }
};

erofs::Reader<AnySource> reader_of(Layer const& layer) {
  return erofs::Reader<AnySource>::open(layer.open()).value();
}

/// Something that serves a mount on a thread, from construction to destruction.
class Serving {
 public:
  using Ready = std::function<void()>;
  /// `serve(stop, ready)` runs on the thread.
  explicit Serving(std::function<Result<FuseEnd>(std::stop_token, Ready const&)> serve)
      : thread_([this, serve = std::move(serve)](std::stop_token stop) {
          auto end = serve(std::move(stop), [this] { tell([this] { ready_ = true; }); });
          tell([&] { end_ = std::move(end); });
        }) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ready_ || end_; });
    if (!ready_) FAIL((end_->has_value() ? "ended early" : end_->error().message()));
  }
  ~Serving() { thread_.request_stop(); }
  Serving(Serving const&) = delete;
  Serving& operator=(Serving const&) = delete;

  void stop() { thread_.request_stop(); }
  /// How it ended; waits for that.
  Result<FuseEnd> end() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, 20s, [this] { return end_.has_value(); })) FAIL("does not end");
    return *end_;
  }

 private:
  template <class F>
  void tell(F const& change) {
    std::lock_guard const lock(mutex_);
    change();
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ready_ = false;
  std::optional<Result<FuseEnd>> end_;
  std::jthread thread_;
};

enum class Way { tree, file, loop };

/// Mounts a source in one of our ways and serves it.
std::unique_ptr<Serving> mount(Way way, AnySource source, std::string const& where,
                               OnFuseFailure on_failure = {}) {
  auto const shared = std::make_shared<AnySource>(std::move(source));
  return std::make_unique<Serving>(
      [=](std::stop_token stop, Serving::Ready const& ready) -> Result<FuseEnd> {
        FuseServeOptions serve;
        serve.mount.flags = MS_RDONLY;
        serve.on_failure = on_failure;
        if (way == Way::tree) {
          auto reader = erofs::Reader<AnySource>::open(std::move(*shared));
          if (!reader) return fail(reader.error());
          FuseTree<AnySource> tree(*std::move(reader), serve);
          return tree.run(where, std::move(stop), [&](FuseSession&) { ready(); });
        }
        FuseImageOptions options;
        options.file.serve = serve;
        options.attach.backing = way == Way::file ? Backing::file : Backing::loop;
        options.scratch = std::filesystem::path(where).parent_path();
        FuseImage<AnySource> image(std::move(*shared), options);
        return image.run(where, std::move(stop), [&](AttachedFile const& attached, FuseSession&) {
          CHECK(attached.backing == options.attach.backing);
          CHECK(attached.device.empty() == (way == Way::file));
          CHECK(attached.reason.empty() == (way == Way::file));
          ready();
        });
      });
}

bool can(Way way) {
  auto const host = probe_host();
  auto const erofs = host.erofs == Presence::present && host.kernel >= small_blocks_since;
  auto const possible =
      way == Way::tree || (erofs && (way == Way::loop ? host.loop == Presence::present
                                                      : file_backed_is_safe(host.kernel)));
  if (!possible) WARN("skipped: this kernel cannot mount that way");
  return possible;
}

std::string const manifest = "python3 -B '" + test_data("/../../tools/tree_manifest.py") + "' ";

/// What an archive holds, in a file: by Python's tarfile.
std::string const& wanted(Layer const& layer) {
  static Folder const folder;
  static std::map<std::string, std::string> made;
  auto const [entry, isnew] =
      made.try_emplace(layer.packed, folder.path() + "/wanted" + std::to_string(made.size()));
  if (isnew) REQUIRE(run(manifest + "tar '" + layer.packed + "' >'" + entry->second + "'") == 0);
  return entry->second;
}

/// A command that compares a mounted tree with its archive.
std::string comparison(Layer const& layer, std::string const& mounted, std::string const& found) {
  return manifest + "dir '" + mounted + "' >'" + found + "' && " + manifest + "compare '" +
         wanted(layer) + "' '" + found + "'";
}

/// A copy extracted by tar.
std::string const& extracted(Layer const& layer) {
  static Folder const folder;
  static std::map<std::string, std::string> made;
  auto const [entry, isnew] =
      made.try_emplace(layer.packed, folder.path() + "/extracted" + std::to_string(made.size()));
  if (isnew) {
    std::filesystem::create_directory(entry->second);
    REQUIRE(run("tar --xattrs --xattrs-include='*' --numeric-owner -C '" + entry->second +
                "' -xpf '" + layer.tar + "'") == 0);
  }
  return entry->second;
}

std::vector<Layer const*> layers() {
  std::vector<Layer const*> all{&Layers::basic()};
  if (Layers::debian() != nullptr) {
    all.push_back(Layers::debian());
  } else {
    WARN("skipped: no large layer; see EROFS_OCI_FIXTURES");
  }
  return all;
}

TEST_CASE("Every file is as in the archive, whichever way it is mounted", "[fuse][kernel]") {
  if (skip()) return;
  auto const way = GENERATE(Way::tree, Way::file, Way::loop);
  INFO("way " << static_cast<int>(way));
  if (!can(way)) return;
  for (auto const* const layer : layers()) {
    INFO(layer->packed);
    Folder const folder;
    std::vector<std::string> failures;
    auto const serving = mount(way, layer->open(), folder.mnt(), [&](FuseFailure const& failure) {
      std::cout << failure.operation << ": " << failure.error.message() << '\n';
      std::abort();
    });

    CHECK(run(comparison(*layer, folder.mnt(), folder.path() + "/found")) == 0);
    CHECK(run("test -z \"$(find '" + folder.mnt() + "' -newermt 2100-01-01)\"") == 0);

    CHECK(::umount2(folder.mnt().c_str(), 0) == 0);  // as a user does; it ends the server too
    CHECK(serving->end().value() == FuseEnd::unmounted);
    CHECK(run("! grep -q ' fuse.erofs_oci ' /proc/self/mounts") == 0);
    CHECK(run("! ls -d '" + folder.path() + "'/erofs_oci-* 2>/dev/null") == 0);
  }
}

TEST_CASE("Tools see no difference between a mounted tree and a copy", "[fuse][kernel]") {
  if (skip()) return;
  auto const way = GENERATE(Way::tree, Way::file);
  INFO("way " << static_cast<int>(way));
  auto const* const large = Layers::debian();
  if (large == nullptr || !can(way)) {
    WARN("skipped: no large layer, or no such way");
    return;
  }
  Folder const folder;
  auto const& copy = extracted(*large);
  auto const serving = mount(way, large->open(), folder.mnt());
  auto const both = [&](std::string const& command) {
    INFO(command);
    auto const in = [&](std::string const& place, std::string const& out) {
      return "(cd '" + place + "' && { " + command + "; }) >'" + folder.path() + out + "' 2>&1";
    };
    CHECK(run(in(copy, "/1") + "; " + in(folder.mnt(), "/2") + "; test -s '" + folder.path() +
              "/1' && cmp '" + folder.path() + "/1' '" + folder.path() + "/2'") == 0);
  };

  both(
      "find . -mindepth 1 \\( -type d -printf '%p %m %U %G %T@\\n' -o -printf '%p %y %m %U %G %s "
      "%T@ "
      "%l %n\\n' \\) | sort");
  both("tar --sort=name --numeric-owner --format=gnu -cf - usr etc | sha256sum");
  both("grep -rl GNU usr/share | sort | sha256sum");
  both("grep -rc root etc 2>&1 | sort");
  both("du -s --apparent-size usr/bin/perl usr/bin/bash");
  auto const git =
      "git -c safe.directory='*' -c user.name=t -c user.email=t@example.org --git-dir='" +
      folder.path() + "/git' --work-tree=. ";
  REQUIRE(run("cd '" + copy + "' && " + git + "init -q && " + git +
              "add -f etc usr/share/perl5 usr/share/doc && " + git + "commit -qm all") == 0);
  auto const status = "cd '" + folder.mnt() + "' && " + git + "status --porcelain -uno";
  CHECK(run("test -z \"$(" + status + ")\"") == 0);
  REQUIRE(run("cd '" + copy + "' && echo other >'" + folder.path() + "/other' && " + git +
              "update-index --cacheinfo 100644,$(" + git + "hash-object -w '" + folder.path() +
              "/other'),etc/passwd") == 0);
  CHECK(run(status + " | grep -q etc/passwd") == 0);  // it looks at all
}

TEST_CASE("Eight readers at once read the same", "[fuse][kernel]") {
  if (skip()) return;
  auto const way = GENERATE(Way::tree, Way::file, Way::loop);
  INFO("way " << static_cast<int>(way));
  auto const* const large = Layers::debian();
  if (large == nullptr || !can(way)) {
    WARN("skipped: no large layer, or no such way");
    return;
  }
  Folder const folder;
  auto const serving = mount(way, large->open(), folder.mnt());
  auto const sums = [](std::string const& place, std::string const& order) {
    return "(cd '" + place + "' && find usr/bin usr/lib -type f | sort" + order +
           " | xargs cksum | sort)";
  };
  REQUIRE(run(sums(extracted(*large), "") + " >'" + folder.path() + "/wanted'") == 0);

  std::string all;
  for (int i = 0; i < 8; ++i) {
    all += "{ " + sums(folder.mnt(), i % 2 == 0 ? " -r" : " -R") + " | cmp - '" + folder.path() +
           "/wanted' && touch '" + folder.path() + "/good" + std::to_string(i) + "'; } & ";
  }
  CHECK(run(all + "wait; ls '" + folder.path() + "'/good? | wc -l | grep -qx 8") == 0);
}

/// Runs a function in a process of another user; yields its status.
template <class F>
pid_t start_as(unsigned user, F const& function) {
  auto const child = ::fork();
  REQUIRE(child >= 0);
  if (child != 0) return child;
  ::alarm(100);
  if (user != 0 && (::setgroups(0, nullptr) != 0 || ::setgid(user) != 0 || ::setuid(user) != 0)) {
    ::_exit(99);
  }
  ::_exit(function());
}

int status_of(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_CASE("A user without privileges mounts, reads all of it, and unmounts", "[fuse][kernel]") {
  if (skip()) return;
  if (run("command -v fusermount3 >/dev/null") != 0) {
    WARN("skipped: no fusermount3");
    return;
  }
  for (auto const* const layer : layers()) {
    INFO(layer->packed);
    Folder const folder;
    ::chmod(folder.path().c_str(), 0777);
    REQUIRE(::chown(folder.mnt().c_str(), nobody, nobody) == 0);
    auto const compare = comparison(*layer, folder.mnt(), folder.path() + "/found");
    static_cast<void>(wanted(*layer));

    auto const child = start_as(nobody, [&]() -> int {
      FuseTree<AnySource> tree(reader_of(*layer));
      auto status = 1;
      std::stop_source stop;
      auto const end = tree.run(folder.mnt(), stop.get_token(), [&](FuseSession&) {
        status = run(compare);
        stop.request_stop();
      });
      if (!end) std::cout << end.error().message() << '\n';
      return end && *end == FuseEnd::stopped ? status : 2;
    });

    CHECK(status_of(child) == 0);
    CHECK_FALSE(folder.mounted());
  }
}

TEST_CASE("A user cannot mount at a directory of another user", "[fuse][kernel][error]") {
  if (skip()) return;
  if (run("command -v fusermount3 >/dev/null") != 0) {
    WARN("skipped: no fusermount3");
    return;
  }
  Folder const folder;

  auto const child = start_as(nobody, [&]() -> int {
    auto const mounted = mount_fuse(folder.mnt());
    if (mounted) return 1;
    auto const text = mounted.error().message();
    std::cout << text << '\n';
    return text.find("user has no write access to mountpoint") != std::string::npos ? 0 : 2;
  });

  CHECK(status_of(child) == 0);
}

TEST_CASE("What a killed server leaves can be unmounted", "[fuse][kernel]") {
  if (skip()) return;
  auto const user = GENERATE(0U, nobody);
  if (user != 0 && run("command -v fusermount3 >/dev/null") != 0) {
    WARN("skipped: no fusermount3");
    return;
  }
  Folder const folder;
  REQUIRE(::chown(folder.mnt().c_str(), user, user) == 0);
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  UniqueFd const read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  auto const& layer = Layers::basic();
  auto const child = start_as(user, [&]() -> int {
    FuseTree<AnySource> tree(reader_of(layer));
    auto const end = tree.run(folder.mnt(), {}, [&](FuseSession&) {
      static_cast<void>(write_full(write_end.get(), as_bytes("r")));
    });
    return end ? 0 : 1;
  });
  write_end.reset();
  std::array<std::byte, 1> ready{};
  REQUIRE(read_full(read_end.get(), ready).value() == 1);

  ::kill(child, SIGKILL);

  CHECK(status_of(child) == 128 + SIGKILL);
  CHECK(folder.mounted());
  struct stat status{};
  CHECK(::stat((folder.mnt() + "/dir").c_str(), &status) != 0);  // an error, and at once
  auto const cleaned = start_as(user, [&]() -> int {
    auto const done = unmount(folder.mnt(), UnmountBusy::refuse);
    if (!done) std::cout << done.error().message() << '\n';
    return done ? 0 : 1;
  });
  CHECK(status_of(cleaned) == 0);
  CHECK_FALSE(folder.mounted());
}

TEST_CASE("Stopping unmounts, even what is in use", "[fuse][kernel]") {
  if (skip()) return;
  auto const way = GENERATE(Way::tree, Way::file, Way::loop);
  auto const busy = GENERATE(false, true);
  INFO("way " << static_cast<int>(way) << (busy ? ", in use" : ""));
  if (!can(way)) return;
  Folder const folder;
  auto const serving = mount(way, Layers::basic().open(), folder.mnt());
  UniqueFd held;
  if (busy) held = UniqueFd(::open(folder.mnt().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));

  serving->stop();

  CHECK(serving->end().value() == FuseEnd::stopped);
  CHECK_FALSE(folder.mounted());
}

TEST_CASE("A target that cannot be mounted on leaves nothing behind", "[fuse][kernel][error]") {
  if (skip()) return;
  if (!can(Way::file)) return;
  Folder const folder;
  FuseImageOptions const options{.scratch = folder.path()};
  FuseImage<AnySource> image(Layers::basic().open(), options);
  auto const never = [](AttachedFile const&, FuseSession&) { FAIL("it is ready"); };

  auto const nowhere = image.run(folder.path() + "/nowhere", {}, never);
  FuseImage<AnySource> garbage(AnySource(Local::open("/proc/self/exe").value()), options);
  auto const no_image = garbage.run(folder.mnt(), {}, never);

  REQUIRE_FALSE(nowhere.has_value());
  CHECK(nowhere.error().code == std::errc::no_such_file_or_directory);
  CHECK_THAT(nowhere.error().message(), Catch::Contains("/nowhere"));
  REQUIRE_FALSE(no_image.has_value());
  CHECK_THAT(no_image.error().message(),
             Catch::Contains("mount ") && Catch::Contains(folder.mnt()));
  CHECK(run("! ls -d '" + folder.path() + "'/erofs_oci-* 2>/dev/null") == 0);
  CHECK(run("! grep -q ' fuse.erofs_oci ' /proc/self/mounts") == 0);
}

/// Fails all reads of data, and of the metadata too if asked to, until told otherwise.
class Gate {
 public:
  enum class State { open, failing, shut };  // shut: readers wait
  struct Control {
    std::mutex mutex;
    std::condition_variable changed;
    State state = State::open;
    unsigned waiting = 0;

    void set(State wanted) {
      std::lock_guard const lock(mutex);
      state = wanted;
      changed.notify_all();
    }
  };

  Gate(AnySource inner, std::uint64_t from, std::shared_ptr<Control> control)
      : inner_(std::move(inner)), from_(from), control_(std::move(control)) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return inner_.size(); }
  [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> out) const {
    if (offset + out.size() > from_) {
      std::unique_lock lock(control_->mutex);
      ++control_->waiting;
      control_->changed.notify_all();
      control_->changed.wait(lock, [this] { return control_->state != State::shut; });
      if (control_->state == State::failing) return fail(Errc::unavailable, "the peer is gone");
    }
    return inner_.read_at(offset, out);
  }

 private:
  AnySource inner_;
  std::uint64_t from_;
  std::shared_ptr<Control> control_;
};

/// A regular file of the small layer whose content lies in its tar.
std::string some_file(Layer const& layer) {
  auto const reader = reader_of(layer);
  std::string found;
  auto const ok = erofs::walk(reader, [&](erofs::Visit const& visit) {
    if (visit.inode == nullptr || !visit.inode->is_regular() || visit.inode->size() < 100 ||
        visit.inode->record.links != 1) {
      return erofs::Step::enter;
    }
    found = visit.path;
    return erofs::Step::stop;
  });
  REQUIRE(ok.has_value());
  REQUIRE_FALSE(found.empty());
  return found;
}

TEST_CASE("Readers of a source that fails get EIO, and the data once it works again",
          "[fuse][kernel][error]") {
  if (skip()) return;
  auto const way = GENERATE(Way::tree, Way::file, Way::loop);
  INFO("way " << static_cast<int>(way));
  if (!can(way)) return;
  auto const& layer = Layers::basic();
  Folder const folder;
  auto const control = std::make_shared<Gate::Control>();
  auto const metadata = Local::open(layer.index).value().size();
  std::atomic<unsigned> failures = 0;
  auto const serving = mount(way, AnySource(Gate(layer.open(), metadata, control)), folder.mnt(),
                             [&](FuseFailure const& failure) {
                               if (failure.error.code == Errc::unavailable) ++failures;
                             });
  auto const file = open_read(folder.mnt() + some_file(layer)).value();
  control->set(Gate::State::failing);
  Bytes bytes(100);

  auto const failed = pread_full(file.get(), 0, bytes);

  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().code.value() == EIO);
  CHECK(failures > 0);
  control->set(Gate::State::open);
  CHECK(pread_full(file.get(), 0, bytes).value() == 100);
}

TEST_CASE("A reader waits over the death of a server for the next one",
          "[fuse][kernel][takeover]") {
  if (skip()) return;
  auto const& layer = Layers::basic();
  auto const name = some_file(layer);
  auto const metadata = Local::open(layer.index).value().size();
  Folder const folder;
  auto connection = mount_fuse(folder.mnt()).value();
  auto const inflight = FuseInflight::make(64).value();
  auto const keep = [&](Bytes first) {
    return FuseConnection{UniqueFd(::dup(connection.device.get())), std::move(first),
                          inflight.share().value()};
  };
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  UniqueFd const ours(ends[0]);
  UniqueFd const theirs(ends[1]);

  // The first server sends its kernel's first request, and then that it was asked for data.
  auto const server = start_as(0, [&]() -> int {
    auto const control = std::make_shared<Gate::Control>();
    control->set(Gate::State::shut);
    std::thread([&, control] {
      std::unique_lock lock(control->mutex);
      control->changed.wait(lock, [&] { return control->waiting > 0; });
      static_cast<void>(write_full(theirs.get(), as_bytes("asked")));
    }).detach();
    auto reader =
        erofs::Reader<AnySource>::open(AnySource(Gate(layer.open(), metadata, control))).value();
    FuseTree<AnySource> tree(std::move(reader));
    auto const end = tree.serve(
        keep({}), {},
        [&](FuseSession& session) {
          static_cast<void>(write_full(theirs.get(), session.share().value().opening));
        },
        [] {});
    return end ? 0 : 1;
  });
  Bytes opening(4096);
  auto const n = ::recv(ours.get(), opening.data(), opening.size(), 0);
  REQUIRE(n > 40);
  opening.resize(static_cast<std::size_t>(n));
  REQUIRE(run("tar -C '" + folder.path() + "' -xOf '" + layer.tar + "' \"$(tar -tf '" + layer.tar +
              "' | grep -E '^(\\./)?" + name.substr(1) + "$')\" >'" + folder.path() + "/copy'") ==
          0);
  auto const client = start_as(0, [&]() -> int {
    return run("cmp '" + folder.mnt() + name + "' '" + folder.path() + "/copy'");
  });
  Bytes word(16);
  REQUIRE(::recv(ours.get(), word.data(), word.size(), 0) == 5);
  ::kill(server, SIGKILL);
  CHECK(status_of(server) == 128 + SIGKILL);

  FuseTree<AnySource> tree(reader_of(layer));
  Serving serving([&](std::stop_token stop, Serving::Ready const& ready) {
    return tree.serve(keep(opening), std::move(stop), [&](FuseSession&) { ready(); }, [] {});
  });

  CHECK(status_of(client) == 0);
  CHECK(run("ls -R '" + folder.mnt() + "' >/dev/null") == 0);
}

TEST_CASE("Loop devices are freed with their mounts, also when many want one", "[fuse][kernel]") {
  if (skip()) return;
  if (!can(Way::loop)) return;
  Folder const folder;
  auto const image = folder.path() + "/image";
  REQUIRE(run("cat '" + Layers::basic().index + "' '" + Layers::basic().tar + "' >'" + image +
              "'; truncate -s %512 '" + image + "'") == 0);
  std::vector<std::jthread> threads;
  std::atomic<unsigned> good = 0;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      auto const where = folder.path() + "/mnt" + std::to_string(i);
      std::filesystem::create_directory(where);
      auto const attached = attach_file(image, where, {.backing = Backing::loop});
      if (!attached) {
        std::cout << attached.error().message() << '\n';
        return;
      }
      if (std::filesystem::is_empty(where)) return;
      if (detach_file(*attached)) ++good;
      if (!detach_file(*attached)) ++good;  // it is not there any more
    });
  }
  threads.clear();

  CHECK(good == 12);
  CHECK(run("for i in 1 2 3 4 5 6 7 8 9 10; do losetup -a | grep -q '" + image +
            "' || exit 0; sleep 0.2; done; exit 1") == 0);
}

TEST_CASE("attach_file takes a loop device where the file will not do", "[fuse][kernel]") {
  if (skip()) return;
  if (!can(Way::loop)) return;
  Folder const folder;
  auto const make = [&](std::string const& path) {
    REQUIRE(run("cat '" + Layers::basic().index + "' '" + Layers::basic().tar + "' >'" + path +
                "'; truncate -s %512 '" + path + "'") == 0);
  };
  SECTION("an old kernel") {
    make(folder.path() + "/image");
    auto const attached =
        attach_file(folder.path() + "/image", folder.mnt(), {.kernel = {6, 12, 1}}).value();
    CHECK(attached.backing == Backing::loop);
    CHECK(attached.reason == "Linux 6.12.1 panics on file-backed EROFS");
    CHECK(detach_file(attached).has_value());
    auto const only = attach_file(folder.path() + "/image", folder.mnt(),
                                  {.backing = Backing::file, .kernel = {6, 6, 0}});
    REQUIRE_FALSE(only.has_value());
    CHECK(only.error().code == Errc::unsupported);
  }
  SECTION("a file system without a page cache") {
    auto const memory = folder.path() + "/memory";
    std::filesystem::create_directory(memory);
    REQUIRE(::mount("tmpfs", memory.c_str(), "tmpfs", 0, nullptr) == 0);
    make(memory + "/image");
    auto const attached = attach_file(memory + "/image", folder.mnt()).value();
    CHECK(attached.backing == Backing::loop);
    CHECK_FALSE(attached.reason.empty());
    CHECK(detach_file(attached).has_value());
    ::umount2(memory.c_str(), MNT_DETACH);
  }
  SECTION("what is no image") {
    std::ofstream(folder.path() + "/image") << std::string(100'000, 'x');
    auto const attached = attach_file(folder.path() + "/image", folder.mnt());
    REQUIRE_FALSE(attached.has_value());
    CHECK(attached.error().code == std::errc::invalid_argument);
    CHECK_THAT(attached.error().message(), Catch::Contains(folder.path() + "/image"));
  }
}

}  // namespace mounts_test
}  // namespace erofs_oci
