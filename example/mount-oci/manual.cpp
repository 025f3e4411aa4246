// SPDX-License-Identifier: Apache-2.0
// The manual pages.
#include "manual.hpp"

namespace mount_oci {
namespace {

constexpr std::string_view overview =
    R"(mount-oci - mount unmodified OCI images without downloading them

SYNOPSIS
  mount-oci [mount] [-t TYPE] [-o LIST]... IMAGE MOUNTPOINT
  mount-oci umount TARGET | --all
  mount-oci status [TARGET]
  mount-oci reattach TARGET | --all
  mount-oci serve [-o LIST]... (--socket PATH | --listen HOST:PORT) IMAGE
  mount-oci registry [OPTION]... DIR
  mount-oci COMMAND [-o LIST]... IMAGE [PATH]...
  mount-oci COMMAND --help
  mount-oci --help | --version

COMMANDS
  mount     mount an image, or a layer of it; done when no command is named
  umount    unmount it and end the program that serves it
  status    how mounts are doing
  reattach  serve a mount again whose programs have died
  disconnect, gc
            end a device by force; forget mounts that are gone
  serve     serve the same bytes to NBD clients (nbdcopy, qemu, nbd-client)
  registry  be a read-only registry over an OCI image layout, for tests and benches

  index     make the indexes that the other commands need, ahead of time or as files
  ls, cat, stat, find
            look into an image without mounting it
  extract   unpack it, to a directory or as a tar
  fsck      check it
  image     show its layers

Installed under the name mount.erofs.nbd or mount.erofs, the program is the helper that
`mount -t erofs.nbd` runs.

COMMON OPTIONS
  -v, --verbose   say more; twice: everything
  -d, --debug N   0 errors, 2 warnings (default), 3 information, 7 everything
  -h, --help      print this and exit
  -V, --version   print the version and exit
  --log FORMAT    text (default) or json: one object a line with time, level, pid, message
  --log-file PATH append messages to this file; else standard error, and syslog for a daemon

EXIT STATUS
  0  success
  1  the command line, a reference or a file that was named means nothing
  2  the system refused something, or serving ended with an error
  32 the image could not be opened, attached or mounted, or not be unmounted
)";

constexpr std::string_view mount_page = R"(mount-oci mount - mount an OCI image, or a layer of one

SYNOPSIS
  mount-oci [mount] [OPTION]... IMAGE MOUNTPOINT
  mount.erofs.nbd IMAGE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o LIST] [-t TYPE]

DESCRIPTION
  Mounts the image in the best way that this machine has, and says in a line which and why. Bytes are
  fetched from the registry when they are read. Returns when files can be read; a daemon stays
  behind and ends with umount(8).

  A layer that the index store does not know is read once to make its index, all such layers side by
  side, with a progress bar on a terminal; after that, and for the next mount, only what is used is
  fetched.

IMAGE
  [REGISTRY/]REPOSITORY[:TAG][@DIGEST]  in a registry; Docker Hub if none is named
  oci:DIRECTORY[:TAG | @DIGEST]         in an OCI image layout
  file:PATH, /PATH, ./PATH              a blob by itself

WHICH BYTES ARE MOUNTED
  All layers as one file system, or with oci.layer or oci.blob that one. A layer may be a tar, gzipped
  or not, or by itself an EROFS image. Layers in zstd are refused. With an index of one's own, one
  layer:

  oci.tarindex and oci.zinfo   the tarindex, then the decompressed tar.gz
  oci.tarindex                 the tarindex, then the blob, which is a plain tar
  oci.zinfo                    the decompressed blob, which is a gzipped EROFS image

