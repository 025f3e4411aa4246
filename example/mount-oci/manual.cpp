// SPDX-License-Identifier: Apache-2.0
// The manual pages.
#include "manual.hpp"

#include <algorithm>

namespace mount_oci {
namespace {

constexpr std::string_view overview =
    R"(mount-oci - mount unmodified OCI images without unpacking them

SYNOPSIS
  mount-oci [mount] [-t TYPE] [-o LIST]... IMAGE MOUNTPOINT
  mount-oci umount TARGET | --all
  mount-oci status [TARGET]
  mount-oci reattach TARGET | --all
  mount-oci serve [-o LIST]... (--socket PATH | --listen HOST:PORT) IMAGE
  mount-oci COMMAND [-o LIST]... IMAGE [PATH]...
  mount-oci diff [-o LIST]... IMAGE IMAGE [PATH]...
  mount-oci cp [-o LIST]... [-rpa] IMAGE:PATH LOCAL
  mount-oci COMMAND --help
  mount-oci --help | --version
  mount-oci help [COMMAND | mount-oci.conf | mount.erofs.nbd]

COMMANDS
  mount     mount an image, or a layer of it; done when no command is named
  umount    unmount it and end the processes that serve it
  status    show the state of mounts
  reattach  serve a mount again whose processes have died
  disconnect
            end a device by force
  gc        remove records of mounts that are gone
  serve     serve the same bytes to NBD clients (nbdcopy, qemu, nbd-client)

  pull      fetch all of an image onto this machine, without unpacking it
  cache     show, check or remove what is kept of registries
  index     make the indexes that the other commands need, ahead of time or as files
  ls, cat, stat, find, tree, du
            look into an image without mounting it
  diff      compare two images
  cp        copy a file or a directory out of it
  extract   unpack it, to a directory or as a tar
  fsck      check it
  verify    read all of it and prove that it is what it is said to be
  image     show its layers
  doctor    find out why it cannot be mounted, or is slow

Installed under the name mount.erofs.nbd, mount.erofs.fuse or mount.erofs, the program is the helper
that `mount -t erofs.nbd` runs: see `mount-oci help mount.erofs.nbd`.

COMMON OPTIONS
  -v, --verbose   write more messages; twice: all
  -q, --quiet     write errors only, and no progress; as -d 0
  -d, --debug N   0 errors, 2 warnings (default), 3 information, 7 everything
  -h, --help      print this and exit
  -V, --version   print the version and exit
  --log FORMAT    text (default) or json: one object a line with time, level, pid, message
  --log-file PATH
                  append messages to this file; default: standard error, and syslog for processes
                  in the background

  What is written has no colours; on a terminal, one line that shows progress is erased at the end.

EXIT STATUS
  0    success
  1    the command line, the configuration file or a reference is wrong, a path that is asked for is
       not in the image, or a check has found something
  2    the system or the registry refused an operation, or serving ended with an error
  32   of mount, umount, disconnect and reattach, in place of 2: nothing was mounted, unmounted or
       served. mount(8) uses the same number
  141  standard output was closed early, as by head(1)

  That of diff is as diff(1) has it: 0 the same, 1 not the same, 2 anything else.

FILES
  /etc/mount-oci.conf      words of -o for all images or those of a registry
  /etc/mount-oci/NAME.conf  what mount-oci@NAME.service of systemd mounts
  /var/lib/erofs_oci       indexes of layers (oci.store), for root
  /var/cache/erofs_oci     layers and manifests as registries sent them (oci.cache_dir), for root
  /run/erofs_oci           records of mounts (--journal), for root
)";

constexpr std::string_view mount_page = R"(mount-oci mount - mount an OCI image, or a layer of one

SYNOPSIS
  mount-oci [mount] [OPTION]... IMAGE MOUNTPOINT
  mount.erofs.nbd IMAGE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o LIST] [-t TYPE]

