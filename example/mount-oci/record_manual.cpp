// SPDX-License-Identifier: Apache-2.0
// The manual pages of the commands about existing mounts.
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
  waits, at most 10 seconds, until worker and supervisor have ended. umount(8) does the same without
  waiting. If they serve other mounts of the image, too, they go on, and end with the last mount.

OPTIONS
  -a, --all      all recorded mounts, each at all of its mount points
  --journal DIR  directory of the records, see `mount-oci mount --help`
  -n, --no-mtab, -r, --read-only
                 accepted and ignored

EXIT STATUS
  0 done, 1 wrong command line, 32 busy or failed
)";

constexpr std::string_view disconnect_page = R"(mount-oci disconnect - end a device by force

SYNOPSIS
  mount-oci disconnect DEVICE
  mount-oci --disconnect DEVICE

DESCRIPTION
  Ends an NBD device, mounted or not, served or not. From then on all reads of a file system on it
  fail, also those that wait for a worker. Unmount it then, and remove its record with `mount-oci gc`.

OPTIONS
  --journal DIR  directory of the records, see `mount-oci mount --help`

EXIT STATUS
  0 done, 1 wrong command line, 32 failed
)";

constexpr std::string_view reattach_page = R"(mount-oci reattach - serve mounts again

SYNOPSIS
  mount-oci reattach [OPTION]... TARGET
  mount-oci reattach [OPTION]... --all

DESCRIPTION
  When worker and supervisor of a mount by netlink have died, its reads wait. reattach starts new ones,
  which serve the same bytes: the mount's record names them by their digests. Neither a tag nor a
  manifest is looked up. A tarindex or blob that is a file must be unchanged. Credentials are read
  again from their source; a password that was given by hand must be given again, unless it is in the
  configuration file that counted at the mount. That file and the directories of oci.hosts are the
  same as then. Refuses while the mount is served, unless --replace is given. Returns when the new
  worker has answered a read.

  TARGET is a mount point or an NBD device.

MOUNTS OF MOUNT.EROFS
  TARGET may also be a device that mount.erofs of erofs-utils has set up and mounted, and whose daemon
  has died. The kernel's identifier of the device leads to its record in /run/erofsmount/nbd, which
  must belong to root, be closed to other users and be no symbolic link. reattach opens the image as
  `mount` would, and serves it only if it is the mounted one: an EROFS image, or a layer with its
  tarindex, with the device's size, if mount.erofs has set one, and with the block size, the numbers
  of blocks and inodes and the UUID (Linux 6.10) of the mounted file system, which must be mounted in
  this process's mount namespace. So a tag that has moved to another image is refused. From then on
  the mount is like any other of mount-oci. The old record is not used any more and can be removed.

  A record does not tell how to reach a registry; use -o oci.insecure, oci.ca and oci.mirror. A
  password in it is not used; give it in one of the usual ways. A record that names a layer by number
  has no tarindex; if the layer was mounted with one, give it by oci.tarindex and oci.zinfo. Objects
  of S3 are refused, and so are devices whose daemon lives, also with --replace.

OPTIONS
  -a, --all            all mounts that wait; none of mount.erofs
  --replace            also replace a worker and supervisor that live, such as those of an older
                       version, and also by FUSE: they answer their requests and then hand over the
                       device; by FUSE, the connection at once, with requests that still wait for
                       the registry. No read fails. If the new ones fail, the old ones serve on
  -o, --options LIST   oci.username and oci.password_file, if the password was given by hand; for
                       mounts of mount.erofs also how to reach the image, see above
  --foreground         serve in this process; tells systemd when ready
  --metrics ADDRESS    see `mount-oci mount --help`; it is not recorded
  --no-supervise       see `mount-oci mount --help`
  --dead-timeout SECONDS
                       see `mount-oci mount --help`
  --journal DIR        directory of the records, see `mount-oci mount --help`

EXIT STATUS
  0 served again, 1 wrong command line, 32 not served
)";

constexpr std::string_view status_page = R"(mount-oci status - show the state of mounts

SYNOPSIS
  mount-oci status [--json] [TARGET]