OPTIONS
  -o, --options LIST    words separated by commas; repeatable, see below
  -t, --types TYPE      erofs (default): any way; erofs.nbd: netlink or ioctl; erofs.fuse: fuse-file or
                        fuse-tree
  --attach HOW          one way, or auto (default); see below
  --writable[=DIR]      let the mount be changed; see below
  --foreground          serve in this process until the mount is gone; tells systemd when ready;
                        SIGTERM unmounts
  -f, --fake            open and check the image, but attach and mount nothing
  -N, --namespace NS    mount in the mount namespace of a process id or a path; by netlink or ioctl only
  -n, -s                accepted and ignored
  -u, --unmount         as `mount-oci umount`
  --disconnect DEVICE   as `mount-oci disconnect`
  --reattach TARGET     as `mount-oci reattach`
  --no-supervise        one process serves the mount, which ends with it. Without this, a supervisor
                        keeps the device or the FUSE connection and replaces the process that reads
                        when that dies or hangs; reads only wait meanwhile
  --dead-timeout SECONDS
                        how long reads wait, by netlink, when the supervisor has died, too, for
                        `mount-oci reattach`, 300
  --metrics ADDRESS     numbers for Prometheus, over HTTP on HOST:PORT of this machine alone, or on a
                        unix socket whose path begins with a slash
  --journal DIR         where mounts are written down, for status, reattach, gc and umount --all;
                        default: /run/erofs_oci for root, else $XDG_RUNTIME_DIR/erofs_oci. Never a
                        secret: only where it came from

WAYS
  By looking at what there is, auto takes the first of these; -v says why not the ones before it. A
  way that was taken and fails says why; no other is tried then.

  netlink    the kernel's EROFS on a network block device, which outlives its server. Needs root, nbd
             with netlink, and Linux 6.4 or newer unless the layer is an EROFS image
  ioctl      the same where nbd cannot be reached by netlink
  fuse-file  the kernel's EROFS on a file that FUSE serves: by itself from Linux 6.12.2 on, else
             through a loop device. Needs root; no nbd
  fuse-tree  the files by FUSE. For users too, by fusermount3 of Debian's package fuse3; then only that
             user sees them, nosuid and nodev

  When a daemon was killed, files answer with errors; `mount-oci umount MOUNTPOINT`, umount(8) or
  fusermount3 -u takes the rest away.

WRITABLE MOUNTS
  With --writable an overlay keeps what is changed; the image stays as it is. With DIR the changes are
  kept in DIR/upper (and DIR/work is used) for the next mount of the same image; DIR has to be on ext4,
  xfs, btrfs or tmpfs. Without, they are in memory and go with the mount. Users without root need
  fuse-overlayfs and a DIR, and own all files there. One umount ends all of it.

WORDS OF -o
  A value with a comma is written in double quotes, oci.tarindex="a,b"; a backslash keeps a quote,
  a comma or a backslash from meaning anything.

  oci.blob=[sha256:]HEX        the layer with this digest
  oci.layer=N                  the layer with this number, from 0
  oci.platform=OS/ARCH[/VARIANT]
                               which image of a multi-platform image; default: this machine's
  oci.tarindex=PATH            EROFS image of the metadata, as `mkfs.erofs --tar=i` makes it
  oci.zinfo=PATH               gzip checkpoints, as `mkfs.erofs --gzinfo=PATH` makes them
  oci.store=DIR|none           where indexes are kept; default: /var/lib/erofs_oci for root, else
                               $XDG_CACHE_HOME/erofs_oci or ~/.cache/erofs_oci
  oci.soci=trusted|bound|none  which SOCI indexes of the registry are taken in place of reading a layer
                               that has no index yet: those that the image's manifest names (bound),
                               and, for an image asked for by tag, those that refer to it (trusted)
  oci.username=NAME            log in to the registry
  oci.password_file=PATH       with the first line of this file as password
  oci.password=TEXT            with this password; it is taken out of the process list at once, but
                               not before another process may have seen it
  oci.insecure[=0|1]           use http
  oci.ca=PATH                  trust these PEM certificates in place of the system's
  oci.mirror=[http[s]://]REGISTRY
                               ask this registry first, the image's own when it fails; repeatable
  oci.cache=SIZE               decompressed data kept in memory, 256M
  oci.connections=N            requests in flight at a time, 4
  oci.timeout=SECONDS          longest that one read may take before it fails, 30
  oci.retry=SECONDS|off        how long a read is tried again while the registry fails; default: until
                               oci.timeout
  oci.readahead=SIZE           what the kernel reads ahead, 1M

  ro rw nosuid suid nodev dev noexec exec sync async noatime atime relatime norelatime nodiratime
  diratime loud remount move   as mount(8) means them; the mount is read-only in any case
  defaults quiet user nouser users auto noauto nofail _netdev owner group x-*
                               ignored
  Other words are handed to the kernel's EROFS.

  Without oci.username, credentials are looked up where docker and podman keep them.

EXAMPLES
  mount-oci registry.example.com/app:1.2 /mnt
  mount-oci -t erofs.nbd -o oci.blob=sha256:12...,oci.platform=linux/amd64,\
oci.tarindex=layer.erofs,oci.zinfo=layer.zinfo registry.example.com/app:1.2 /mnt

EXIT STATUS
  0 mounted, 1 wrong command line, 2 the system refused something, 32 not mounted
)";

