// SPDX-License-Identifier: Apache-2.0
/// @file
/// The command line of mount-oci as plain data.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include <sys/mount.h>

#include <tl/expected.hpp>

#include <erofs_oci/combinator/proof.hpp>
#include <erofs_oci/core/memory_budget.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/digest/signature.hpp>
#include <erofs_oci/http/hedging.hpp>
#include <erofs_oci/http/host_pace.hpp>
#include <erofs_oci/image/index_use.hpp>
#include <erofs_oci/oci/auth.hpp>
#include <erofs_oci/oci/hosts_toml.hpp>

#include "copy_source.hpp"
#include "find_tests.hpp"

namespace mount_oci {

using erofs_oci::IndexUse;
using erofs_oci::Verify;

/// What to do.
enum class Command {
  mount,
  umount,
  reattach,
  status,
  disconnect,
  gc,
  serve,
  index,
  ls,
  cat,
  stat,
  find,
  tree,
  du,
  diff,
  cp,
  extract,
  fsck,
  image,
  doctor,
  pull,
  verify,
  cache,
  help,
  version,
};

/// The ways in which an image may be mounted.
enum class Attach {
  automatic,  ///< the first of the others that this machine offers
  nbd,        ///< netlink, else ioctl
  netlink,    ///< the kernel's EROFS on an NBD device
  ioctl,      ///< the same, set up by ioctl(2)
  fuse,       ///< fuse_file, else fuse_tree
  fuse_file,  ///< the kernel's EROFS on a file that FUSE serves
  fuse_tree,  ///< files by FUSE; needs no privileges
};

/// When a registry is asked what an image is.
enum class Pull {
  always,   ///< for each tag; what is kept counts if the registry cannot be reached
  missing,  ///< for what is not kept
  never,    ///< not at all: the image must be kept in full
};

/// What becomes of an image's start list.
enum class StartListUse {
  off,     ///< nothing
  record,  ///< mounts record what they need first
  use,     ///< mounts fetch ahead what it names
  all,     ///< both
};

/// Whether the kernel checks by dm-verity what it reads of a mount.
enum class VerityUse {
  off,      ///< no
  attempt,  ///< if the store has a Merkle tree of the image, and the kernel can
  require,  ///< without it nothing is mounted
};

class LayerCache;
class StartKeeper;

/// A device that mount.erofs has set up, and that mount-oci takes over.
struct ForeignDevice {
  std::uint32_t index = 0;  ///< N of nbdN
  std::string backend;      ///< identifier that the kernel requires before it takes new sockets
  std::string mount_point;  ///< absolute, where the device's file system can be seen
  std::string note;         ///< for the user, once the device is served
};

/// How the hosts of an image are reached, and as whom, where that is more than the command line
/// says. become_reader() fills in what a confined process cannot find by itself.
struct HostAccess {
  erofs_oci::CredentialLookup login{};  ///< empty: this process looks up credentials itself
  std::string config{};                 ///< docker's or podman's file that `login` reads first
  std::string ca{};                     ///< path by which it reads ImageOptions::ca; empty: that
  /// What hosts_of() found, its files by paths that it can read; null: hosts_of() looks.
  std::shared_ptr<erofs_oci::HostsFile const> hosts{};
  /// Pauses that hosts have asked for: one for all images of this process.
  std::shared_ptr<erofs_oci::HostPace> pace = std::make_shared<erofs_oci::HostPace>();
  /// Requests that are sent a second time, of all images of this process.
  std::shared_ptr<erofs_oci::Hedging> hedging = std::make_shared<erofs_oci::Hedging>();
  std::stop_source requests{};  ///< ends all requests, and what waits for them, at once
  /// What ImageOptions::index_keys hold, once somebody has read them.
  std::optional<std::vector<erofs_oci::PublicKey>> index_keys{};
};

/// The image to open and how to reach it. Paths are as the user gave them.
struct ImageOptions {
  std::string image;                          ///< reference, `oci:DIR[:TAG]`, `file:PATH` or a path
  std::string blob;                           ///< layer digest with its algorithm, or empty
  std::optional<std::uint32_t> layer;         ///< index of the layer, from 0
  std::optional<std::uint32_t> first_layers;  ///< only so many, from the bottom up
  std::string platform;                       ///< OS/ARCH[/VARIANT], or empty for this machine's
  std::string username;
  std::string password;       ///< secret
  std::string password_file;  ///< a file whose first line is the password
  std::vector<std::string>
      config_files;                  ///< docker's and podman's; empty: where they are by default
  std::string tarindex;              ///< path of the EROFS image of the layer's metadata, or empty
  std::string zinfo;                 ///< path of the gzip checkpoint index, or empty
  IndexUse index = IndexUse::bound;  ///< which indexes of a registry are taken
  std::vector<std::string> index_keys;  ///< PEM files of who signs such indexes
  std::string index_directory;          ///< files as `index --output` makes them; empty: none
  std::string index_layout;             ///< OCI layout with index artifacts; empty: none
  /// From now on takes no index from elsewhere, wherever the options have named one.
  void take_no_index() {
    index = IndexUse::none;
    index_directory.clear();
    index_layout.clear();
  }
  Verify verify = Verify::lazy;           ///< when it is proved what no index of our own says
  VerityUse verity = VerityUse::attempt;  ///< whether the kernel checks it, too
  std::optional<erofs_oci::Digest> verity_root{};  ///< the root hash that it must have
  bool native = false;     ///< an EROFS image as only layer is served as it is, not indexed
  bool for_kernel = true;  ///< what is opened is parsed by a kernel, not by this program
  std::string store;       ///< directory of indexes, `none`, or empty for the usual one
  /// Directory for indexes that go with this mount and are not kept in the store; empty: none.
  std::string own_store;
  bool opened_before = false;  ///< by an earlier worker: its data are not tried
  /// The image must be the one that is mounted from there; empty: any image will do.
  std::optional<ForeignDevice> in_place_of;
  std::string cache_dir;  ///< absolute directory of what registries have sent, `none`, or empty for
                          ///< `store`, and if that is empty, too, for the usual one
  std::optional<std::uint64_t> cache_size;  ///< most bytes there; empty: a tenth of its file system
  Pull pull = Pull::always;
  std::string ca;  ///< path of a PEM bundle, trusted in place of the system's authorities, or empty
  std::vector<std::string> mirrors;  ///< registries to ask before the image's own
  /// Directories with a hosts.toml for each registry, joined by colons, or `none`; empty: where
  /// containerd and docker have them.
  std::string hosts;
  bool allow_private = false;  ///< a registry may send requests on to private addresses
  bool insecure = false;       ///< plain http
  /// Most bytes of memory for the image. Empty: 512M, or twice the cache if that is more.
  std::optional<std::uint64_t> memory;
  std::optional<std::uint64_t> cache;  ///< of it, decoded data that is kept; empty: half
  /// Time without a read after which memory is given back; 0: only when the machine is in need.
  std::chrono::seconds idle{30};
  std::optional<std::uint64_t> index_size;  ///< most decoded bytes of a layer that is indexed
  std::chrono::seconds index_time{21600};   ///< longest that the indexing of all layers may take
  std::uint64_t readahead = 128u << 10;     ///< bytes that the kernel reads ahead on the device
  std::chrono::seconds timeout{30};         ///< longest that one read may take
  /// How long transient failures are retried inside one read; 0 is never. Empty: until `timeout`.
  std::optional<std::chrono::seconds> retry;
  unsigned connections = 4;  ///< most requests in flight at the registry
  bool hedge = true;         ///< requests whose answers are late are sent a second time
  bool share = true;         ///< a mount may be one more of what a server serves already
  StartListUse start_list = StartListUse::all;
  /// The configuration file, if it has any word; absolute, or relative as the user gave it.
  std::string config{};
  /// A process that cannot be confined reads the image all the same, as root, too.
  bool allow_unconfined = false;