DESCRIPTION
  Mounts the image in the first of the WAYS below that this machine supports, and logs its choice with
  the reason. Returns when files can be read. Two processes stay in the background until the mount
  ends: a worker, which reads the image and answers reads, and a supervisor, which replaces the worker
  when that dies or hangs. The worker of an image in a registry has a third one look up credentials. A
  worker of root's runs as the user mount-oci if there is one, else as user 65123. File data are fetched
  from the registry when they are read.

  The first mount of an image reads each layer that has no index in the store once, in full, to make
  its index; all such layers at the same time, with a progress bar on a terminal. What is fetched is kept
  on disk, for all mounts of the same user (oci.cache_dir), and is not fetched again. At later mounts
  only the parts that are read, and not kept, are fetched.

SEVERAL MOUNTS OF ONE IMAGE
  If root mounts an image that the same user has mounted in this mount namespace already, no further
  processes are started: the new mount is a clone of the other one, as by mount --bind, and both are
  served from the same memory. The registry is asked what the image is, as at any mount; it must be the
  same image, by its digest, with the same layers, and what -o, the configuration file, the environment
  and --attach say of it must be the same, too, but for ro, nosuid, nodev, noexec and the words about
  atime, which each mount has for itself. Each mount is ended by itself, in any order; the processes end
  with the last one. They stay in the control group of the mount that has started them: what kills that
  group, such as the end of a systemd service that has mounted the image, ends all of the mounts.

  A mount has processes of its own with --no-share or oci.share=no, for itself alone, and also with
  --foreground, --no-supervise, --metrics, --writable, -N and oci.password (in place of which
  oci.password_file can be shared). Nothing is shared with a mount of which wrong bytes were found, that
  reattach has taken over or that another version of mount-oci serves, and nothing by users who may not
  mount without fusermount3.

IMAGE
  [REGISTRY/]REPOSITORY[:TAG][@DIGEST]  in a registry; Docker Hub if none is named
  oci:DIRECTORY[:TAG | @DIGEST]         in an OCI image layout
  file:PATH, /PATH, ./PATH              a blob by itself

WHICH BYTES ARE MOUNTED
  All layers as one file system, or with oci.layer or oci.blob that one. A layer may be a tar, gzipped
  or not, or an EROFS image, whose metadata are made anew like a tar's. Layers in zstd are refused. One
  layer can be mounted with index files of your own:

  oci.tarindex and oci.zinfo   the tarindex, then the decompressed tar.gz
  oci.tarindex                 the tarindex, then the blob, which is a plain tar
  oci.zinfo                    the decompressed blob, which is a gzipped EROFS image
  oci.native=yes               the blob as it is, which is an EROFS image

  Such files hold no digests. If the store has an index of the layer, what is read is checked by it.
  Else bytes are served before they can be checked, and mount warns of it; see oci.verify. The kernel
  parses metadata that the registry sends with the last two forms; before, they are checked as
  `mount-oci fsck` does it.

OPTIONS
  -o, --options LIST    words separated by commas; repeatable, see below
  --config FILE         take words of -o from this file, too; see CONFIGURATION FILE; none: from no file
  -t, --types TYPE      erofs (default): any way; erofs.nbd: netlink or ioctl; erofs.fuse: fuse-file or
                        fuse-tree. For mount(8), erofs.nbd is any way, too
  --attach HOW          one way, or auto (default); see below
  --writable[=DIR]      let the mount be changed; see below
  --foreground          serve in this process until the mount is gone; tells systemd when ready;
                        SIGTERM unmounts
  -f, --fake            open and check the image, but attach and mount nothing
  -N, --namespace NS    mount in the mount namespace of a process id or a path; by netlink or ioctl only
  -n, --no-mtab         accepted and ignored
  -s, --sloppy          leave out words of -o that nobody knows, in place of an error
  -u, --unmount         as `mount-oci umount`
  --disconnect DEVICE   as `mount-oci disconnect`
  --reattach TARGET     as `mount-oci reattach`
  --allow-unconfined    read the image even if the process that does cannot be confined, as root, too;
                        otherwise it is an error of root's
  --no-supervise        one process serves the mount, and the mount ends with it; root has to add
                        --allow-unconfined, since that process is not confined. Without this option, a
                        supervisor keeps the device or the FUSE connection and replaces the worker
                        when that dies or hangs; reads wait meanwhile
  --no-share            as oci.share=no: a server for this mount alone
  --start-list off|record|use|all
                        as oci.start_list
  --dead-timeout SECONDS
                        by netlink, when worker and supervisor have died: how long reads wait for
                        `mount-oci reattach`, 300
  --metrics ADDRESS     serve numbers for Prometheus over HTTP, on HOST:PORT of the loopback interface
                        or on a unix socket, whose path begins with a slash
  --journal DIR         directory of the records of mounts, for status, reattach, gc and umount --all;
                        default: /run/erofs_oci for root, else $XDG_RUNTIME_DIR/erofs_oci. A record
                        holds no secret

