// SPDX-License-Identifier: Apache-2.0
// The manual pages of the commands that read an image.
#include "manual.hpp"

namespace mount_oci {
namespace {

constexpr std::string_view index_page = R"(mount-oci index - make the indexes of an image's layers

SYNOPSIS
  mount-oci index [-o LIST]... [--output DIR] [--verify] [--verity] [--json] IMAGE
  mount-oci index --push [--to REPOSITORY] [--sign-key KEY] [--with-start-list] [--verity]
                  [--mount-from REPOSITORY]... [--all-platforms] [--dry-run] [-o LIST]... [--json] IMAGE
  mount-oci index --output oci:DIR [--sign-key KEY] [--with-start-list] [--verity]
                  [--all-platforms] [--dry-run] [-o LIST]... [--json] IMAGE

DESCRIPTION
  Reads each layer that has no index in the store once, in full, and stores its index for later mount,
  ls or cat commands: the layer's tree, and checkpoints for reading the blob at any offset. Reads
  several layers at the same time. After a signal, the indexes of finished layers stay in the store.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

  With --push, other machines need not read the layers: the indexes go to the registry, beside the
  image, which does not change, and mounts with oci.index find them there. Only indexes that this
  user's store has from reading the layers are pushed. The same layer always gets the same index.
  --output oci:DIR puts the same into an OCI layout, for where there is no registry.

OPTIONS
  --output DIR   also write, for each layer, files that other tools read: NAME.erofs (the tarindex, as
                 `mkfs.erofs --tar=i` makes it), NAME.zinfo (checkpoints, as `mkfs.erofs --gzinfo` makes
                 them; for gzipped layers) and NAME.index (ours). NAME is the layer's digest without
                 `sha256:`, or the name of the file that is the layer
  --output oci:DIR
                 put the indexes into this OCI layout, which is made if it is not there, in place of
                 a registry; mounts with oci.index=oci:DIR find them there
  --verify       read each layer once more and compare it with its index: every byte, and every file's
                 type, attributes, names and place
  --verity       also make the Merkle tree of the image, by which the kernel can check a mount (see
                 oci.verity), and print its root hash: the same one for the same layers. This decodes
                 all layers once, and fetches what of them is not kept. The tree takes a sixteenth of
                 the decoded layers in the store; it counts for the layers that were chosen, together.
                 With --push it goes to the registry, too
  --push         put the indexes into the registry as an artifact that refers to the image
  --to REPOSITORY
                 into this repository, HOST[:PORT]/NAME, in place of the image's own. A mount looks in
                 the repository that it has the image from
  --sign-key KEY sign the artifact with this private key, a PEM file without a passphrase, EC on P-256
                 or Ed25519; `cosign verify --key` checks it, too
  --with-start-list
                 also put there what mounts of the image on this machine have recorded: the start list,
                 and the checkpoints at which it begins. A first mount elsewhere then fetches at once
                 what programs need first
  --mount-from REPOSITORY
                 have the registry take indexes that this repository of its own has, NAME without a
                 host; repeatable
  --all-platforms
                 index and push each platform's image of a list
  --dry-run      make the indexes, tell what would be pushed, and push nothing
  --json         a line of JSON for each layer, with --verity one for the tree (root_hash, device_size,
                 tree_size), and with --push one for each image

EXIT STATUS
  0 done, 1 wrong command line, a layer that differs from its index, or a platform that failed,
  2 failed
)";

constexpr std::string_view pull_page =
    R"(mount-oci pull - fetch all of an image onto this machine

SYNOPSIS
  mount-oci pull [-o LIST]... [--json] IMAGE

DESCRIPTION
  Fetches what is not kept yet of the image's manifest, configuration and layers, compares each layer
  with its digest, and makes the indexes that are missing: later mounts of the image need no registry,
  by digest, or by tag with oci.pull=missing or never. Nothing is unpacked. Reads several layers at the
  same time. After a signal, what has been fetched is kept.
  An index that the registry did not have an hour ago or less is asked for again.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  --json         an object: image, digest, layers, size, fetched (bytes), complete

EXIT STATUS
  0 done, 1 wrong command line or an image that is not kept in full, 2 failed
)";

constexpr std::string_view ls_page = R"(mount-oci ls - list files of an image

SYNOPSIS
  mount-oci ls [-o LIST]... [-lRhtSr] [--json] IMAGE [PATH]...

DESCRIPTION
  Lists what is in a directory of the image, or a file; without PATH, the root. Nothing is mounted. Times
  are in UTC, owners are numbers. On a terminal, control bytes in names are shown as \ooo. PATH may be a
  pattern, as `mount-oci cat --help` has it.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  -l, --long       modes, links, owners, sizes and times, too
  -R, --recursive  directories below, too
  -h, --human-readable
                   with -l, sizes such as 3.9K, in units of 1024
  -t               what was changed last comes first
  -S               what is largest comes first
  -r, --reverse    the other way round
  -a, -A, -1, --all
                   accepted and ignored: all names are listed, one a line
  --json           a line of JSON for each file

