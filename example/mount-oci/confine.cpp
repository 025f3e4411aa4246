// SPDX-License-Identifier: Apache-2.0
#include "confine.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;

// ---------------------------------------------------------------- Landlock

/// struct landlock_ruleset_attr as of ABI 6; a kernel with an older ABI gets the front part.
struct Ruleset {
  std::uint64_t files = 0;
  std::uint64_t network = 0;
  std::uint64_t scoped = 0;
};

// Of linux/landlock.h, which has them only from Linux 6.2, 6.7, 6.10 and 6.12 on.
constexpr std::uint64_t truncate_file = 1ull << 14;
constexpr std::uint64_t ioctl_device = 1ull << 15;
constexpr std::uint64_t bind_tcp = 1ull << 0;
constexpr std::uint64_t scope_all = 1ull << 0 | 1ull << 1;  // abstract unix sockets, signals

constexpr std::uint64_t read_rights = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr std::uint64_t write_rights =
    read_rights | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
    LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
    LANDLOCK_ACCESS_FS_REFER | truncate_file;
constexpr std::uint64_t node_rights = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_SOCK |
                                      LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                                      LANDLOCK_ACCESS_FS_MAKE_SYM;
constexpr std::uint64_t file_rights = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                                      LANDLOCK_ACCESS_FS_READ_FILE | truncate_file | ioctl_device;

/// The version of the kernel's Landlock; 0: it has none. Nor does the first one count (Linux 5.13),
/// by which no file can go from one directory to another, as the store wants.
int landlock_version() noexcept {
  auto const version =
      ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return version < 2 ? 0 : static_cast<int>(version);
}

Ruleset handled_by(int version) {
  Ruleset rules{(1ull << 14) - 1, 0, 0};
  if (version >= 3) rules.files |= truncate_file;
  if (version >= 4) rules.network = bind_tcp;
  if (version >= 5) rules.files |= ioctl_device;
  if (version >= 6) rules.scoped = scope_all;
  return rules;
}

std::size_t size_of_rules(int version) {
  if (version < 4) return offsetof(Ruleset, network);
  return version < 6 ? offsetof(Ruleset, scoped) : sizeof(Ruleset);
}

/// What is needed of the system to reach hosts and to check their certificates. Whole directories:
/// other programs replace files there.
std::vector<std::string> network_files() {
  std::vector<std::string> paths{"/etc", "/run/NetworkManager", "/run/resolvconf",
                                 "/run/systemd/resolve"};
  std::error_code ignored;
  auto const resolver = std::filesystem::canonical("/etc/resolv.conf", ignored);
  if (!ignored) paths.push_back(resolver.parent_path().string());
  for (auto const* const name : {"SSL_CERT_FILE", "SSL_CERT_DIR"}) {
    if (auto const* const value = std::getenv(name); value != nullptr) paths.emplace_back(value);
  }
  return paths;
}

Result<void> allow_below(int rules, std::string const& path, std::uint64_t rights) {
  UniqueFd const fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd) return {};
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path);
  landlock_path_beneath_attr rule{};
  rule.allowed_access = S_ISDIR(status.st_mode) ? rights : rights & file_rights;
  rule.parent_fd = fd.get();
  if (::syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) {
    return fail_errno(errno, "Landlock, " + path);
  }
  return {};
}

Result<void> restrict_files(Confinement const& what, int version) {
  auto const handled = handled_by(version);
  UniqueFd const rules(static_cast<int>(
      ::syscall(SYS_landlock_create_ruleset, &handled, size_of_rules(version), 0)));
  if (!rules) return fail_errno(errno, "Landlock");
  auto const allow = [&](std::vector<std::string> const& paths, std::uint64_t rights) {
    Result<void> done;
    for (auto const& path : paths) {
      if (done && !path.empty()) done = allow_below(rules.get(), path, rights & handled.files);
    }
    return done;
  };
  // Libraries that are loaded when they are needed, zones of time, certificates, processors.
  EROFS_OCI_TRY(allow({"/usr", "/lib", "/lib64", "/proc/self", "/sys/block", "/sys/devices",
                       "/dev/urandom", "/etc/localtime"},
                      read_rights));
  EROFS_OCI_TRY(allow({"/dev/null"}, read_rights | LANDLOCK_ACCESS_FS_WRITE_FILE));
  if (what.network) EROFS_OCI_TRY(allow(network_files(), read_rights));
  EROFS_OCI_TRY(allow(what.reads, read_rights));
  EROFS_OCI_TRY(allow(what.writes, write_rights | (what.makes_files ? node_rights : 0)));
  if (::syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0) {
    return fail_errno(errno, "Landlock");
  }
  return {};
}