WAYS
  auto chooses the first of these ways that the machine supports; with -v, messages tell why the ways
  before it are not possible. If the chosen way fails, mount fails and tries no other.

  netlink    the kernel's EROFS on a network block device, which outlives worker and supervisor. Needs
             root, nbd with netlink, and Linux 6.4 or newer unless the layer is an EROFS image
  ioctl      the same where nbd cannot be reached by netlink
  fuse-file  the kernel's EROFS on a file that FUSE serves: by itself from Linux 6.12.2 on, else
             through a loop device. Needs root; no nbd
  fuse-tree  the files by FUSE. For users too, by fusermount3 of Debian's package fuse3; then only that
             user sees them, nosuid and nodev

  When worker and supervisor were killed, reads of the files fail, by netlink after --dead-timeout;
  `mount-oci umount MOUNTPOINT`, umount(8) or fusermount3 -u removes the mount.

WRITABLE MOUNTS
  With --writable an overlay keeps the changes; the image is not changed. With DIR the changes are
  kept in DIR/upper (and DIR/work is used) for the next mount of the same image; DIR has to be on ext4,
  xfs, btrfs or tmpfs. Without DIR they are in memory and end with the mount. Users without root need
  fuse-overlayfs and a DIR, and own all files there. One umount ends mount and overlay.

