// SPDX-License-Identifier: Apache-2.0
// What a reader of images could do if an image had taken it over: each test is such a process.
#include "confine.hpp"  // first: proves that the header stands alone

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch.hpp>
#include <child.hpp>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/posix/temporary_directory.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace mount_oci {
namespace confine_test {

using erofs_oci::TemporaryDirectory;
using erofs_oci::test::in_a_child;

bool is_root() {
  return ::geteuid() == 0;
}

/// What a worker is, or serve with `accepts`.
Result<void> become(Confinement what = {.network = true}) {
  static Log const log(-1);
  return confine(what, log);
}

struct Call {
  char const* name;
  long number;
  std::array<long, 5> arguments{};
};

constexpr long bad = -1;
constexpr long new_user = CLONE_NEWUSER | SIGCHLD;
constexpr long new_net = CLONE_NEWNET | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;

/// Arguments such that the kernel, if it gets to see them, does no harm.
std::vector<Call> harmful() {
  return {
      {"execve", SYS_execve, {0, 0, 0}},
      {"execveat", SYS_execveat, {bad, 0, 0, 0, 0}},
      {"fork", SYS_clone, {SIGCHLD}},
      {"clone of a user namespace", SYS_clone, {new_user}},
      {"clone of a network namespace", SYS_clone, {new_net}},
      {"clone3", SYS_clone3, {0, 0}},
      {"unshare", SYS_unshare, {CLONE_NEWUSER}},
      {"setns", SYS_setns, {bad, 0}},
      {"kill", SYS_kill, {::getppid(), 0}},
      {"tkill", SYS_tkill, {::getppid(), 0}},
      {"tgkill of another process", SYS_tgkill, {::getppid(), ::getppid(), 0}},
      {"rt_sigqueueinfo", SYS_rt_sigqueueinfo, {::getppid(), 0, 0}},
      {"pidfd_open", SYS_pidfd_open, {::getppid(), 0}},
      {"pidfd_send_signal", SYS_pidfd_send_signal, {bad, 0, 0, 0}},
      {"pidfd_getfd", SYS_pidfd_getfd, {bad, 0, 0}},
      {"ptrace", SYS_ptrace, {16, bad}},
      {"process_vm_readv", SYS_process_vm_readv, {::getppid(), 0, 0, 0, 0}},
      {"process_vm_writev", SYS_process_vm_writev, {::getppid(), 0, 0, 0, 0}},
      {"process_madvise", SYS_process_madvise, {bad, 0, 0, 0, 0}},
      {"kcmp", SYS_kcmp, {::getpid(), ::getpid(), 0, 0, 0}},
      {"socket AF_NETLINK", SYS_socket, {AF_NETLINK, SOCK_RAW, 0}},
      {"socket AF_PACKET", SYS_socket, {AF_PACKET, SOCK_RAW, 0}},
      {"socket AF_ALG", SYS_socket, {AF_ALG, SOCK_SEQPACKET, 0}},
      {"socket AF_VSOCK", SYS_socket, {AF_VSOCK, SOCK_STREAM, 0}},
      {"bind", SYS_bind, {bad, 0, 0}},
      {"listen", SYS_listen, {bad, 0}},
      {"accept4", SYS_accept4, {bad, 0, 0, 0}},
      {"fchmod", SYS_fchmod, {bad, 0}},
      {"fchmodat", SYS_fchmodat, {bad, 0, 0}},
      {"fchown", SYS_fchown, {bad, 0, 0}},
      {"fchownat", SYS_fchownat, {bad, 0, 0, 0, 0}},
      {"setxattr", SYS_setxattr, {0, 0, 0, 0, 0}},
      {"linkat", SYS_linkat, {bad, 0, bad, 0, 0}},
      {"symlinkat", SYS_symlinkat, {0, bad, 0}},
      {"mknodat", SYS_mknodat, {bad, 0, S_IFCHR, 0}},
      {"utimensat to a time", SYS_utimensat, {bad, 0, bad, 0}},
      {"mount", SYS_mount, {0, 0, 0, 0, 0}},
      {"umount2", SYS_umount2, {0, 0}},
      {"fsopen", SYS_fsopen, {0, 0}},
      {"open_tree", SYS_open_tree, {bad, 0, 0}},
      {"move_mount", SYS_move_mount, {bad, 0, bad, 0, 0}},
      {"mount_setattr", SYS_mount_setattr, {bad, 0, 0, 0, 0}},
      {"pivot_root", SYS_pivot_root, {0, 0}},
      {"chroot", SYS_chroot, {0}},
      {"name_to_handle_at", SYS_name_to_handle_at, {bad, 0, 0, 0, 0}},
      {"open_by_handle_at", SYS_open_by_handle_at, {bad, 0, 0}},
      {"fanotify_init", SYS_fanotify_init, {0, 0}},
      {"inotify_init1", SYS_inotify_init1, {0}},
      {"keyctl", SYS_keyctl, {bad, 0, 0, 0, 0}},
      {"add_key", SYS_add_key, {0, 0, 0, 0, 0}},
      {"request_key", SYS_request_key, {0, 0, 0, 0}},
      {"bpf", SYS_bpf, {bad, 0, 0}},
      {"io_uring_setup", SYS_io_uring_setup, {0, 0}},
      {"perf_event_open", SYS_perf_event_open, {0, 0, bad, bad, 0}},
      {"userfaultfd", SYS_userfaultfd, {bad}},
      {"memfd_secret", 447, {bad}},
      {"init_module", SYS_init_module, {0, 0, 0}},
      {"finit_module", SYS_finit_module, {bad, 0, 0}},
      {"kexec_load", SYS_kexec_load, {0, 0, 0, bad}},
      {"reboot", SYS_reboot, {0, 0, 0, 0}},
      {"swapon", SYS_swapon, {0, 0}},
      {"syslog", SYS_syslog, {bad, 0, 0}},
      {"sethostname", SYS_sethostname, {0, 0}},
      {"settimeofday", SYS_settimeofday, {0, 0}},
      {"clock_settime", SYS_clock_settime, {bad, 0}},
      {"quotactl", SYS_quotactl, {bad, 0, 0, 0}},
      {"personality", SYS_personality, {0xffffffff}},
      {"setuid", SYS_setuid, {0}},
      {"setresuid to root", SYS_setresuid, {0, 0, 0}},
      {"setresgid", SYS_setresgid, {bad, bad, bad}},
      {"setgroups", SYS_setgroups, {0, 0}},
      {"setfsuid", SYS_setfsuid, {bad}},
      {"capset", SYS_capset, {0, 0}},
      {"prctl to be traced", SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0}},
      {"prctl of a keep flag", SYS_prctl, {PR_SET_KEEPCAPS, 0, 0, 0, 0}},
      {"prlimit64 of another process", SYS_prlimit64, {::getppid(), 0, 0, 0}},
      {"setpriority of another process", SYS_setpriority, {PRIO_PROCESS, ::getppid(), 19}},
      {"setpriority of a user", SYS_setpriority, {PRIO_USER, 0, 19}},
      {"sched_setscheduler", SYS_sched_setscheduler, {0, bad, 0}},
      {"move_pages", SYS_move_pages, {0, 0, 0, 0, 0}},
      {"mbind", SYS_mbind, {0, 0, bad, 0, 0}},
      {"TIOCSTI", SYS_ioctl, {0, 0x5412, 0}},
      {"shmget", SYS_shmget, {0, 0, 0}},
      {"seccomp", SYS_seccomp, {bad, 0, 0}},
      {"landlock_restrict_self", SYS_landlock_restrict_self, {bad, 0}},
  };
}