EXIT STATUS
  0 done, 1 wrong command line or no such path, 2 failed
)";

constexpr std::string_view cat_page = R"(mount-oci cat - write files of an image to standard output

SYNOPSIS
  mount-oci cat [-o LIST]... [--json] IMAGE PATH...

DESCRIPTION
  Fetches only what the files need. Symbolic links are followed inside the image. PATH may be a pattern,
  as of a shell: * and ? match any characters or one, but no slash and no dot at the beginning of a name,
  and [...] matches one of those in it. Quote it, so that your own shell leaves it alone. A PATH that is
  the name of a file is no pattern.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  --json   a line of JSON for each file, with its content in base64

EXAMPLE
  mount-oci cat registry.example.com/app:1.2 '/etc/apt/sources.list.d/*' /etc/os-release

EXIT STATUS
  0 done, 1 wrong command line or no such file, 2 failed
)";

constexpr std::string_view stat_page = R"(mount-oci stat - show the attributes of a file in an image

SYNOPSIS
  mount-oci stat [-o LIST]... [--json] IMAGE [PATH]...

DESCRIPTION
  Shows type, size, mode, owner, time, links, device number and extended attributes. Does not follow a
  symbolic link at the end of PATH, which may be a pattern, as `mount-oci cat --help` has it.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  --json   a line of JSON for each file, with the place of its content, too: layer (as its diffID) and
           offset in the layer's tar

EXIT STATUS
  0 done, 1 wrong command line or no such path, 2 failed
)";

constexpr std::string_view find_page = R"(mount-oci find - search the files of an image

SYNOPSIS
  mount-oci find [-o LIST]... [TEST]... [-print0 | --json] IMAGE [PATH]...

DESCRIPTION
  Writes the paths of the files from PATH on down, or from the root, for which all tests hold. These
  mean what they mean to find(1); there is no `!` and no `-o` between them. PATH may be a pattern, as
  `mount-oci cat --help` has it.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  -name GLOB    the last component matches
  -iname GLOB   the same, whatever the case of its letters
  -path GLOB    the whole path, which begins with a slash, matches; * matches slashes, too
  -type T       the type: f d l c b p s
  -perm MODE    the permissions in octal digits: just MODE; all of -MODE; any of /MODE
  -size N       in units of 512 bytes, rounded up, or of N's letter: c (1), w (2), b (512), k, M, G; +N:
                more, -N: less
  -uid N        the owner's number, or +N, -N
  -gid N        the group's number, or +N, -N
  -links N      the number of names, or +N, -N
  -newer PATH   changed later than PATH, a file of the image
  -maxdepth N   no more than N directories down; 0: PATH alone
  -mindepth N   at least N directories down
  -print0       a NUL behind each path in place of a newline
  --json        a line of JSON for each file

EXIT STATUS
  0 done, 1 wrong command line or no such path, 2 failed
)";

constexpr std::string_view tree_page =
    R"(mount-oci tree - draw the files of an image as a tree

SYNOPSIS
  mount-oci tree [-o LIST]... [-L LEVEL] [-dsh] [--json] IMAGE [PATH]...

DESCRIPTION
  Draws what is in a directory of the image, and below, as tree(1) does; without PATH, all of it. The last
  line says how many directories and other files there are, that of PATH included. Lines are drawn in
  UTF-8 if the locale has it (LC_ALL, LC_CTYPE, LANG), else in ASCII. Names that begin with a dot are shown,
  too; names are in the order of their bytes, and on a terminal control bytes in them are shown as \ooo.
  Symbolic links are not followed. PATH may be a pattern, as `mount-oci cat --help` has it.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  -L, --level LEVEL  no more than so many directories down, 1 or more
  -d                 directories alone
  -s                 the size of each file in bytes, too
  -h                 the size of each file, too, such as 3.9K, in units of 1024
  -a                 accepted and ignored: all names are shown
  --json             a line of JSON for each file, and no counts

EXIT STATUS
  0 done, 1 wrong command line or no such path, 2 failed
)";

constexpr std::string_view du_page =
    R"(mount-oci du - show how large the files of an image are

SYNOPSIS
  mount-oci du [-o LIST]... [-s | -a] [-d DEPTH] [-bhc] [--apparent-size] [--json] IMAGE [PATH]...