WORDS OF -o
  A value with a comma is written in double quotes, oci.tarindex="a,b"; a backslash makes a quote,
  a comma or a backslash a plain character.

  oci.blob=[sha256:]HEX        the layer with this digest
  oci.layer=N                  the layer with this number, from 0
  oci.first_layers=N           the N lowest layers of the image as one file system, 1 or more
  oci.platform=OS/ARCH[/VARIANT]
                               which image of a multi-platform image; default: this machine's
  oci.tarindex=PATH            EROFS image of the metadata, as `mkfs.erofs --tar=i` makes it
  oci.zinfo=PATH               gzip checkpoints, as `mkfs.erofs --gzinfo=PATH` makes them
  oci.native[=yes|no]          mount an EROFS image that is the only layer as it is; default: no, it is
                               read once, checked and indexed. Needed if its data lie in inodes or
                               are compressed
  oci.verify=lazy|background|before|off
                               when layers are proved whose index came from elsewhere (oci.index), or
                               that have none. lazy (default): once every byte of the layer is on this
                               machine, by reads or by `mount-oci pull`, all of it is compared with its
                               digest, the image's configuration and the index. background: the same,
                               and the rest is fetched meanwhile, a MiB at a time, while no read waits.
                               before: before anything is mounted, served or read, with progress; a
                               layer whose index is wrong is read instead, and one without an index is
                               refused. off: not at all. If something is wrong, all reads fail from
                               then on, also after reattach, such an index is not used again, and status
                               says what and which files were read before. Commands that read and end,
                               such as ls, prove nothing unless before is set
  oci.verity=try|require|off|HEX
                               whether the kernel checks by dm-verity all that it reads of the mount,
                               so that a worker that lies causes EIO and never a wrong byte; by netlink
                               and fuse-file. try (default): if the store has the Merkle tree that
                               `mount-oci index --verity` makes, and the kernel has dm-verity; -v tells
                               why not. require: nothing is mounted without. HEX: as require, and the
                               tree must have this root hash; else it is the one that the first worker
                               names before any file is read. Both fetch a tree that the store has not
                               from an index artifact that a key of oci.index_key has signed
  oci.store=DIR|none           where indexes are kept; default: /var/lib/erofs_oci for root, else
                               $XDG_CACHE_HOME/erofs_oci or ~/.cache/erofs_oci
  oci.cache_dir=DIR|none       where layers and manifests are kept as registries sent them, an absolute
                               path; default: the directory of oci.store if that is given (none: none),
                               else /var/cache/erofs_oci for root and for others where indexes are.
                               What is kept is checked at each read; a full disk, or one that cannot be
                               written, costs requests and no more. Not recorded for reattach
  oci.cache_size=SIZE          most bytes there, all processes together; default: a tenth of the file
                               system, at most 10G. What was unused longest goes
  oci.pull=always|missing|never
                               when the registry is asked what an image is. always (default): for a tag;
                               if the registry cannot be reached, what the tag was last is used, with a
                               notice. missing: for what is not kept. never: not at all, and the image
                               must be kept in full (`mount-oci pull`). What a digest names is never
                               asked for if it is kept
  oci.index=signed|bound|trusted|none|DIR|oci:DIR
                               which indexes from the registry are used for layers that have none yet,
                               in place of reading these. signed: those that `mount-oci index --push`
                               has put beside the image and that a key of oci.index_key has signed.
                               bound (default): these, and a SOCI index that the image's manifest names.
                               trusted: also those that only refer to the image, if a tag names it;
                               everybody who may push to the repository can put a false one there.
                               none: no index. DIR, an absolute path: also the files that
                               `mount-oci index --output DIR` has made, which are believed. oci:DIR:
                               also what `mount-oci index --output oci:DIR` has put there, which is
                               believed, too, unless oci.index=signed is given besides: then if it is
                               signed. That a registry has no index is remembered for an hour;
                               `mount-oci pull` asks for it again
  oci.index_key=PATH           a public key in PEM, EC on P-256 or Ed25519; repeatable
  oci.username=NAME            log in to the image's registry, and to no mirror, as NAME
  oci.password_file=PATH       with the first line of this file as password
  oci.password=TEXT            with this password; mount-oci removes it from the process list, but
                               another process may see it before
  oci.insecure[=0|1]           use http
  oci.ca=PATH                  trust these PEM certificates in place of the system's
  oci.mirror=[http[s]://]REGISTRY[;resolve]
                               ask this registry first, and the image's own if it fails; repeatable.
                               A mirror is asked for what a digest names, and what it sends is checked;
                               with ;resolve it is believed what a tag means, too. https unless http://
                               is written
  oci.hosts=DIR[:DIR]...|none  where containerd's hosts.toml or docker's certificates of a registry are:
                               DIR/HOST_PORT_, DIR/HOST:PORT or DIR/_default, the first that exists;
                               default: /etc/containerd/certs.d:/etc/docker/certs.d. Their hosts are
                               asked behind oci.mirror
  oci.allow_private[=0|1]      follow a registry in the internet to a private address, too
  oci.memory=SIZE              memory for the image, 512M, or twice oci.cache if that is more. Limits its
                               files (half of it, about a million files), indexes, spans and cache. An
                               image that needs more is refused
  oci.cache=SIZE               of that, decompressed data kept in memory; default and most: half
  oci.idle=SECONDS|off         a mount or server gives memory back when nobody has read for so long, 30,
                               and in any case while programs of this machine wait for memory
  oci.index_size=SIZE          a layer that decompresses to more is not indexed; default: 64G, or 64 times
                               its compressed size if that is more
  oci.index_time=SECONDS       indexing all layers of the image fails after so long, 21600
  oci.connections=N            requests in flight at a time, 4
  oci.start_list=all|record|use|off
                               record which parts of the layers the first minute of a mount or of
                               serve needs, in the store of indexes; use: fetch ahead, as soon as it is
                               open, what earlier ones have recorded, while no read fetches anything.
                               It takes as many requests at a time as oci.connections for itself, and at
                               most an eighth of oci.cache. Default: all, which is both
  oci.hedge=yes|no             send a request whose answer is later than 95 of 100 a second time, and
                               take the answer that comes first; default: yes, for 1 in 20 at most
  oci.share=yes|no             let this mount be served by the processes of another mount of the image,
                               and let other mounts be served by its own; default: yes. See SEVERAL
                               MOUNTS OF ONE IMAGE
  oci.timeout=SECONDS          a read fails after so long, 30
  oci.retry=SECONDS|off        how long a read is retried while the registry fails; default: until
                               oci.timeout
  oci.readahead=SIZE           what the kernel reads ahead, 128K
  oci.writable[=DIR]           as --writable, for fstab(5)

  ro rw nosuid suid nodev dev noexec exec sync async noatime atime relatime norelatime nodiratime
  diratime loud user users owner group remount move
                               as mount(8) means them; but the image is read-only in any case (see
                               oci.writable), and nosuid and nodev are the default: setuid programs
                               and devices of an image work only with suid and dev
  stack                        mount over what is mounted at the directory already; without it that is
                               an error, or success if it is this image and mount(8) runs this program
  defaults quiet nouser auto noauto nofail _netdev x-*
                               ignored
  user_xattr nouser_xattr acl noacl dax dax= cache_strategy= device= fsid= domain_id= directio fsoffset=
  inode_share dirsync lazytime nolazytime mand nomand context= fscontext= defcontext= rootcontext= seclabel
  smackfsdef= smackfsfloor= smackfshat= smackfsroot= smackfstransmute=
                               go to the kernel, whose EROFS may not know all of them
  Another word is an error.

CREDENTIALS
  oci.username with oci.password_file or oci.password, by -o or in the configuration file, count first.
  Else these files are read as docker and podman do it, with the credential helpers that they name; the
  first that knows the registry counts:

  1.  $DOCKER_CONFIG/config.json, else ~/.docker/config.json
  2.  $REGISTRY_AUTH_FILE
  3.  $XDG_RUNTIME_DIR/containers/auth.json

  A file of oci.password_file may be readable for others; who may read it is left to you. For root, it
  must belong to root and be writable for root alone.

CONFIGURATION FILE
  /etc/mount-oci.conf, or the file of --config, has words of -o, for all images or for those of one
  registry; -o counts more. `mount-oci help mount-oci.conf` describes it.

EXAMPLES
  mount-oci registry.example.com/app:1.2 /mnt
  mount-oci -t erofs.nbd -o oci.blob=sha256:12...,oci.platform=linux/amd64,\
oci.tarindex=layer.erofs,oci.zinfo=layer.zinfo registry.example.com/app:1.2 /mnt

EXIT STATUS
  0 mounted, 1 wrong command line, 2 the system refused an operation, 32 not mounted
)";

