// SPDX-License-Identifier: Apache-2.0
// argv -> Options.
#include "options.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <functional>
#include <limits>
#include <utility>

#include <sys/mount.h>

#include <CLI/CLI.hpp>

namespace mount_oci {
namespace {

using Checked = tl::expected<void, UsageError>;

tl::unexpected<UsageError> usage(std::string text) {
  return tl::unexpected(UsageError{std::move(text)});
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

/// All of `text` as a decimal number without a sign.
template <class T>
std::optional<T> parse_number(std::string_view text) {
  T number = 0;
  if (text.empty() || text.front() == '-') return std::nullopt;
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// ---------------------------------------------------------------- words of the mount itself

/// A word that changes mount(2)'s flags.
struct FlagWord {
  std::string_view name;
  unsigned long set;
  unsigned long clear;
};

constexpr std::array flag_words{
    FlagWord{"ro", MS_RDONLY, 0},
    FlagWord{"rw", 0, MS_RDONLY},
    FlagWord{"nosuid", MS_NOSUID, 0},
    FlagWord{"suid", 0, MS_NOSUID},
    FlagWord{"nodev", MS_NODEV, 0},
    FlagWord{"dev", 0, MS_NODEV},
    FlagWord{"noexec", MS_NOEXEC, 0},
    FlagWord{"exec", 0, MS_NOEXEC},
    FlagWord{"sync", MS_SYNCHRONOUS, 0},
    FlagWord{"async", 0, MS_SYNCHRONOUS},
    FlagWord{"noatime", MS_NOATIME, 0},
    FlagWord{"atime", 0, MS_NOATIME},
    FlagWord{"relatime", MS_RELATIME, 0},
    FlagWord{"norelatime", 0, MS_RELATIME},
    FlagWord{"nodiratime", MS_NODIRATIME, 0},
    FlagWord{"diratime", 0, MS_NODIRATIME},
    FlagWord{"loud", 0, MS_SILENT},
    FlagWord{"remount", MS_REMOUNT, 0},
    FlagWord{"move", MS_MOVE, 0},
};

/// Words for mount(8) and fstab(5), which mean nothing to a kernel.
constexpr std::array<std::string_view, 11> ignored_words{"defaults", "quiet", "user",   "nouser",
                                                         "users",    "auto",  "noauto", "_netdev",
                                                         "nofail",   "owner", "group"};

bool is_ignored(std::string_view key) {
  return std::ranges::find(ignored_words, key) != ignored_words.end() || key.starts_with("x-") ||
         key == "uhelper" || key == "helper" || key == "comment";
}

/// Takes a word that is not about an image; `data` gets what only the kernel can judge.
Checked apply_generic(Word const& word, Command command, MountOptions& mount) {
  auto const key = lower(word.key);
  if (is_ignored(key)) return {};
  auto const flag = std::ranges::find(flag_words, key, &FlagWord::name);
  if (flag != flag_words.end() && !word.has_value) {
    mount.flags = (mount.flags & ~flag->clear) | flag->set;
    return {};
  }
  if (command == Command::serve) return usage("-o " + word.key + ": serve does not mount anything");
  if (key == "loop")
    return usage("-o loop: the image is served by this program, not by a loop device");
  mount.data += (mount.data.empty() ? "" : ",") + word.raw;
  return {};
}

// ---------------------------------------------------------------- words of the image

Checked set_text(std::string& field, Word const& word) {
  if (word.value.empty()) return usage("-o " + word.key + ": a value is needed");
  if (word.value.find('\0') != std::string::npos) return usage("-o " + word.key + ": a NUL byte");
  field = word.value;
  return {};
}

Checked set_blob(ImageOptions& image, Word const& word) {
  auto digest = word.value.find(':') == std::string::npos ? "sha256:" + word.value : word.value;
  auto const colon = digest.find(':');
  auto const algorithm = digest.substr(0, colon);
  auto const digits = std::string_view(digest).substr(colon + 1);
  auto const length = algorithm == "sha256" ? 64u : algorithm == "sha512" ? 128u : 0u;
  if (digits.size() != length ||
      digits.find_first_not_of("0123456789abcdef") != std::string_view::npos) {
    return usage("-o oci.blob=" + word.value +
                 ": not a digest (sha256: and 64 lower-case hexadecimal digits)");
  }
  image.blob = std::move(digest);
  return {};
}

Checked set_layer(ImageOptions& image, Word const& word) {
  image.layer = parse_number<std::uint32_t>(word.value);
  if (!image.layer) {
    return usage("-o oci.layer=" + word.value + ": not the number of a layer (0, 1, ...)");
  }
  return {};
}

Checked set_platform(ImageOptions& image, Word const& word) {
  auto const& text = word.value;
  auto const parts = 1 + std::ranges::count(text, '/');
  auto const bad =
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.-/") != std::string::npos;
  if (bad || parts < 2 || parts > 3 || text.front() == '/' || text.back() == '/' ||
      text.find("//") != std::string::npos) {
    return usage("-o oci.platform=" + text + ": not OS/ARCH or OS/ARCH/VARIANT");
  }
  image.platform = text;
  return {};
}

Checked set_switch(bool& field, Word const& word) {
  auto const value = lower(word.value);
  if (!word.has_value || value == "1" || value == "true" || value == "yes") {
    field = true;
  } else if (value == "0" || value == "false" || value == "no") {
    field = false;
  } else {
    return usage("-o " + word.key + "=" + word.value + ": neither 0 nor 1");
  }
  return {};
}

Checked set_size(std::uint64_t& field, Word const& word, std::uint64_t least, std::uint64_t most) {
  auto const size = parse_size(word.value);
  if (!size || *size < least || *size > most) {
    return usage("-o " + word.key + "=" + word.value +
                 ": not a size such as 64M, or out of range (" + std::to_string(least) + " to " +
                 std::to_string(most) + " bytes)");
  }
  field = *size;
  return {};
}

std::optional<std::chrono::seconds> seconds(std::string_view text, std::uint32_t least) {
  auto const number = parse_number<std::uint32_t>(text);
  if (!number || *number < least || *number > 86'400) return std::nullopt;
  return std::chrono::seconds(*number);
}

Checked set_timeout(ImageOptions& image, Word const& word) {
  auto const value = seconds(word.value, 1);
  if (!value) {
    return usage("-o oci.timeout=" + word.value + ": not a number of seconds from 1 to 86400");
  }
  image.timeout = *value;
  return {};
}

Checked set_retry(ImageOptions& image, Word const& word) {
  image.retry = word.value == "off" ? std::chrono::seconds(0) : seconds(word.value, 0);
  if (!image.retry) {
    return usage("-o oci.retry=" + word.value +
                 ": neither off nor a number of seconds from 0 to 86400");
  }
  return {};
}

Checked set_connections(ImageOptions& image, Word const& word) {
  auto const number = parse_number<unsigned>(word.value);
  if (!number || *number < 1 || *number > 64) {
    return usage("-o oci.connections=" + word.value + ": not a number from 1 to 64");
  }
  image.connections = *number;
  return {};
}

Checked add_mirror(ImageOptions& image, Word const& word) {
  std::string mirror;
  if (auto ok = set_text(mirror, word); !ok) return ok;
  image.mirrors.push_back(std::move(mirror));
  return {};
}

struct ImageWord {
  std::string_view name;
  Checked (*apply)(ImageOptions&, Word const&);
};

constexpr std::array image_words{
    ImageWord{"oci.blob", set_blob},
    ImageWord{"oci.layer", set_layer},
    ImageWord{"oci.platform", set_platform},
    ImageWord{"oci.username", [](auto& i, auto& w) { return set_text(i.username, w); }},
    ImageWord{"oci.password", [](auto& i, auto& w) { return set_text(i.password, w); }},
    ImageWord{"oci.password_file", [](auto& i, auto& w) { return set_text(i.password_file, w); }},
    ImageWord{"oci.tarindex", [](auto& i, auto& w) { return set_text(i.tarindex, w); }},
    ImageWord{"oci.zinfo", [](auto& i, auto& w) { return set_text(i.zinfo, w); }},
    ImageWord{"oci.insecure", [](auto& i, auto& w) { return set_switch(i.insecure, w); }},
    ImageWord{"oci.mirror", add_mirror},
    ImageWord{"oci.ca", [](auto& i, auto& w) { return set_text(i.ca, w); }},
    ImageWord{"oci.cache",
              [](auto& i, auto& w) { return set_size(i.cache, w, 1u << 20, 1ull << 40); }},
    ImageWord{"oci.readahead",
              [](auto& i, auto& w) { return set_size(i.readahead, w, 0, 1u << 30); }},
    ImageWord{"oci.retry", set_retry},
    ImageWord{"oci.timeout", set_timeout},
    ImageWord{"oci.connections", set_connections},
};

Checked apply_word(Word const& word, Options& options) {
  auto const key = lower(word.key);
  if (!key.starts_with("oci") && !key.starts_with("s3.")) {
    return apply_generic(word, options.command, options.mount);
  }
  // A disguised key would hide a secret from scrub_secrets().
  if (!word.raw.starts_with(word.key))
    return usage("-o " + word.key + ": quotes belong to a value");
  auto const known = std::ranges::find(image_words, word.key, &ImageWord::name);
  if (known != image_words.end()) return known->apply(options.image, word);
  // Only the key: the value of a misspelt oci.pasword= is a secret all the same.
  return usage("-o " + word.key + ": unknown word");
}

/// Takes all `-o` lists, the later ones last.
Checked apply_lists(std::vector<std::string> const& lists, Options& options) {
  for (auto const& list : lists) {
    auto const words = split_list(list);
    if (!words) return tl::unexpected(words.error());
    for (auto const& word : *words) {
      if (auto ok = apply_word(word, options); !ok) return ok;
    }
  }
  auto const& image = options.image;
  if (!image.blob.empty() && image.layer) {
    return usage("-o: oci.blob and oci.layer cannot be set together");
  }
  if (!image.password.empty() && !image.password_file.empty()) {
    return usage("-o: oci.password and oci.password_file cannot be set together");
  }
  auto const has_password = !image.password.empty() || !image.password_file.empty();
  if (image.username.empty() == has_password) {
    return usage(has_password ? "-o: a password is set, but no oci.username"
                              : "-o: oci.username is set, but neither oci.password_file nor "
                                "oci.password");
  }
  return {};
}

// ---------------------------------------------------------------- commands

/// An empty grammar: our own help, and arguments too many are ours to name.
void prepare(CLI::App& app) {
  app.set_help_flag("");
  app.allow_extras();
}

/// Adds an option that takes one value each time it is given.
void add_lists(CLI::App& app, std::vector<std::string>& lists) {
  app.add_option("-o,--options", lists)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
}

Checked run(CLI::App& app, std::vector<std::string> words) {
  std::ranges::reverse(words);  // CLI11 takes them from the back
  try {
    app.parse(std::move(words));
  } catch (CLI::ParseError const& error) {
    return usage(error.what());
  }
  if (auto const extra = app.remaining(); !extra.empty()) {
    return usage("unexpected argument: " + extra.front());
  }
  return {};
}

/// What every command has: help, version, how much to say.
class Common {
 public:
  explicit Common(CLI::App& app) {
    app.add_flag("-h,--help", help_);
    app.add_flag("-V,--version", version_);
    app.add_flag("-v,--verbose", verbose_);
    app.add_option("-d,--debug", level_);
  }

  /// Whether the rest of the command line does not matter.
  [[nodiscard]] bool ends(Options& options) const {
    if (help_) {
      options.topic = options.command;
      options.command = Command::help;
    } else if (version_) {
      options.command = Command::version;
    }
    return help_ || version_;
  }

  [[nodiscard]] Checked apply(Options& options) const {
    if (verbose_ > 0) options.verbosity = verbose_ > 1 ? 7 : 3;
    if (level_.empty()) return {};
    auto const level = parse_number<int>(level_);
    if (!level || *level > 9) return usage("invalid debug level " + level_ + " (0 to 9)");
    options.verbosity = *level;
    return {};
  }

 private:
  bool help_ = false;
  bool version_ = false;
  int verbose_ = 0;
  std::string level_;
};

Checked check_type(std::string const& type) {
  auto const dot = type.find('.');
  auto const base = type.substr(0, dot);
  auto const subtype = dot == std::string::npos ? std::string("nbd") : type.substr(dot + 1);
  if (base != "erofs") return usage("invalid filesystem type `" + type + "`: not erofs.nbd");
  if (subtype == "nbd") return {};
  for (auto const* known : {"fuse", "local", "fanotify", "ublk"}) {
    if (subtype == known) return usage("filesystem subtype `" + subtype + "` is not supported");
  }
  return usage("invalid filesystem subtype `" + subtype + "`");
}

Checked parse_mount(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  auto& mount = options.mount;
  std::string type = "erofs.nbd";
  std::string attach = "auto";
  std::vector<std::string> lists;
  bool unmount = false;
  std::string disconnect;
  bool ignored = false;
  app.add_option("-t,--types", type);
  add_lists(app, lists);
  app.add_option("-N,--namespace", mount.name_space);
  app.add_flag("-f,--fake", mount.fake);
  app.add_flag("-n,--no-mtab,-s,--sloppy", ignored);
  app.add_flag("-u,--unmount", unmount);
  app.add_option("--disconnect", disconnect);
  app.add_flag("--foreground", mount.foreground);
  app.add_option("--attach", attach);
  app.add_option("image", options.image.image);
  app.add_option("directory", mount.target);
  if (auto ok = run(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;

  if (unmount || !disconnect.empty()) {
    auto const extra = unmount ? mount.target : options.image.image;
    if (!extra.empty()) return usage("unexpected argument: " + extra);
    options.command = Command::umount;
    options.umount = {unmount ? options.image.image : disconnect, !unmount};
    if (options.umount.target.empty()) return usage("missing argument: TARGET");
    return {};
  }
  if (auto ok = check_type(type); !ok) return ok;
  if (attach == "netlink") {
    mount.attach = Attach::netlink;
  } else if (attach == "ioctl") {
    mount.attach = Attach::ioctl;
  } else if (attach != "auto") {
    return usage("--attach " + attach + ": not one of auto, netlink, ioctl");
  }
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  // What is served cannot be written to, whatever was asked for.
  if ((mount.flags & MS_MOVE) == 0) mount.flags |= MS_RDONLY;
  if (options.image.image.empty()) return usage("missing argument: IMAGE");
  if (mount.target.empty()) return usage("missing argument: MOUNTPOINT");
  return {};
}

Checked parse_umount(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  bool ignored = false;
  app.add_flag("-n,--no-mtab,-r,--read-only", ignored);
  app.add_option("target", options.umount.target);
  if (auto ok = run(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;
  if (options.umount.target.empty()) return usage("missing argument: TARGET");
  return {};
}

Checked parse_serve(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  std::vector<std::string> lists;
  add_lists(app, lists);
  app.add_option("--socket", options.serve.socket);
  app.add_option("--listen", options.serve.listen);
  app.add_option("image", options.image.image);
  if (auto ok = run(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  if (options.serve.socket.empty() == options.serve.listen.empty()) {
    return usage("serve: one of --socket PATH and --listen HOST:PORT is needed");
  }
  if (options.image.image.empty()) return usage("missing argument: IMAGE");
  return {};
}

struct FaultName {
  std::string_view name;
  Fault fault;
};

constexpr std::array fault_names{
    FaultName{"ignore-range", Fault::ignore_range},
    FaultName{"short", Fault::short_body},
    FaultName{"wrong-range", Fault::wrong_range},
    FaultName{"wrong-total", Fault::wrong_total},
    FaultName{"corrupt", Fault::corrupt},
    FaultName{"encoded", Fault::encoded},
    FaultName{"reset", Fault::reset},
    FaultName{"hang", Fault::hang},
};

/// `KIND[:N]`
Checked set_fault(std::string const& text, RegistryOptions& registry) {
  auto const colon = text.find(':');
  auto const known =
      std::ranges::find(fault_names, std::string_view(text).substr(0, colon), &FaultName::name);
  auto const every =
      colon == std::string::npos ? 1u : parse_number<unsigned>(text.substr(colon + 1)).value_or(0);
  if (known == fault_names.end() || every == 0) {
    std::string names;
    for (auto const& fault : fault_names) names += " " + std::string(fault.name);
    return usage("--fault " + text + ": not KIND or KIND:N, with KIND one of" + names);
  }
  registry.fault = known->fault;
  registry.fault_every = every;
  return {};
}

/// `N[:STATUS]`
Checked set_fail_every(std::string const& text, RegistryOptions& registry) {
  auto const colon = text.find(':');
  auto const every = parse_number<unsigned>(text.substr(0, colon)).value_or(0);
  auto const status =
      colon == std::string::npos ? 503 : parse_number<int>(text.substr(colon + 1)).value_or(0);
  if (every == 0 || status < 400 || status > 599) {
    return usage("--fail-every " + text + ": not N or N:STATUS, with STATUS from 400 to 599");
  }
  registry.fail_every = every;
  registry.fail_status = status;
  return {};
}

/// The texts of `registry`'s options that need a closer look.
struct RegistryTexts {
  std::string bandwidth;
  std::string fail_every;
  std::string fault;
  std::string latency;
  std::string token_ttl;
  std::string redirect_ttl = "60";
  bool redirect = false;

  [[nodiscard]] Checked apply(RegistryOptions& registry) const {
    if (!latency.empty()) {
      auto const value = parse_number<std::uint32_t>(latency);
      if (!value) return usage("--latency " + latency + ": not a number of milliseconds");
      registry.latency = std::chrono::milliseconds(*value);
    }
    if (!bandwidth.empty()) {
      registry.bandwidth = parse_size(bandwidth).value_or(0);
      if (registry.bandwidth == 0) return usage("--bandwidth " + bandwidth + ": not a size");
    }
    if (!fail_every.empty()) {
      if (auto ok = set_fail_every(fail_every, registry); !ok) return ok;
    }
    if (!fault.empty()) {
      if (auto ok = set_fault(fault, registry); !ok) return ok;
    }
    if (!token_ttl.empty()) {
      registry.token_ttl = seconds(token_ttl, 1);
      if (!registry.token_ttl)
        return usage("--token-ttl " + token_ttl + ": not a number of seconds");
    }
    if (redirect) {
      registry.redirect_ttl = seconds(redirect_ttl, 1);
      if (!registry.redirect_ttl) {
        return usage("--redirect-ttl " + redirect_ttl + ": not a number of seconds");
      }
    }
    return {};
  }
};

Checked parse_registry(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  auto& registry = options.registry;
  RegistryTexts texts;
  app.add_option("--listen", registry.listen);
  app.add_option("--latency", texts.latency);
  app.add_option("--bandwidth", texts.bandwidth);
  app.add_option("--fail-every", texts.fail_every);
  app.add_option("--fault", texts.fault);
  app.add_option("--username", registry.username);
  app.add_option("--password-file", registry.password_file);
  app.add_option("--token-ttl", texts.token_ttl);
  app.add_flag("--redirect-blobs", texts.redirect);
  app.add_option("--redirect-ttl", texts.redirect_ttl);
  app.add_option("--cert", registry.certificate);
  app.add_option("--key", registry.key);
  app.add_option("--count", registry.count);
  app.add_option("directory", registry.directory);
  if (auto ok = run(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;
  if (auto ok = texts.apply(registry); !ok) return ok;
  if (registry.username.empty() != registry.password_file.empty()) {
    return usage("registry: --username and --password-file belong together");
  }
  if (registry.certificate.empty() != registry.key.empty()) {
    return usage("registry: --cert and --key belong together");
  }
  if (registry.directory.empty()) return usage("missing argument: DIR");
  return {};
}

struct Entry {
  std::string_view name;
  Command command;
  Checked (*parse)(std::vector<std::string>, Options&);
};

constexpr std::array entries{
    Entry{"mount", Command::mount, parse_mount},
    Entry{"umount", Command::umount, parse_umount},
    Entry{"serve", Command::serve, parse_serve},
    Entry{"registry", Command::registry, parse_registry},
};

/// Whether mount(8) runs us as a helper: then the first word is a source, whatever it is called.
bool is_helper(std::string_view program) {
  auto const name = program.substr(program.find_last_of('/') + 1);
  return name == "mount.erofs" || name.starts_with("mount.erofs.");
}

}  // namespace

tl::expected<Options, UsageError> parse_options(std::vector<std::string> const& arguments) {
  Options options;
  options.program = arguments.empty() ? "mount-oci" : arguments.front();
  auto words =
      std::vector<std::string>(arguments.begin() + (arguments.empty() ? 0 : 1), arguments.end());
  if (words.empty() && !is_helper(options.program)) return usage("missing argument: IMAGE");

  auto const* entry = &entries.front();
  if (!is_helper(options.program)) {
    if (words.front() == "-h" || words.front() == "--help" || words.front() == "help") {
      options.command = Command::help;
      return options;
    }
    auto const named = std::ranges::find(entries, words.front(), &Entry::name);
    if (named != entries.end()) {
      entry = &*named;
      words.erase(words.begin());
    }
  }
  options.command = entry->command;
  if (auto ok = entry->parse(std::move(words), options); !ok) {
    return tl::unexpected(std::move(ok).error());
  }
  return options;
}

}  // namespace mount_oci
