// SPDX-License-Identifier: Apache-2.0
// The manual pages of what becomes of mounts.
#include "manual.hpp"

namespace mount_oci {
namespace {

constexpr std::string_view umount_page = R"(mount-oci umount - end mounts

SYNOPSIS
  mount-oci umount TARGET
  mount-oci umount --all
  mount-oci -u TARGET

DESCRIPTION
  TARGET is a mount point, or an NBD device that is not mounted. Unmounts, disconnects the device and
  waits, at most 10 seconds, until its daemon is gone. umount(8) does the same without the waiting.

OPTIONS
  -a, --all      all mounts that are written down
  --journal DIR  where they are, see `mount-oci mount --help`

EXIT STATUS
  0 done, 1 wrong command line, 32 busy or failed
)";

constexpr std::string_view disconnect_page = R"(mount-oci disconnect - end a device by force

SYNOPSIS
  mount-oci disconnect DEVICE
  mount-oci --disconnect DEVICE

DESCRIPTION
  Ends an NBD device, mounted or not, served or not. Reads of what is mounted from it fail from then
  on, also those that wait for a daemon. Unmount it then, and remove its record with `mount-oci gc`.

EXIT STATUS
  0 done, 1 wrong command line, 32 failed
)";

constexpr std::string_view reattach_page = R"(mount-oci reattach - serve mounts again

SYNOPSIS
  mount-oci reattach [OPTION]... TARGET
  mount-oci reattach [OPTION]... --all

DESCRIPTION
  A mount by netlink whose daemon and its supervisor have both died waits; this serves it again, with
  what was written down when it was made: the same bytes, by their digests. Neither a tag nor a
  manifest is looked up. Files that were named, a tarindex or a blob, must be those that they were.
  Credentials are read again from where they came from; a password that was given by hand must be
  given again. Refuses while a daemon lives, unless it is to be replaced. Done when the new daemon has answered a read.

  TARGET is a mount point or an NBD device.

MOUNTS OF MOUNT.EROFS
  TARGET may also be a device that mount.erofs of erofs-utils has set up and mounted, and whose daemon
  has died. Its record in /run/erofsmount/nbd is found by what the kernel keeps for the device; it
  must belong to root, be open to nobody else and be no symbolic link. The image is opened as `mount`
  would open it, and served only if it is what is mounted: an EROFS image, or a layer with its
  tarindex, that has the device's size, as far as mount.erofs has set one, and the block size, the
  numbers of blocks and inodes and the UUID (Linux 6.10) of the mounted file system, which must be
  where this process can see it. A tag that has moved to another image is refused by that. From then
  on the mount is like any other here, and the old record can be removed: nothing reads, writes or
  removes it any more.

  A record does not say how a registry is reached; say it with -o: oci.insecure, oci.ca, oci.mirror.
  A password in it is not used; give it in one of the usual ways. A record by number of layer names
  no tarindex; if there was one, give it: oci.tarindex, oci.zinfo. Refused are objects of S3, and
  devices whose daemon lives, with --replace, too.

OPTIONS
  -a, --all            all mounts that wait; none of mount.erofs
  --replace            also in place of a daemon that lives, such as one of an older version, and
                       also by FUSE: it answers what it was asked and then hands the device or the
                       connection over; no read fails or is done twice. If the new one fails, the old
                       one goes on
  -o, --options LIST   oci.username and oci.password_file, if the password was given by hand; for
                       mounts of mount.erofs also how the image is reached, see above
  --foreground         serve in this process; tells systemd when ready
  --metrics ADDRESS    see `mount-oci mount --help`; it is not written down
  --journal DIR        where mounts are written down, see `mount-oci mount --help`

EXIT STATUS
  0 served again, 1 wrong command line, 32 not
)";

constexpr std::string_view status_page = R"(mount-oci status - how mounts are doing

SYNOPSIS
  mount-oci status [--json] [TARGET]

DESCRIPTION
  Prints for each mount that is written down, or for the one at a mount point or device, what is
  mounted where, who serves it, how often that had to be replaced, how much was read, and the last
  error.

OPTIONS
  --json         a list of objects: name, device, mount_point, image, size, connected, served,
                 supervisor, worker, restarts, requests, bytes, errors, for NBD in_flight and
                 taken_over, last_error, cached (bytes in the worker's memory), complete (no read needs the
                 registry any more)
  --journal DIR  where mounts are written down, see `mount-oci mount --help`

EXIT STATUS
  0 printed, 1 wrong command line, 2 failed
)";

constexpr std::string_view gc_page = R"(mount-oci gc - forget mounts that are gone

SYNOPSIS
  mount-oci gc

DESCRIPTION
  Removes what is written down about mounts whose device is gone, and prints the names of those
  records. A record whose device is there, or whose daemon lives, stays.

OPTIONS
  --journal DIR  where mounts are written down, see `mount-oci mount --help`

EXIT STATUS
  0 done, 1 wrong command line, 2 failed
)";

}  // namespace

std::string_view record_manual(Command topic) {
  switch (topic) {
    case Command::umount: return umount_page;
    case Command::disconnect: return disconnect_page;
    case Command::reattach: return reattach_page;
    case Command::status: return status_page;
    case Command::gc: return gc_page;
    default: return {};
  }
}

}  // namespace mount_oci
