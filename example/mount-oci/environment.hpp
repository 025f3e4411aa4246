// SPDX-License-Identifier: Apache-2.0
/// @file
/// clean_environment(): root's environment without what other users have put into it.
#pragma once

namespace mount_oci {

/// For root, and for a program with capabilities or set-user-id; does nothing for other users. Of
/// PATH only directories stay that root owns and not everybody may write to; if that is none, the
/// usual ones. What names a file or directory of another user goes: `sudo -E` passes it on. So does
/// what makes programs load code. Before any thread is started; the programs that are run later
/// inherit the result.
void clean_environment();

}  // namespace mount_oci
