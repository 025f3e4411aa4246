// SPDX-License-Identifier: Apache-2.0
/// @file
/// Confines a process before it reads what others have made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

#include "process.hpp"

namespace mount_oci {

/// What a process may still do once confine() has returned. In any case it has no_new_privs, can
/// start no program and no process, and gets from a seccomp filter ENOSYS for each system call that
/// is not on a list.
struct Confinement {
  /// Root becomes reader_user(). False: it stays root, to write what belongs to others.
  bool own_user = true;
  /// Connects to hosts of the internet, and reads what resolves and authenticates them.
  bool network = false;
  /// Serves clients of sockets that it listens on.
  bool accepts = false;
  /// Root reads files of other users below `reads` until end_opening().
  bool reads_all = false;
  /// Makes nodes and links, and sets owners, modes and attributes; with the capabilities that root
  /// needs for it.
  bool makes_files = false;
  std::vector<std::string> reads{};   ///< files and directories, the latter with all below
  std::vector<std::string> writes{};  ///< directories below which files are made and removed
};

/// The user that reads images for root: `mount-oci` if there is such a user, else 65123, which
/// nobody has and which owns nothing but index stores.
[[nodiscard]] uid_t reader_user();

/// Confines the calling process, which has one thread, for ever. What is not there of `reads` and
/// `writes` stays inaccessible. Lets it lock as much memory as it wants.
/// @param log  is told if the kernel has no Landlock; what `reads` and `writes` say is then left to
///             the owners and modes of files
/// @error{an errno, as the system call that the message names. Also if there is no Landlock, and
/// root is to stay root}
[[nodiscard]] Result<void> confine(Confinement const& what, Log const& log);

/// confine() for root; for other users as far as it goes. An error of root's is final unless
/// `allow_unconfined` is set: then it is a warning, and the rest is done.
/// @error{as confine() says; the message names the option}
[[nodiscard]] Result<void> confine_or_fail(Confinement const& what, bool allow_unconfined,
                                           Log const& log);

/// Ends what Confinement::reads_all allows, in all threads.
void end_opening() noexcept;

/// Makes the directory of an index store, so that confine() finds it. Root gives it to
/// reader_user(), with all that is in it.
/// @error{an errno, as mkdir(2) and chown(2)}
[[nodiscard]] Result<void> give_store(std::string const& path);

/// The owner that an index store at `path` must have for this process to use it.
[[nodiscard]] uid_t store_owner(std::string const& path);

}  // namespace mount_oci