constexpr std::string_view serve_page = R"(mount-oci serve - serve an image to NBD clients

SYNOPSIS
  mount-oci serve [-o LIST]... (--socket PATH | --listen HOST:PORT) IMAGE

DESCRIPTION
  Serves, read-only, the bytes that `mount-oci mount` would mount, without the zeros behind them. Prints
  the NBD URI on standard output when clients can connect. Ends on SIGTERM or SIGINT; a socket file is
  removed then. Serves 16 clients at once; one that has been silent for a minute makes room for another.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  --socket PATH         a unix socket, made with mode 0600
  --listen HOST:PORT    a TCP port; 0 takes a free one
  --start-list off|record|use|all
                        as oci.start_list
  --allow-unconfined    as `mount-oci mount --help` says

EXAMPLE
  mount-oci serve --socket /tmp/s oci:image &
  nbdcopy 'nbd+unix:///?socket=/tmp/s' disk.img

EXIT STATUS
  0 ended by a signal, 1 wrong command line, 2 failed
)";

constexpr std::string_view helper_page =
    R"(mount.erofs.nbd - mount an OCI image by mount(8) or fstab(5)

SYNOPSIS
  mount -t erofs.nbd [-o LIST] IMAGE MOUNTPOINT
  mount -t erofs.fuse [-o LIST] IMAGE MOUNTPOINT
  mount.erofs.nbd IMAGE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o LIST] [-t TYPE]