  HostAccess access{};

  /// Where indexes are if `store` is empty; empty: where this process's user has them.
  std::string usual_store{};
  /// What keeps the layers on disk; null: each image that is opened has one of its own.
  std::shared_ptr<LayerCache> layer_cache{};
  /// What keeps the start list of the image that is served; null: nothing does.
  std::shared_ptr<StartKeeper> starts{};

  [[nodiscard]] erofs_oci::MemoryBudget budget() const noexcept {
    auto const usual = erofs_oci::MemoryBudget{}.bytes;
    return {memory.value_or(std::max(usual, 2 * cache.value_or(0)))};
  }
  [[nodiscard]] std::uint64_t cache_bytes() const noexcept {
    return cache.value_or(budget().cache());
  }
};

/// `mount`.
struct MountOptions {
  std::string target;      ///< the directory
  std::string name_space;  ///< path or process id of a mount namespace, or empty
  /// mount(2) flags; a mount that serves an image has MS_RDONLY. Setuid programs and devices of the
  /// image have no effect unless somebody asks for it by `suid` or `dev`.
  unsigned long flags = MS_NOSUID | MS_NODEV;
  std::string data;  ///< what the kernel's file system gets to read
  Attach attach = Attach::automatic;
  bool foreground = false;
  bool stack = false;              ///< mounts over what is mounted at the directory already
  bool fake = false;               ///< everything but attaching and mounting
  bool sloppy = false;             ///< words that nobody knows are left out
  bool asks_rw = false;            ///< -o rw
  bool writable = false;           ///< changes are kept in a directory of their own
  std::string writable_directory;  ///< that directory; empty: one that goes with the mount
  /// What share_key() says of the command line; empty: the server has one mount alone.
  std::string share_key;
};

/// How a mount is supervised; for `mount` and `reattach`.
struct KeepOptions {
  bool supervise = true;                   ///< a supervisor watches the worker and replaces it
  std::chrono::seconds dead_timeout{300};  ///< how long requests wait for a takeover
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
  bool replace = false;  ///< `reattach`: replaces processes that live
  /// `gc`: of the store of indexes, so many bytes stay, or what was used so lately; neither: all.
  std::optional<std::uint64_t> keep_bytes;
  std::optional<std::chrono::seconds> keep_used;
};

/// `serve`: exactly one of the two is set.
struct ServeOptions {
  std::string socket;  ///< path of a unix socket to make
  std::string listen;  ///< HOST:PORT
};

/// The commands that read an image without mounting it.
struct ReadOptions {
  std::vector<std::string> paths;  ///< in the image; empty: all of it
  bool json = false;               ///< for programs: JSON
  bool long_form = false;          ///< `ls`: with modes, owners, sizes, times
  bool recursive = false;          ///< `ls`, `cp`: directories below, too
  bool human = false;              ///< `ls`, `tree`, `du`: sizes in units of 1024, rounded up
  bool by_time = false;            ///< `ls`: the one that changed last is first
  bool by_size = false;            ///< `ls`: the largest one is first
  bool reverse = false;            ///< `ls`: the other way round
  bool ignored = false;            ///< `ls`, `tree`: what asks for that which is so anyway
  FindTests tests;                 ///< `find`: which files
  std::size_t min_depth = 0;       ///< `find`: none above; the path itself has depth 0
  /// `find`: none below; `tree`: none below is shown; `du`: none below has a line.
  std::size_t max_depth = std::numeric_limits<std::size_t>::max();
  bool directories_only = false;  ///< `tree`: no other files
  bool sizes = false;             ///< `tree`: with sizes
  bool summary = false;           ///< `du`: one line for each path
  bool all_files = false;         ///< `du`: a line for each file, not only for directories
  bool apparent = false;          ///< `du`: sizes of contents, not of the blocks that they take
  bool in_bytes = false;          ///< `du`: not in units of 1024
  bool grand_total = false;       ///< `du`: a line for all paths together
  bool print0 = false;            ///< `find`: a NUL behind each path
  std::string directory;          ///< `extract`, `cp`: where to
  bool tar = false;               ///< `extract`, `cp`: a tar on standard output
  bool safe = false;              ///< `extract`: no devices, setuid bits, security.* or trusted.*
  bool content = false;           ///< `diff`: reads what metadata and digests do not tell
  std::vector<std::string>
      ignored_differences;  ///< `diff`: of time, mode, owner, attributes, links
  CopySource copy;          ///< `cp`: what; its image is the command's
  std::string local;        ///< `cp`: where to
  bool preserve = false;    ///< `cp`: keep modes, times, attributes and, as root, owners
  /// `cp`, by prepare_copy(): path of the copy in `directory`; `/`: what is in PATH goes there.
  std::string copy_as;
  bool over_file = false;  ///< `cp`, by prepare_copy(): the copy replaces a file
  std::uint32_t mask = 0;  ///< `cp`, by prepare_copy(): as umask(2)
  bool data = false;       ///< `fsck`: read every byte
  std::string output;      ///< `index`: a directory for files that other tools read, or empty
  bool verify = false;     ///< `index`: compare with the layer
  bool verity = false;     ///< `index`: make a Merkle tree
};

/// `index --push`, and `index --output oci:LAYOUT`.
struct PushIndexOptions {
  bool push = false;
  std::string layout;                   ///< a directory in place of a registry, or empty
  std::string to;                       ///< reference of a repository; empty: the image's
  std::string sign_key;                 ///< path of a private key in PEM, or empty
  std::vector<std::string> mount_from;  ///< repositories of the same registry
  bool all_platforms = false;           ///< each image of a list, not only this machine's
  bool with_start_list = false;         ///< the start list goes with it, and its checkpoints
  bool dry_run = false;                 ///< tells what would be pushed, and pushes nothing
};

/// `cache`.
struct CacheCommandOptions {
  std::string action;                ///< ls, du, verify, prune or rm
  std::vector<std::string> digests;  ///< `rm`, `verify`: of blobs; empty: all
  bool all = false;                  ///< `rm`: all blobs, manifests and tags
};

/// How messages are written.
struct LogOptions {
  bool json = false;  ///< one object a line, instead of text
  std::string file;   ///< appended to; empty: standard error, and syslog for a daemon
};

/// One word of a `-o` list.
struct Word {
  std::string raw;    ///< as written
  std::string key;    ///< up to the first `=`
  std::string value;  ///< behind it, quotes and escapes taken off
  bool has_value = false;
};

/// One word of the configuration file.
struct ConfigWord {
  Word word;
  bool is_switch = false;  ///< `value` is "true" or "false"
  std::string place;       ///< "FILE:LINE: "
  std::string registry;    ///< for its images alone; empty: for all
};

/// Why a command line is wrong.
struct UsageError {
  std::string text;            ///< names the argument
  std::string_view command{};  ///< whose arguments are wrong; empty: the program's
};

/// An option that a command reads.
struct OptionSyntax {
  std::vector<std::string> names;  ///< with their dashes: -o, --options
  /// What its value is: alternatives joined by `|`, words as they are and placeholders in capitals
  /// (FILE and DIR are paths); empty: it takes no value.
  std::string value;
};

/// Reads the file that `--config` names; the name is empty if there is no such argument.
using ConfigReader =
    std::function<tl::expected<std::vector<ConfigWord>, UsageError>(std::string const& chosen)>;

/// The whole command line.
struct Options {
  Command command = Command::mount;
  Command topic = Command::help;  ///< which help to print; `help` is the overview
  std::string page;     ///< the manual page to print in place of that of `topic`, or empty
  std::string program;  ///< as called
  std::vector<OptionSyntax>* syntax = nullptr;  ///< if set, gets what the command reads
  bool helper = false;                          ///< by mount(8)
  int verbosity = 2;                            ///< 0 errors, 2 warnings, 3 information, 7 debug
  LogOptions log;
  std::string journal;         ///< directory of the records of mounts, or empty for the usual one
  std::string config;          ///< the configuration file, `none`, or empty for the usual one
  ConfigReader config_reader;  ///< empty once parse_options() has returned
  ImageOptions image;
  std::optional<ImageOptions> other;  ///< `diff`: the image to compare with
  MountOptions mount;
  KeepOptions keep;
  UmountOptions umount;
  RecordOptions record;
  ServeOptions serve;
  ReadOptions read;
  PushIndexOptions push;
  CacheCommandOptions cache;
};

/// Reads a command line, the program's name first. Touches nothing but its arguments.
/// @param config  called by commands that take -o, whose words are behind the file's; by diff for
///                each of its images. Default: there is no file
[[nodiscard]] tl::expected<Options, UsageError> parse_options(
    std::vector<std::string> const& arguments, ConfigReader config = {});

/// What a configuration file says of an image.
/// @param path   of the file
/// @param image  its reference
[[nodiscard]] tl::expected<ImageOptions, UsageError> options_in_config(std::string const& path,
                                                                       std::string const& image,
                                                                       ConfigReader const& reader);

/// Cuts a `-o` list at its commas. A comma inside double quotes or behind a backslash does not cut;
/// a backslash also makes `"` and another backslash plain characters.
[[nodiscard]] tl::expected<std::vector<Word>, UsageError> split_list(std::string_view list);

/// Writes a value so that split_list() reads it back.
[[nodiscard]] std::string quote(std::string_view value);

/// The words of `oci.verify`.
[[nodiscard]] std::optional<Verify> parse_verify(std::string_view text);
[[nodiscard]] std::string_view name_of(Verify verify);

/// A size in bytes: digits and one of K, M, G, T (powers of 1024) or nothing.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text);

/// Takes the values of `oci.password` out of the process's own arguments, where every user of the
/// machine can read them.
void scrub_secrets(int argc, char** argv) noexcept;

/// The words that -o knows, those of mount(8) and of the kernel included, without values.
[[nodiscard]] std::vector<std::string> option_words();

/// The names of all commands.
[[nodiscard]] std::vector<std::string> command_names();

/// The command of a name, or nothing.
[[nodiscard]] std::optional<Command> command_named(std::string_view name);

/// The options that a command reads; as its parser has them, so none is missing.
/// @param command  one of command_names()
[[nodiscard]] std::vector<OptionSyntax> option_syntax(std::string const& command);

/// The manual page of a command, or of the whole program for Command::help.
[[nodiscard]] std::string_view manual(Command topic);

}  // namespace mount_oci
