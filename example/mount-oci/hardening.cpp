// SPDX-License-Identifier: Apache-2.0
#include "hardening.hpp"

#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>

#include <linux/capability.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mount_oci {
namespace {

using erofs_oci::fail_errno;

constexpr std::array refused{
    SCMP_SYS(acct),
    SCMP_SYS(add_key),
    SCMP_SYS(adjtimex),
    SCMP_SYS(bpf),
    SCMP_SYS(chroot),
    SCMP_SYS(clock_adjtime),
    SCMP_SYS(clock_settime),
    SCMP_SYS(delete_module),
    SCMP_SYS(fanotify_init),
    SCMP_SYS(finit_module),
    SCMP_SYS(fsconfig),
    SCMP_SYS(fsmount),
    SCMP_SYS(fsopen),
    SCMP_SYS(fspick),
    SCMP_SYS(init_module),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(ioperm),
    SCMP_SYS(iopl),
    SCMP_SYS(kcmp),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(kexec_load),
    SCMP_SYS(keyctl),
    SCMP_SYS(lookup_dcookie),
    SCMP_SYS(mknod),
    SCMP_SYS(mknodat),
    SCMP_SYS(mount),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(move_mount),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(open_tree),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(personality),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(pivot_root),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(ptrace),
    SCMP_SYS(quotactl),
    SCMP_SYS(reboot),
    SCMP_SYS(request_key),
    SCMP_SYS(setdomainname),
    SCMP_SYS(sethostname),
    SCMP_SYS(setns),
    SCMP_SYS(settimeofday),
    SCMP_SYS(swapoff),
    SCMP_SYS(swapon),
    SCMP_SYS(syslog),
    SCMP_SYS(umount2),
    SCMP_SYS(unshare),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(vhangup),
};

struct Release {
  void operator()(void* filter) const noexcept { ::seccomp_release(filter); }
};

}  // namespace

Result<void> drop_capabilities(Mounts mounts) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno(errno, "no_new_privs");
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return fail_errno(errno, "capget");
  auto const kept =
      (1u << CAP_DAC_READ_SEARCH) | (mounts == Mounts::yes ? 1u << CAP_SYS_ADMIN : 0u);
  sets[0].permitted &= kept;
  sets[1].permitted = 0;
  for (auto& set : sets) {
    set.effective = set.permitted;
    set.inheritable = 0;
  }
  if (::syscall(SYS_capset, &header, sets.data()) != 0) return fail_errno(errno, "capset");
  return {};
}

Result<void> refuse_system_calls() {
  std::unique_ptr<void, Release> const filter(::seccomp_init(SCMP_ACT_ALLOW));
  if (!filter) return fail_errno(ENOMEM, "seccomp");
  if (auto const n = ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1); n != 0) {
    return fail_errno(-n, "seccomp");
  }
  for (auto const call : refused) {
    auto const n = ::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), call, 0);
    if (n != 0 && n != -EDOM) return fail_errno(-n, "seccomp");  // EDOM: not on this machine
  }
  if (auto const n = ::seccomp_load(filter.get()); n != 0) return fail_errno(-n, "seccomp");
  return {};
}

}  // namespace mount_oci