constexpr std::string_view serve_page = R"(mount-oci serve - serve an image to NBD clients

SYNOPSIS
  mount-oci serve [-o LIST]... (--socket PATH | --listen HOST:PORT) IMAGE

DESCRIPTION
  Serves, read-only, the bytes that `mount-oci mount` would mount. Prints the NBD URI on standard
  output when clients can connect. Ends on SIGTERM or SIGINT; a socket file is removed then.
  IMAGE and the words of -o are those of `mount-oci mount --help`.

OPTIONS
  --socket PATH         a unix socket, made with mode 0600
  --listen HOST:PORT    a TCP port; 0 takes a free one

EXAMPLE
  mount-oci serve --socket /tmp/s oci:image &
  nbdcopy 'nbd+unix:///?socket=/tmp/s' disk.img

EXIT STATUS
  0 ended by a signal, 1 wrong command line, 2 failed
)";

constexpr std::string_view registry_page =
    R"(mount-oci registry - a read-only registry over an OCI image layout

SYNOPSIS
  mount-oci registry [OPTION]... DIR

DESCRIPTION
  Serves the image layout DIR (as `skopeo copy ... oci:DIR:TAG` makes it) under every repository name.
  Prints its URL on standard output when clients can connect. Ends on SIGTERM or SIGINT.
  Made for tests: it can ask for credentials, redirect, be slow and be wrong.

OPTIONS
  --listen HOST:PORT     default 127.0.0.1:0, which takes a free port
  --cert PATH --key PATH serve https with this certificate
  --username NAME --password-file PATH
                         ask for these credentials: Basic, or at the token endpoint
  --token-ttl SECONDS    ask for a bearer token, which lives so long
  --redirect-blobs       redirect blobs to URLs on another port that are good for a while and refuse
                         an Authorization header
  --redirect-ttl SECONDS for so long, 60
  --latency MS           wait before each answer
  --bandwidth SIZE       bytes a second of each blob answer
  --fail-every N[:STATUS]
                         answer every N-th blob request with STATUS, 503
  --fault KIND[:N]       make every N-th answer to a range of a blob wrong, N = 1:
                           ignore-range  200 and the whole blob
                           short         half of the body, then the end of the connection
                           wrong-range   a Content-Range one byte later
                           wrong-total   a Content-Range with another size
                           corrupt       one byte of the body flipped
                           encoded       Content-Encoding: gzip
                           reset         half of the body, then a TCP reset
                           hang          no answer
  --count FILE           write the counters to FILE at the end

ENDPOINTS
  /v2/, manifests by tag and digest, blobs with ranges, tags/list
  GET /_stats            counters as JSON: requests, blob_requests, range_requests, bytes, ...
  POST /_stats/reset     set them to 0

EXIT STATUS
  0 ended by a signal, 1 wrong command line, 2 failed
)";

}  // namespace

std::string_view manual(Command topic) {
  switch (topic) {
    case Command::mount: return mount_page;
    case Command::serve: return serve_page;
    case Command::registry: return registry_page;
    default: break;
  }
  auto page = reading_manual(topic);
  if (page.empty()) page = record_manual(topic);
  return page.empty() ? overview : page;
}

}  // namespace mount_oci