// ---------------------------------------------------------------- users and capabilities

Result<void> keep_capabilities(std::uint64_t kept) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return fail_errno(errno, "capget");
  for (std::size_t i = 0; i < sets.size(); ++i) {
    sets[i].permitted &= static_cast<std::uint32_t>(kept >> (32 * i));
    sets[i].effective = sets[i].permitted;
    sets[i].inheritable = 0;
  }
  if (::syscall(SYS_capset, &header, sets.data()) != 0) return fail_errno(errno, "capset");
  return {};
}

constexpr std::uint64_t bit(unsigned capability) {
  return std::uint64_t{1} << capability;
}

constexpr auto file_capabilities = bit(CAP_CHOWN) | bit(CAP_DAC_OVERRIDE) | bit(CAP_FOWNER) |
                                   bit(CAP_FSETID) | bit(CAP_MKNOD) | bit(CAP_SETFCAP) |
                                   bit(CAP_SYS_ADMIN);  // the last for attributes trusted.*

/// For root. While files are opened the saved user id is root's: when it goes, the kernel takes the
/// capabilities, and the C library has all threads do so.
Result<void> change_user(Confinement const& what, bool has_landlock) {
  auto const opens = what.reads_all && has_landlock;
  if (!what.own_user) {
    return keep_capabilities(
        (what.makes_files ? file_capabilities : bit(CAP_DAC_OVERRIDE) | bit(CAP_CHOWN)));
  }
  auto const user = reader_user();
  if (::setgroups(0, nullptr) != 0) return fail_errno(errno, "setgroups");
  if (::setresgid(user, user, user) != 0) return fail_errno(errno, "setresgid");
  if (::setresuid(user, user, opens ? 0 : user) != 0) return fail_errno(errno, "setresuid");
  return keep_capabilities(opens ? bit(CAP_DAC_READ_SEARCH) : 0);
}

// ---------------------------------------------------------------- seccomp

/// What the parsers, their threads, the C library, OpenSSL, libfuse and the index store call. By
/// name: a name that libseccomp does not know is of a kernel newer than it, or of another machine.
constexpr std::array allowed{
    // bytes
    "read", "readv", "pread64", "preadv", "preadv2", "write", "writev", "pwrite64", "pwritev",
    "lseek", "_llseek", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "fcntl64", "pipe",
    "pipe2", "splice", "vmsplice", "tee", "memfd_create", "ftruncate", "ftruncate64", "fallocate",
    "fadvise64", "fadvise64_64", "arm_fadvise64_64", "sync_file_range", "fsync", "fdatasync",
    // names; owners, modes and Landlock decide
    "open", "openat", "openat2", "creat", "access", "faccessat", "faccessat2", "stat", "stat64",
    "lstat", "lstat64", "fstat", "fstat64", "newfstatat", "fstatat64", "statx", "statfs",
    "statfs64", "fstatfs", "fstatfs64", "readlink", "readlinkat", "getdents", "getdents64",
    "getcwd", "chdir", "fchdir", "umask", "mkdir", "mkdirat", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "rmdir", "flock",
    // memory
    "brk", "mmap", "mmap2", "munmap", "mprotect", "mremap", "madvise", "membarrier", "mincore",
    "mlock", "mlock2", "mlockall", "munlock", "munlockall", "map_shadow_stack", "mseal",
    // threads, signals, time
    "futex", "futex_time64", "futex_waitv", "futex_wait", "futex_wake", "futex_requeue",
    "set_robust_list", "get_robust_list", "set_tid_address", "rseq", "arch_prctl", "set_tls",
    "gettid", "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getuid32",
    "geteuid32", "getgid32", "getegid32", "getresuid", "getresgid", "getresuid32", "getresgid32",
    "getgroups", "getgroups32", "capget", "sched_yield", "sched_getaffinity", "getcpu", "exit",
    "exit_group", "wait4", "waitid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_sigpending", "rt_sigsuspend", "sigaltstack",
    "restart_syscall", "signalfd", "signalfd4", "clock_gettime", "clock_gettime64", "clock_getres",
    "clock_getres_time64", "clock_nanosleep", "clock_nanosleep_time64", "nanosleep", "gettimeofday",
    "time", "timerfd_create", "timerfd_settime", "timerfd_settime64", "timerfd_gettime",
    "timerfd_gettime64", "getrlimit", "ugetrlimit", "getrusage", "times", "sysinfo", "uname",
    "getrandom",
    // waiting
    "poll", "ppoll", "ppoll_time64", "select", "_newselect", "pselect6", "pselect6_time64",
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
    "eventfd", "eventfd2",
    // sockets; socket(2) itself is below
    "socketpair", "connect", "shutdown", "getsockopt", "setsockopt", "getsockname", "getpeername",
    "sendto", "sendmsg", "sendmmsg", "send", "recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64",
    "recv"};