/// Whether the filter refuses it, and not the kernel behind it.
bool is_refused(Call const& call) {
  auto const& a = call.arguments;
  return ::syscall(call.number, a[0], a[1], a[2], a[3], a[4]) == -1 && errno == ENOSYS;
}

TEST_CASE("A reader that an image has taken over reaches nothing", "[tool][confine]") {
  auto const calls = harmful();
  auto const status = in_a_child([&] {
    if (!become()) return 1;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      if (!is_refused(calls[i])) return static_cast<int>(i) + 2;
    }
    return 0;
  });
  auto const at = static_cast<std::size_t>(status) - 2;
  INFO((status > 1 && at < calls.size() ? calls[at].name : "cannot be confined"));
  CHECK(status == 0);
}

TEST_CASE("Without a registry there is no network", "[tool][confine]") {
  CHECK(in_a_child([] {
          if (!become(Confinement())) return 1;
          if (::socket(AF_INET, SOCK_STREAM, 0) >= 0 || ::socket(AF_INET6, SOCK_DGRAM, 0) >= 0) {
            return 2;
          }
          return ::socket(AF_UNIX, SOCK_DGRAM, 0) >= 0 ? 0 : 3;  // syslog(3)
        }) == 0);
}

TEST_CASE("Root becomes a user that owns nothing", "[tool][confine]") {
  if (!is_root()) return;
  CHECK(in_a_child([] {
          if (!become()) return 1;
          uid_t real = 0;
          uid_t effective = 0;
          uid_t saved = 0;
          ::getresuid(&real, &effective, &saved);
          auto const user = reader_user();
          if (real != user || effective != user || saved != user || ::getegid() != user) return 2;
          if (::getgroups(0, nullptr) != 0) return 3;
          for (unsigned capability = 0; capability < 64; ++capability) {
            if (erofs_oci::has_capability(capability)) return 4;
          }
          if (::prctl(PR_GET_NAME, std::array<char, 16>().data()) != 0) return 5;
          return ::open("/etc/shadow", O_RDONLY | O_CLOEXEC) < 0 ? 0 : 6;
        }) == 0);
}