DESCRIPTION
  mount(8) runs /sbin/mount.erofs.nbd for the type erofs.nbd, and /sbin/mount.erofs.fuse for the type
  erofs.fuse. Both are mount-oci under another name: they mount IMAGE as `mount-oci mount --help` says,
  with its options and its words of -o.

  erofs.nbd takes the first way that the machine supports: the kernel's EROFS on an NBD device or,
  where no NBD is, on a file that FUSE serves, or the files by FUSE. erofs.fuse takes the last two alone.
  `mount-oci mount --attach` names one.

  An image that is mounted at MOUNTPOINT already is not mounted again, and that is no error: `mount -a`
  may run any number of times. umount(8) ends the mount.

  IMAGE in fstab is a reference or an absolute path; nofail and _netdev are for systemd, which then
  mounts the image when there is a network, and boots on without it. Secrets have no place in fstab,
  which everybody can read: use oci.password_file, or mount-oci.conf(5).

OPTIONS
  -o LIST        words separated by commas, as `mount-oci mount --help` lists them
  -t TYPE        erofs, erofs.nbd or erofs.fuse
  -f             open and check the image, but attach and mount nothing
  -s             leave out words of -o that nobody knows, in place of an error
  -n             accepted and ignored
  -v             write more messages
  -N NAMESPACE   mount in the mount namespace of a process id or a path

EXAMPLES
  mount -t erofs.nbd -o oci.platform=linux/amd64 registry.example.com/app:1.2 /srv/app

  # /etc/fstab
  registry.example.com/app:1.2 /srv/app erofs.nbd _netdev,nofail,oci.timeout=10 0 0
  oci:/srv/images/tools:latest /srv/tools erofs.nbd noauto,user 0 0

EXIT STATUS
  0   mounted, or the same image was mounted there already
  1   wrong command line
  2   the system refused an operation
  32  not mounted
)";

constexpr std::string_view config_page =
    R"(mount-oci.conf - words of -o for all images, or for those of one registry

SYNOPSIS
  /etc/mount-oci.conf

DESCRIPTION
  All commands of mount-oci that read an image read this file if it is there, or the one that --config
  names; --config none reads no file. It has words of -o in TOML, for all images or for those of one
  registry. Registry tables count more than what stands before them, -o counts more than the file.

  Values are texts, numbers, true or false; a word that may be given several times takes an array. Of
  the words without a value, those of mount(8) that `mount-oci mount --help` lists may be true. Words for
  the kernel's EROFS must be given by -o. What is wrong in the file, also in the table of another
  registry, is an error of each command, with the line.

  For root, this file, files of passwords and credentials and hosts.toml must belong to root and be
  writable for root alone. A file with oci.password must not be readable for others.

  A mount's record keeps the path of the file, so reattach reads it again.

EXAMPLE
  oci.timeout = 10
  nosuid = true
  [registry."registry.example.com:5000"]
  oci.mirror = ["https://one.example.com", "https://two.example.com;resolve"]
  oci.username = "me"
  oci.password_file = "/etc/mount-oci.password"
)";

}  // namespace

std::vector<ManualPage> manual_pages() {
  std::vector<ManualPage> pages{{"mount-oci", 8, overview}};
  for (auto const& name : command_names()) {
    pages.push_back({"mount-oci-" + name, 8, manual(command_named(name).value_or(Command::help))});
  }
  pages.push_back({"mount.erofs.nbd", 8, helper_page});
  pages.push_back({"mount-oci.conf", 5, config_page});
  return pages;
}

std::string_view manual_named(std::string_view name) {
  auto const pages = manual_pages();
  auto const found = std::ranges::find(pages, name, &ManualPage::name);
  return found == pages.end() ? std::string_view() : found->text;
}

std::string_view manual(Command topic) {
  switch (topic) {
    case Command::mount: return mount_page;
    case Command::serve: return serve_page;
    default: break;
  }
  auto page = reading_manual(topic);
  if (page.empty()) page = record_manual(topic);
  return page.empty() ? overview : page;
}

}  // namespace mount_oci