DESCRIPTION
  Prints for each recorded mount, or for the one at a mount point or device: the image and the mount
  points, the processes that serve it, how often the worker was replaced, how much was read, and the
  last error. Then how many layers are proved, pending and failed: made by reading the layer or compared
  with it, by an index from elsewhere that nobody has compared yet, or compared and wrong. If one has
  failed, up to 32 files of it that were read before. For a layer without an index also how much of it
  the present worker has read, and whether its digest is right; for pending ones, how much of them is
  proved. After MISMATCH stands what was found to be wrong: all reads fail then, also by other workers.
  See oci.verify in `mount-oci mount --help`.

OPTIONS
  --json         a list of objects: name, device, mount_point (the first one), mount_points (all that are
                 seen in this mount namespace), image, size, connected, served,
                 supervisor, worker, restarts, requests, bytes, errors, for NBD in_flight and
                 taken_over, last_error, cached (bytes in the worker's memory), memory (bytes that its
                 caches take), complete (all of the image is cached), mismatch (text, empty: none),
                 layers (digest, state, problem), read_before (files, names) if one of them has failed,
                 verity (root hash by which the kernel checks, empty: it does not),
                 for layers that are not proved from the start proof (seen, total, proved)
  --journal DIR  directory of the records, see `mount-oci mount --help`

EXIT STATUS
  0 printed, 1 wrong command line, 2 failed
)";

constexpr std::string_view gc_page = R"(mount-oci gc - remove what mounts have left on the disk

SYNOPSIS
  mount-oci gc [--keep=SIZE|AGE] [-o oci.store=DIR]

DESCRIPTION
  Removes the records of mounts whose device or FUSE mount is gone, with their own indexes, and prints
  their names. Keeps a record whose device exists or whose supervisor lives.

  With --keep it also removes entries of the store of indexes, those that were unused longest first,
  and prints the path and the bytes of each. What a mount uses at the moment stays. A later mount of
  such an image makes the index again. Without --keep the store only loses entries when it would
  become larger than 16 GiB.

OPTIONS
  --keep SIZE    keep at most so many bytes of indexes: 4G, 500M
  --keep AGE     keep the indexes that were used so lately: 12h, 30d, 8w
  -o oci.store=DIR  the store, if it is not the usual one
  --journal DIR  directory of the records, see `mount-oci mount --help`

EXIT STATUS
  0 done, 1 wrong command line, 2 failed
)";

constexpr std::string_view cache_page = R"(mount-oci cache - what is kept of registries

SYNOPSIS
  mount-oci cache ls | du [-o LIST]... [--json]
  mount-oci cache verify [-o LIST]... [--json] [DIGEST]...
  mount-oci cache prune --keep=SIZE|AGE [-o LIST]... [--json]
  mount-oci cache rm [-o LIST]... [--json] DIGEST... | --all

DESCRIPTION
  Layers are kept on disk as registries sent them, in whole or in part, and limited by oci.cache_size.
  All of this, and removing the directory by other means, is safe while images are mounted: what is
  missing is fetched again.

  ls      each blob, the one that was unused longest first
  du      how much there is, and how much there may be
  verify  reads all that is kept, and removes what is damaged; a mount does that with what it reads
  prune   removes what was unused longest, until at most SIZE is left (4G), or what was unused for AGE
          (12h, 30d, 8w)
  rm      removes blobs; --all: all of them, manifests and what tags led to. Of a blob that somebody
          reads, an empty file stays

OPTIONS
  -a, --all   for rm: all blobs, manifests and what tags led to
  --keep SIZE|AGE
              for prune: what stays
  --json      a line of JSON for each blob, with sizes in bytes
  -o LIST     oci.cache_dir, oci.cache_size, oci.store: see `mount-oci mount --help`

EXIT STATUS
  0 done, 1 wrong command line or something was damaged, 2 failed
)";

}  // namespace

std::string_view record_manual(Command topic) {
  switch (topic) {
    case Command::umount: return umount_page;
    case Command::disconnect: return disconnect_page;
    case Command::reattach: return reattach_page;
    case Command::status: return status_page;
    case Command::cache: return cache_page;
    case Command::gc: return gc_page;
    default: return {};
  }
}

}  // namespace mount_oci