TEST_CASE("What reading takes works", "[tool][confine]") {
  CHECK(in_a_child([] {
          if (!become()) return 1;
          auto ran = false;
          std::thread([&] { ran = true; }).join();
          if (!ran) return 2;
          addrinfo* found = nullptr;
          if (::getaddrinfo("localhost", "443", nullptr, &found) != 0) return 3;
          ::freeaddrinfo(found);
          if (::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0) return 4;
          if (!erofs_oci::open_read("/etc/resolv.conf")) return 5;
          if (!erofs_oci::open_read("/dev/null")) return 6;
          if (::setpriority(PRIO_PROCESS, 0, 19) != 0) return 7;
          return 0;
        }) == 0);
  // A failed assertion ends it by a signal, as ever.
  CHECK(in_a_child([] {
          rlimit const none{0, 0};
          ::setrlimit(RLIMIT_CORE, &none);
          std::signal(SIGABRT, SIG_DFL);
          if (!become()) return 1;
          std::abort();
        }) == -1);
}

TEST_CASE("A confined process of root locks its memory", "[tool][confine]") {
  if (!is_root() || !erofs_oci::has_capability(CAP_SYS_RESOURCE)) return;
  CHECK(in_a_child([] {
          rlimit const little{64 << 10, 64 << 10};
          ::setrlimit(RLIMIT_MEMLOCK, &little);
          if (!become()) return 1;
          if (erofs_oci::has_capability(CAP_IPC_LOCK)) return 2;
          return ::mlockall(MCL_CURRENT) == 0 ? 0 : 3;
        }) == 0);
}

/// A directory with another user's file, and one to write to.
struct Files {
  TemporaryDirectory directory = TemporaryDirectory::make("/tmp/confine-test-").value();
  std::string secret = directory.path() + "/secret";
  std::string store = directory.path() + "/store";

  Files() {
    UniqueFd const fd(::open(secret.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(erofs_oci::write_full(fd.get(), erofs_oci::as_bytes(std::string("text"))));
    REQUIRE(give_store(store).has_value());
  }
  ~Files() {
    ::unlink((store + "/new").c_str());
    ::rmdir(store.c_str());
    ::unlink(secret.c_str());
  }
};

bool can_read(std::string const& path) {
  return erofs_oci::open_read(path).has_value();
}

bool can_make(std::string const& path) {
  return UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)).operator bool();
}

TEST_CASE("What is not named can be neither read nor written", "[tool][confine]") {
  Files const files;
  auto const life = [&](bool reads) {
    Confinement what{.reads_all = true, .writes = {files.store}};
    if (reads) what.reads = {files.secret};
    if (!become(what)) return 1;
    if (can_read(files.secret) != reads) return 2;
    if (can_make(files.directory.path() + "/other") || can_make("/tmp/confine-test")) return 3;
    if (!can_make(files.store + "/new")) return 4;
    return can_read("/etc/passwd") ? 5 : 0;
  };
  CHECK(in_a_child([&] { return life(true); }) == 0);
  CHECK(in_a_child([&] { return life(false); }) == 0);
}