DESCRIPTION
  Shows, for each directory from PATH on down, or from the root, what is in it and below takes, in units of
  1024 bytes, rounded up. A directory comes behind those in it. A file of several names counts once, where
  its first name is, and so does a file that is in two of the PATHs. Nothing but metadata is read, so this
  is not what has been fetched of the image (`mount-oci status`) or is kept of it (`mount-oci cache du`).
  What du(1) shows of the mounted image is the same.

  PATH may be a pattern, as `mount-oci cat --help` has it.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  -s, --summarize       a line for each PATH alone
  -a, --all             a line for each file, not only for directories
  -d, --max-depth DEPTH
                        lines for what is no more than so many directories below PATH; 0: as -s
  --apparent-size       the bytes of contents, those of holes included, of regular files and symbolic links;
                        otherwise whole blocks of the image, of 512 bytes as a rule, of all files
  -b, --bytes           --apparent-size, in bytes
  -h, --human-readable  sizes such as 3.9K, in units of 1024
  -c, --total           a last line for all PATHs together
  --json                a line of JSON for each: path, apparent and blocks, both in bytes; total is true in
                        that of -c

EXIT STATUS
  0 done, 1 wrong command line or no such path, 2 failed
)";

constexpr std::string_view diff_page =
    R"(mount-oci diff - compare the files of two images

SYNOPSIS
  mount-oci diff [-o LIST]... [--content] [--ignore WHAT]... [--json] IMAGE IMAGE [PATH]...

DESCRIPTION
  Writes a line for each file that is not the same in both images, or in what is at PATH in both and below,
  in the order of their paths:

    D PATH               only the first image has it
    A PATH               only the second image has it
    M PATH (WHAT, ...)   both have it, and these are not the same: type, mode, owner, device, target (of a
                         symbolic link), size, content, attributes, links (the number of a file's names),
                         time. Values are those of the first image, then those of the second
    ? PATH (content not compared)
                         all but the content is the same, and of that only the size is known

  No data of files are read. Contents are the same if they are the same bytes of the same layer, by its
  digest, and so of two images with common layers most files are compared in full. Of others the size is
  compared, and --content reads them: all of both files, unless they are found to differ before the end.
  What a symbolic link leads to is not looked at, nor are the sizes of directories.

  The two images may be in different registries, layouts or files. The oci. words of -o count for both;
  oci.username, oci.password, oci.password_file and oci.mirror for the first one's registry alone if the
  second one has another, for which the configuration file and the logins of docker and podman are asked.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  --content      read and compare contents that are as large and lie elsewhere
  --ignore WHAT  do not compare time, mode, owner, attributes or links; repeatable, or with commas
  --json         an object for each file: change (D, A, M or ?), path, differs (a list of the words above, or
                 `content?` for a content that was not compared), old and new, as `mount-oci ls --json` has
                 them

EXAMPLE
  mount-oci diff --ignore time app:1.1 app:1.2 /etc

EXIT STATUS
  0 the same, 1 not the same or not known to be, 2 failed, wrong command line, or a PATH that is in neither
)";

constexpr std::string_view cp_page =
    R"(mount-oci cp - copy a file or a directory out of an image

SYNOPSIS
  mount-oci cp [-o LIST]... [-rpa] [--json] IMAGE:PATH LOCAL
  mount-oci cp [-o LIST]... [-r] IMAGE:PATH -

DESCRIPTION
  Copies PATH, which begins with a slash, to LOCAL: into it if that is a directory, else under that name,
  in place of a file that has it. With `-` for LOCAL, a tar with all attributes goes to standard output.
  If PATH ends with `/.` or is `/`, what is in the directory is copied, and not the directory. IMAGE ends
  at the first `:/` behind `oci:` or `file:`.

  Nothing outside of LOCAL is written to, even if the image or another process puts symbolic links into
  it. Existing directories are used, and other files on the way are replaced. Symbolic links are copied as
  they are; one that PATH itself names is followed, inside the image, unless -r is given. Hard links
  between files that are copied stay, and so do holes.

  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  -r, -R, --recursive  copy directories, with all that is below
  -p, --preserve       keep modes, times and attributes, and as root also owners and devices; otherwise
                       files are this user's and new, with the permissions that umask(2) leaves, and
                       devices are left out
  -a, --archive        as -r and -p
  --json               a summary as JSON, not with `-`

EXAMPLES
  mount-oci cp registry.example.com:5000/app:1.2:/etc/passwd .
  mount-oci cp -a oci:./layout:v1:/usr/share/doc ./doc

EXIT STATUS
  0 done, 1 wrong command line or no such path in the image, 2 failed
)";

constexpr std::string_view extract_page = R"(mount-oci extract - unpack an image without mounting it

SYNOPSIS
  mount-oci extract [-o LIST]... (-C DIR | --tar) [--json] IMAGE [PATH]...

