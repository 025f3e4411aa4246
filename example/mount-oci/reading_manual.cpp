// SPDX-License-Identifier: Apache-2.0
// The manual pages of the commands that read an image.
#include "manual.hpp"

namespace mount_oci {
namespace {

constexpr std::string_view index_page = R"(mount-oci index - make the indexes of an image's layers

SYNOPSIS
  mount-oci index [-o LIST]... [--output DIR] [--verify] [--json] IMAGE

DESCRIPTION
  Reads each layer that the index store does not know, once, and keeps what a later mount, ls or cat of
  the image needs: the layer's tree and how to enter the blob anywhere. Layers are read side by side. A
  signal ends it; layers that were finished stay known, of the others nothing stays.
  IMAGE and the words of -o are those of `mount-oci mount --help`.

OPTIONS
  --output DIR   also write, for each layer, files that other tools read: NAME.erofs (the tarindex, as
                 `mkfs.erofs --tar=i` makes it), NAME.zinfo (checkpoints, as `mkfs.erofs --gzinfo` makes
                 them; for gzipped layers) and NAME.index (ours). NAME is the layer's digest without
                 `sha256:`, or the name of the file that is the layer
  --verify       read each layer once more and compare it with its index: every byte, and every file's
                 type, attributes, names and place
  --json         a line of JSON for each layer

EXIT STATUS
  0 done, 1 wrong command line or a layer that differs from its index, 2 failed
)";

constexpr std::string_view ls_page = R"(mount-oci ls - list files of an image

SYNOPSIS
  mount-oci ls [-o LIST]... [-l] [-R] [--json] IMAGE [PATH]...

DESCRIPTION
  Lists what is in a directory of the image, or a file; without PATH, the root. Nothing is mounted. Times
  are in UTC, owners are numbers. On a terminal, control bytes in names are shown as \ooo.
  IMAGE and the words of -o are those of `mount-oci mount --help`.

OPTIONS
  -l, --long       modes, links, owners, sizes and times, too
  -R, --recursive  directories below, too
  --json           a line of JSON for each file

EXIT STATUS
  0 done, 1 wrong command line or no such path, 2 failed
)";

constexpr std::string_view cat_page = R"(mount-oci cat - write files of an image to standard output

SYNOPSIS
  mount-oci cat [-o LIST]... [--json] IMAGE PATH...

DESCRIPTION
  Fetches only what the files need. Symbolic links are followed inside the image.
  IMAGE and the words of -o are those of `mount-oci mount --help`.

OPTIONS
  --json   a line of JSON for each file, with its content in base64

EXIT STATUS
  0 done, 1 wrong command line or no such file, 2 failed
)";

constexpr std::string_view stat_page = R"(mount-oci stat - show what an image says of a file

SYNOPSIS
  mount-oci stat [-o LIST]... [--json] IMAGE [PATH]...

DESCRIPTION
  Shows type, size, mode, owner, time, links, device number and extended attributes. A symbolic link at
  the end of PATH is shown itself.
  IMAGE and the words of -o are those of `mount-oci mount --help`.

OPTIONS
  --json   a line of JSON for each file; it also says where the content lies: layer (as its diffID),
           offset in the layer's tar

EXIT STATUS
  0 done, 1 wrong command line or no such path, 2 failed
)";

constexpr std::string_view find_page = R"(mount-oci find - search the files of an image

SYNOPSIS
  mount-oci find [-o LIST]... [-name GLOB] [-type T] [-print0 | --json] IMAGE [PATH]...

DESCRIPTION
  Writes the paths of all files from PATH on down, or from the root.
  IMAGE and the words of -o are those of `mount-oci mount --help`.

OPTIONS
  -name GLOB   only those whose last component matches, as find(1) has it
  -type T      only those of this type: f d l c b p s
  -print0      a NUL behind each path in place of a newline
  --json       a line of JSON for each file

EXIT STATUS
  0 done, 1 wrong command line or no such path, 2 failed
)";

constexpr std::string_view extract_page = R"(mount-oci extract - unpack an image without mounting it

SYNOPSIS
  mount-oci extract [-o LIST]... (-C DIR | --tar) [--json] IMAGE [PATH]...

DESCRIPTION
  Unpacks the whole image, or the files and directories at PATH with the directories on the way. Modes,
  times, attributes, hard links and holes are kept.
  IMAGE and the words of -o are those of `mount-oci mount --help`.

OPTIONS
  -C, --directory DIR   into this directory, which is made if need be. Files that are in the way are
                        replaced, directories are taken as they are. Nothing outside is written to,
                        whatever symbolic links the image or somebody else puts into DIR. A file that
                        could not be finished is removed. Owners and devices need root; without it,
                        set-user-id bits are left out
  --tar                 as a tar (ustar and PAX) on standard output
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
  Checks the file system that would be mounted: everything that reading it could trip over.
  IMAGE and the words of -o are those of `mount-oci mount --help`.

OPTIONS
  --data   also read every byte of every layer, and check the digests of its pieces and of its contents,
           against the index and the image's configuration
  --json   the findings as JSON

EXIT STATUS
  0 sound, 1 wrong command line or findings, 2 failed
)";

constexpr std::string_view image_page = R"(mount-oci image - show the layers of an image

SYNOPSIS
  mount-oci image [-o LIST]... [--json] IMAGE

DESCRIPTION
  Shows digests, sizes and media types of the layers, the platform, and which layers are in the index
  store. Reads no layer.
  IMAGE and the words of -o are those of `mount-oci mount --help`.

OPTIONS
  --json   as JSON

EXIT STATUS
  0 done, 1 wrong command line, 2 failed
)";

}  // namespace

std::string_view reading_manual(Command topic) {
  switch (topic) {
    case Command::index: return index_page;
    case Command::ls: return ls_page;
    case Command::cat: return cat_page;
    case Command::stat: return stat_page;
    case Command::find: return find_page;
    case Command::extract: return extract_page;
    case Command::fsck: return fsck_page;
    case Command::image: return image_page;
    default: return {};
  }
}

}  // namespace mount_oci