TEST_CASE("The store learns when an entry was used", "[tool][confine]") {
  Files const files;
  auto const entry = files.store + "/new";
  CHECK(in_a_child([&] {
          if (!become({.reads_all = true, .writes = {files.store}}) || !can_make(entry)) return 1;
          return ::utimensat(AT_FDCWD, entry.c_str(), nullptr, 0) == 0 ? 0 : 2;
        }) == 0);
}

TEST_CASE("What root may read to open an image ends for all threads", "[tool][confine]") {
  if (!is_root()) return;
  Files const files;
  CHECK(in_a_child([&] {
          if (!become({.reads_all = true, .reads = {files.secret}, .writes = {files.store}}))
            return 1;
          if (!can_read(files.secret)) return 2;
          std::array<int, 2> start{};
          std::array<int, 2> end{};
          if (::pipe(start.data()) != 0 || ::pipe(end.data()) != 0) return 3;
          auto still = true;
          std::thread other([&] {
            char byte = 0;
            if (::read(start[0], &byte, 1) == 1) still = can_read(files.secret);
          });
          end_opening();
          if (::write(start[1], "x", 1) != 1) return 4;
          other.join();
          if (still) return 5;
          if (can_read(files.secret) || ::setresuid(0, 0, 0) == 0) return 6;
          return erofs_oci::has_capability(CAP_DAC_READ_SEARCH) ? 7 : 0;
        }) == 0);
}

TEST_CASE("Who extracts as root writes what it was told to", "[tool][confine]") {
  if (!is_root()) return;
  Files const files;
  CHECK(in_a_child([&] {
          if (!become({.own_user = false, .makes_files = true, .writes = {files.store}})) return 1;
          auto const made = files.store + "/new";
          if (!can_make(made) || ::chmod(made.c_str(), 0644) != 0) return 2;
          if (::lchown(made.c_str(), 7, 7) == 0) return 3;  // by a descriptor only
          UniqueFd const fd(::open(made.c_str(), O_RDONLY | O_CLOEXEC));
          if (::fchown(fd.get(), 7, 7) != 0) return 4;
          if (can_make("/etc/confine-test") || can_read("/etc/shadow")) return 5;
          if (::kill(::getppid(), 0) == 0 || ::fork() >= 0) return 6;
          return 0;
        }) == 0);
}

TEST_CASE("Root that cannot be confined reads nothing unless it is allowed to",
          "[tool][confine][error]") {
  if (!is_root()) return;
  auto const life = [](bool allowed) {
    // Without CAP_SETGID and CAP_SETUID no other user can be taken.
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, 2> sets{};
    if (::syscall(SYS_capset, &header, sets.data()) != 0) return 1;
    Log const log(-1);
    auto const done = confine_or_fail({}, allowed, log);
    if (allowed) return done && ::fork() < 0 ? 0 : 2;  // the other steps are done
    if (done) return 3;
    auto const text = done.error().message();
    auto const tells = text.find("--allow-unconfined") != text.npos;
    return tells && text.find("setgroups") != text.npos ? 0 : 4;
  };
  CHECK(in_a_child([&] { return life(false); }) == 0);
  CHECK(in_a_child([&] { return life(true); }) == 0);
}

TEST_CASE("A store is given away only as long as nobody else could have changed it",
          "[tool][confine]") {
  if (!is_root()) return;
  auto const directory = TemporaryDirectory::make("/tmp/confine-test-").value();
  auto const store = directory.path() + "/store";
  auto const owner = [&] {
    struct stat status{};
    REQUIRE(::lstat(store.c_str(), &status) == 0);
    return status.st_uid;
  };
  REQUIRE(::mkdir(store.c_str(), 0777) == 0);
  REQUIRE(::chmod(store.c_str(), 0777) == 0);
  CHECK(give_store(store).has_value());
  CHECK(owner() == 0);
  REQUIRE(::chmod(store.c_str(), 0700) == 0);
  CHECK(give_store(store).has_value());
  CHECK(owner() == reader_user());
  CHECK(store_owner(store) == reader_user());
  REQUIRE(::chown(store.c_str(), 7, 7) == 0);
  CHECK(give_store(store).has_value());
  CHECK(owner() == 7);
  CHECK(store_owner(store) == 0);
  ::rmdir(store.c_str());
}

}  // namespace confine_test
}  // namespace mount_oci