DESCRIPTION
  Unpacks the whole image, or the files and directories at PATH with the directories on the way. Modes,
  times, attributes, hard links and holes are kept.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  -C, --directory DIR   into this directory, which is made if it is missing. Existing files are
                        replaced, existing directories are used. Nothing outside of DIR is written to,
                        even if the image or another process puts symbolic links into DIR. A file that
                        could not be finished is removed. Owners and devices need root; without it,
                        set-user-id bits are left out
  --tar                 as a tar (ustar and PAX) on standard output
  --safe                with -C, leave out devices, set-user-id and set-group-id bits, and the
                        attributes security.* and trusted.*: file capabilities and labels
  --json                a summary as JSON, not with --tar

EXAMPLE
  mount-oci extract --tar registry.example.com/app:1.2 etc | tar -t

EXIT STATUS
  0 done, 1 wrong command line or no such path, 2 failed
)";

constexpr std::string_view fsck_page = R"(mount-oci fsck - check an image

SYNOPSIS
  mount-oci fsck [-o LIST]... [--data] [--json] IMAGE

DESCRIPTION
  Checks all metadata of the file system that would be mounted.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  --data   also read every byte of every layer, and compare the digests of its spans and of its
           contents with the index and the image's configuration
  --json   the findings as JSON

EXIT STATUS
  0 sound, 1 wrong command line or findings, 2 failed
)";

constexpr std::string_view verify_page =
    R"(mount-oci verify - read all of an image and prove that it is what it is said to be

SYNOPSIS
  mount-oci verify [-o LIST]... [--json] [--journal DIR] IMAGE|DIR

DESCRIPTION
  Reads every byte of every layer, from the registry unless it is kept, and compares: the layer with its
  digest; its contents, unpacked, with the image's configuration; and the index that a mount would use,
  wherever it came from, with the layer: each name, attribute and place in the tar, each digest of a
  piece, and what decoding from each checkpoint gives. DIR, a path that begins with / or ., means the
  image that is mounted there, by the index that it was mounted with.

  A proved index that came from elsewhere counts for all images that have the layer from then on, as if
  this machine had made it. A wrong one is remembered and not used again, and in its place the store
  gets what the layer gives. In mounts that use it all reads fail within seconds, unless they have
  oci.verify=off. A mount can do the same by itself; see oci.verify in `mount-oci mount --help`.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  --json         an object for each layer: number, digest, proved (true or false) and, if false, problem
  --journal DIR  where the records of mounts are, for DIR; default: as of `mount-oci status`

EXIT STATUS
  0 proved, 1 wrong command line, or something is not what it is said to be, 2 failed
)";

constexpr std::string_view image_page = R"(mount-oci image - show the layers of an image

SYNOPSIS
  mount-oci image [-o LIST]... [--json] IMAGE

DESCRIPTION
  Shows digests, sizes and media types of the layers; which of them are in the index store, and which are
  kept in full on this machine; the platform; and what a container would run: entry point, command, user,
  directory and environment. Reads no layer.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  --json   as JSON, with all of the image's configuration, and for each layer bytes of the blob: size,
           indexed_bytes, proved_bytes (whose index was made, or proved, by reading the layer, so that wrong
           bytes are found), kept_bytes (on this machine); and unpacked_bytes

EXIT STATUS
  0 done, 1 wrong command line, 2 failed
)";

constexpr std::string_view doctor_page =
    R"(mount-oci doctor - find out why an image cannot be mounted, or is slow

SYNOPSIS
  mount-oci doctor [-o LIST]... [--json] IMAGE

DESCRIPTION
  Looks, within three seconds, at what a mount of the image needs, and says what to change: what this
  machine can mount and how; whether the registry answers and its certificate is trusted; the login;
  this machine's clock; tag and digest; whether parts of a layer can be fetched, where they come from
  and for how long such URLs live; and how fast they come by 1, 4 and 8 connections, which fetches up to
  48 MiB. Changes nothing and makes no index. A check that cannot be made is left out.
  IMAGE, --config, --allow-unconfined and the oci. words of -o are those of `mount-oci mount --help`.

OPTIONS
  --json   an object: image, and checks, a list of objects: check (machine, reachable, TLS, login,
           clock, image, redirect, ranges, throughput; name, options, memory, time), state (ok, warning,
           failed), text, and advice if something is to be changed

EXIT STATUS
  0 nothing has failed, 1 something has, or wrong command line, 2 the system refused an operation
)";

}  // namespace

std::string_view reading_manual(Command topic) {
  switch (topic) {
    case Command::index: return index_page;
    case Command::pull: return pull_page;
    case Command::ls: return ls_page;
    case Command::cat: return cat_page;
    case Command::stat: return stat_page;
    case Command::find: return find_page;
    case Command::tree: return tree_page;
    case Command::du: return du_page;
    case Command::diff: return diff_page;
    case Command::cp: return cp_page;
    case Command::extract: return extract_page;
    case Command::fsck: return fsck_page;
    case Command::verify: return verify_page;
    case Command::image: return image_page;
    case Command::doctor: return doctor_page;
    default: return {};
  }
}

}  // namespace mount_oci