constexpr std::array accepting{"accept", "accept4"};

constexpr std::array giving{"fchown", "fchown32"};  // to the store's owner

constexpr std::array making{
    "chmod",     "fchmod",    "fchmodat", "fchmodat2",        "fchownat",  "setxattr",
    "fsetxattr", "link",      "linkat",   "symlink",          "symlinkat", "mknod",
    "mknodat",   "utimensat", "truncate", "utimensat_time64", "lsetxattr"};

struct Release {
  void operator()(void* filter) const noexcept { ::seccomp_release(filter); }
};

using Conditions = std::vector<scmp_arg_cmp>;

class Filter {
 public:
  [[nodiscard]] static Result<Filter> make() {
    // ENOSYS: the C library then does without what it knows and this list does not.
    Filter filter(::seccomp_init(SCMP_ACT_ERRNO(ENOSYS)));
    if (!filter.raw_) return fail_errno(ENOMEM, "seccomp");
    return filter;
  }

  void attribute(scmp_filter_attr which, std::uint32_t value) {
    note(::seccomp_attr_set(raw_.get(), which, value));
  }

  void allow(char const* name, Conditions const& conditions = {}) {
    auto const call = ::seccomp_syscall_resolve_name(name);
    if (call == __NR_SCMP_ERROR) return;
    auto const n =
        ::seccomp_rule_add_array(raw_.get(), SCMP_ACT_ALLOW, call,
                                 static_cast<unsigned>(conditions.size()), conditions.data());
    if (n != -EDOM && n != -EOPNOTSUPP) note(n);  // EDOM: not on this machine
  }

  void allow_all(std::span<char const* const> names) {
    for (auto const* const name : names) allow(name);
  }

  [[nodiscard]] Result<void> load() {
    note(::seccomp_load(raw_.get()));
    if (error_ != 0) return fail_errno(error_, "seccomp");
    return {};
  }

 private:
  explicit Filter(scmp_filter_ctx raw) : raw_(raw) {}

  void note(int n) noexcept {
    if (n < 0 && error_ == 0) error_ = -n;
  }

  std::unique_ptr<void, Release> raw_;
  int error_ = 0;
};

scmp_arg_cmp equal(unsigned argument, std::uint64_t value) {
  return {argument, SCMP_CMP_EQ, value, 0};
}

