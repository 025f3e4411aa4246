// SPDX-License-Identifier: Apache-2.0
/// @file
/// The command line of mount-oci as plain data.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

namespace mount_oci {

/// What to do.
enum class Command {
  mount,
  umount,
  reattach,
  status,
  disconnect,
  gc,
  serve,
  registry,
  index,
  ls,
  cat,
  stat,
  find,
  extract,
  fsck,
  image,
  help,
  version,
};

/// By which way an image is mounted.
enum class Attach {
  automatic,  ///< the first of the others that this machine offers
  nbd,        ///< netlink, else ioctl
  netlink,    ///< the kernel's EROFS on an NBD device
  ioctl,      ///< the same, set up the old way
  fuse,       ///< fuse_file, else fuse_tree
  fuse_file,  ///< the kernel's EROFS on a file that FUSE serves
  fuse_tree,  ///< files by FUSE; needs no privileges
};

/// Which SOCI indexes of a registry are taken in place of reading a layer.
enum class SociUse {
  none,     ///< no index
  bound,    ///< one that the image's manifest names by its digest
  trusted,  ///< also one that refers to the image, if that was asked for by a tag: who could push
            ///< a false index there could as well move the tag
};

/// A device that mount.erofs has set up, and that is served on in its place.
struct ForeignDevice {
  std::uint32_t index = 0;  ///< N of nbdN
  std::string backend;      ///< what the kernel wants to hear before it takes new sockets
  std::string mount_point;  ///< absolute, where the device's file system can be seen
  std::string note;         ///< for the user, once the device is served
};

/// Which image to open and how to reach it. Paths are as the user gave them.
struct ImageOptions {
  std::string image;                   ///< reference, `oci:DIR[:TAG]`, `file:PATH` or a path
  std::string blob;                    ///< layer digest with its algorithm, or empty
  std::optional<std::uint32_t> layer;  ///< index of the layer, from 0
  std::string platform;                ///< OS/ARCH[/VARIANT], or empty for this machine's
  std::string username;
  std::string password;       ///< secret
  std::string password_file;  ///< a file whose first line is the password
  std::vector<std::string>
      config_files;                 ///< docker's and podman's; empty: where they are by default
  std::string tarindex;             ///< path of the EROFS image of the layer's metadata, or empty
  std::string zinfo;                ///< path of the gzip checkpoint index, or empty
  SociUse soci = SociUse::trusted;  ///< which SOCI indexes are taken
  std::string store;                ///< directory of indexes, `none`, or empty for the usual one
  /// Directory for indexes that go with this mount and are not kept in the store; empty: none.
  std::string own_store;
  /// The image must be the one that is mounted from there; empty: any image will do.
  std::optional<ForeignDevice> in_place_of;
  std::string ca;                    ///< path of a PEM bundle of more trusted authorities, or empty
  std::vector<std::string> mirrors;  ///< registries to ask when the image's own fails
  bool insecure = false;             ///< plain http
  std::uint64_t cache = 256u << 20;  ///< bytes of decoded data kept in memory
  std::uint64_t readahead = 1u << 20;  ///< bytes that the kernel reads ahead on the device
  std::chrono::seconds timeout{30};    ///< longest that one read may take
  /// How long transient failures are retried inside one read; 0 is never. Empty: until `timeout`.
  std::optional<std::chrono::seconds> retry;
  unsigned connections = 4;  ///< most requests in flight at the registry
};

/// `mount`.
struct MountOptions {
  std::string target;       ///< the directory
  std::string name_space;   ///< path or process id of a mount namespace, or empty
  unsigned long flags = 0;  ///< mount(2) flags; a mount that serves an image has MS_RDONLY
  std::string data;         ///< what the kernel's file system gets to read
  Attach attach = Attach::automatic;
  bool foreground = false;
  bool fake = false;               ///< everything but attaching and mounting
  bool writable = false;           ///< changes are kept in a directory of their own
  std::string writable_directory;  ///< that directory; empty: one that goes with the mount
};

/// How a mount is kept alive; for `mount` and `reattach`.
struct KeepOptions {
  bool supervise = true;                   ///< a process watches the daemon and replaces it
  std::chrono::seconds dead_timeout{300};  ///< how long requests wait for the next daemon
  std::string
      metrics;  ///< where Prometheus can ask: HOST:PORT, or a path of a unix socket; or empty
};

/// `umount` and `disconnect`.
struct UmountOptions {
  std::string target;       ///< a mount point or a block device; empty: all
  bool disconnect = false;  ///< end a device even though it is mounted
};

/// `reattach`, `status` and `gc`.
struct RecordOptions {
  std::string target;    ///< a mount point or a device; empty: all
  bool replace = false;  ///< `reattach`: in place of a daemon that lives
};

/// `serve`: exactly one of the two is set.
struct ServeOptions {
  std::string socket;  ///< path of a unix socket to make
  std::string listen;  ///< HOST:PORT
};

/// What `registry` does to the answers that it gives.
enum class Fault {
  none,
  ignore_range,  ///< 200 and the whole blob
  short_body,    ///< half of the promised body, then the connection ends
  wrong_range,   ///< a Content-Range that starts one byte later
  wrong_total,   ///< a Content-Range with another total size
  corrupt,       ///< one byte of the body is flipped
  encoded,       ///< Content-Encoding: gzip
  reset,         ///< a TCP reset in the middle of the body
  hang,          ///< no answer at all
};

/// `registry`.
struct RegistryOptions {
  std::string directory;                          ///< an OCI image layout
  std::string listen = "127.0.0.1:0";             ///< HOST:PORT; port 0 takes a free one
  std::chrono::milliseconds latency{0};           ///< before each answer
  std::uint64_t bandwidth = 0;                    ///< bytes a second of each answer; 0 is no limit
  unsigned fail_every = 0;                        ///< every n-th blob request fails; 0 is none
  int fail_status = 503;                          ///< with this status
  Fault fault = Fault::none;                      ///< done to blob requests with a range
  unsigned fault_every = 1;                       ///< to every n-th of them
  std::string username;                           ///< asked for if not empty
  std::string password_file;                      ///< a file whose first line is the password
  std::optional<std::chrono::seconds> token_ttl;  ///< bearer tokens that live so long
  std::optional<std::chrono::seconds>
      redirect_ttl;         ///< blobs are redirected to URLs that live so long
  std::string certificate;  ///< PEM; https if set
  std::string key;          ///< PEM
  std::string count;        ///< file that gets the counters at the end, or empty
};

/// The commands that read an image without mounting it.
struct ReadOptions {
  std::vector<std::string> paths;  ///< in the image; empty: all of it
  bool json = false;               ///< for programs: JSON
  bool long_form = false;          ///< `ls`: with modes, owners, sizes, times
  bool recursive = false;          ///< `ls`: directories below, too
  std::string name;                ///< `find`: pattern that the last component matches, or empty
  char type = 0;                   ///< `find`: one of fdlcbps, or 0 for all
  bool print0 = false;             ///< `find`: a NUL behind each path
  std::string directory;           ///< `extract`: where to
  bool tar = false;                ///< `extract`: a tar on standard output
  bool data = false;               ///< `fsck`: read every byte
  std::string output;   ///< `index`: a directory for files that other tools read, or empty
  bool verify = false;  ///< `index`: compare with the layer
};

/// How messages are written.
struct LogOptions {
  bool json = false;  ///< one object a line, instead of text
  std::string file;   ///< appended to; empty: standard error, and syslog for a daemon
};

/// The whole command line.
struct Options {
  Command command = Command::mount;
  Command topic = Command::help;  ///< which help to print; `help` is the overview
  std::string program;            ///< as called
  int verbosity = 2;              ///< 0 errors, 2 warnings, 3 information, 7 debug
  LogOptions log;
  std::string journal;  ///< directory of the records of mounts, or empty for the usual one
  ImageOptions image;
  MountOptions mount;
  KeepOptions keep;
  UmountOptions umount;
  RecordOptions record;
  ServeOptions serve;
  RegistryOptions registry;
  ReadOptions read;
};

/// Why a command line means nothing.
struct UsageError {
  std::string text;  ///< names the argument
};

/// Reads a command line, the program's name first. Touches nothing but its arguments.
[[nodiscard]] tl::expected<Options, UsageError> parse_options(
    std::vector<std::string> const& arguments);

/// One word of a `-o` list.
struct Word {
  std::string raw;    ///< as written
  std::string key;    ///< up to the first `=`
  std::string value;  ///< behind it, quotes and escapes taken off
  bool has_value = false;
};

/// Cuts a `-o` list at its commas. A comma inside double quotes or behind a backslash does not cut;
/// a backslash also keeps `"` and another backslash from meaning anything.
[[nodiscard]] tl::expected<std::vector<Word>, UsageError> split_list(std::string_view list);

/// Writes a value so that split_list() reads it back.
[[nodiscard]] std::string quote(std::string_view value);

/// A size in bytes: digits and one of K, M, G, T (powers of 1024) or nothing.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text);

/// Takes the values of `oci.password` out of the process's own arguments, where every user of the
/// machine can read them.
void scrub_secrets(int argc, char** argv) noexcept;

/// The manual page of a command, or of the whole program for Command::help.
[[nodiscard]] std::string_view manual(Command topic);

}  // namespace mount_oci