Result<void> filter_calls(Confinement const& what) {
  EROFS_OCI_TRY_ASSIGN(auto filter, Filter::make());
  filter.attribute(SCMP_FLTATR_CTL_TSYNC, 1);
  filter.attribute(SCMP_FLTATR_CTL_LOG, 1);       // see seccomp(2): where the kernel's log wants it
  filter.attribute(SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a tree: the list is long
  filter.allow_all(allowed);
  if (what.accepts) filter.allow_all(accepting);
  if (what.makes_files) filter.allow_all(making);
  if (!what.own_user) filter.allow_all(giving);

  // Threads, and no processes or namespaces. clone3(2) hides its flags; the C library does without.
  constexpr std::uint64_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                       CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
  filter.allow("clone", {{0, SCMP_CMP_MASKED_EQ, namespaces | CLONE_THREAD, CLONE_THREAD}});

  // For abort(3), and for the C library to change ids in all threads.
  filter.allow("tgkill", {equal(0, static_cast<std::uint64_t>(::getpid()))});
  for (auto const* const name : {"setresuid", "setresuid32"}) {
    auto const user = std::uint64_t{::geteuid()};
    if (user != 0) filter.allow(name, {equal(0, user), equal(1, user), equal(2, user)});
  }

  // The index store notes when an entry was used: now, and no other time.
  for (auto const* const name : {"utimensat", "utimensat_time64"}) {
    filter.allow(name, {equal(2, 0)});
  }

  // A thread may step back behind others.
  for (auto const* const name : {"getpriority", "setpriority"}) {
    filter.allow(name, {equal(0, PRIO_PROCESS), equal(1, 0)});
  }

  // Limits may be read, of this process alone.
  filter.allow("prlimit64", {equal(0, 0), equal(2, 0)});
  filter.allow("prctl", {equal(0, PR_SET_NAME)});
  filter.allow("prctl", {equal(0, PR_GET_NAME)});
  filter.allow("prctl", {equal(0, PR_SET_DUMPABLE), equal(1, 0)});
  constexpr std::uint64_t name_memory = 0x53564d41;  // PR_SET_VMA
  filter.allow("prctl", {equal(0, name_memory)});

  // syslog(3) and name services speak unix sockets. getaddrinfo(3) does without AF_NETLINK.
  filter.allow("socket", {equal(0, AF_UNIX)});
  if (what.network) {
    filter.allow("socket", {equal(0, AF_INET)});
    filter.allow("socket", {equal(0, AF_INET6)});
  }
  for (auto const request :
       std::initializer_list<std::uint64_t>{FIONREAD, FIONBIO, TCGETS, TIOCGWINSZ, 0x802c542a}) {
    filter.allow("ioctl", {equal(1, request)});  // the last: TCGETS2, of newer C libraries
  }
  return filter.load();
}

// ---------------------------------------------------------------- all of it

/// Does each step; the first error ends it, or, with `proceed`, is reported, and the rest is done.
Result<void> confine(Confinement const& what, Log const& log,
                     std::function<void(Error const&)> const& proceed) {
  auto const is_root = ::geteuid() == 0;
  auto const version = landlock_version();
  auto const steps = std::array<std::function<Result<void>()>, 4>{
      [] {
        auto const ok = ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
        return ok ? Result<void>() : fail_errno(errno, "no_new_privs");
      },
      [&]() -> Result<void> {
        if (version > 0) return restrict_files(what, version);
        constexpr auto absent = "this kernel has no Landlock, or it is not among its lsm= modules";
        if (is_root && !what.own_user) return fail(Errc::unsupported, absent);
        log.say(Level::info, absent);
        return {};
      },
      [&] { return is_root ? change_user(what, version > 0) : Result<void>(); },
      [&] { return filter_calls(what); },
  };
  for (auto const& step : steps) {
    auto const done = step();
    if (done) continue;
    if (!proceed) return done;
    proceed(done.error());
  }
  hide_memory();  // a change of users may have undone it
  return {};
}

}  // namespace

uid_t reader_user() {
  constexpr uid_t unused = 65123;  // in Debian's reserved range
  // Once: a confined process cannot read the list of users.
  static uid_t const user = [] {
    auto const* const entry = ::getpwnam("mount-oci");
    return entry != nullptr && entry->pw_uid != 0 ? entry->pw_uid : unused;
  }();
  return user;
}

Result<void> confine(Confinement const& what, Log const& log) {
  if (::geteuid() == 0) {
    // The capability to lock memory goes, so the limit does.
    rlimit const none{RLIM_INFINITY, RLIM_INFINITY};
    static_cast<void>(::setrlimit(RLIMIT_MEMLOCK, &none));
  }
  return confine(what, log, {});
}

Result<void> confine_or_fail(Confinement const& what, bool allow_unconfined, Log const& log) {
  auto const is_root = ::geteuid() == 0;
  if (!is_root || allow_unconfined) {
    return confine(what, log, [&](Error const& error) {
      log.say(is_root ? Level::warning : Level::info, "not confined: " + error.message());
    });
  }
  auto const done = confine(what, log);
  if (done) return done;
  return fail(done.error(),
              "the image is not read, since this process cannot be confined (--allow-unconfined "
              "reads it all the same)");
}

void end_opening() noexcept {
  auto const user = ::geteuid();
  if (user != 0 && ::setresuid(user, user, user) != 0) std::abort();  // its own: cannot fail
}

Result<void> give_store(std::string const& path) {
  EROFS_OCI_TRY(erofs_oci::make_parents(path));
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, path);
  if (::geteuid() != 0) return {};
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return fail_errno(errno, path);
  // Only below what nobody but root could change.
  if (!S_ISDIR(status.st_mode) || status.st_uid != 0 || (status.st_mode & 022) != 0) return {};
  auto const user = reader_user();
  std::error_code error;
  for (auto const& entry : std::filesystem::recursive_directory_iterator(path, error)) {
    if (::lchown(entry.path().c_str(), user, user) != 0) return fail_errno(errno, entry.path());
  }
  if (error) return fail(error, path);
  if (::chown(path.c_str(), user, user) != 0) return fail_errno(errno, path);
  return {};
}

uid_t store_owner(std::string const& path) {
  struct stat status{};
  auto const given =
      ::geteuid() == 0 && ::stat(path.c_str(), &status) == 0 && status.st_uid == reader_user();
  return given ? status.st_uid : ::geteuid();
}

}  // namespace mount_oci
