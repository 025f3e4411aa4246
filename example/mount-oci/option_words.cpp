// SPDX-License-Identifier: Apache-2.0
// The words of -o lists.
#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include <sys/mount.h>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/digest.hpp>
#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/posix/path.hpp>

#include "config_file.hpp"
#include "parsing.hpp"

namespace mount_oci {
namespace {

// ---------------------------------------------------------------- words of the mount itself

/// Flags of mount(2), the word that sets them and the one that clears them.
struct FlagWord {
  unsigned long flag;
  std::string_view set;
  std::string_view clear;
};

constexpr std::string_view no_word = "-";

constexpr std::array flag_words{
    FlagWord{MS_RDONLY, "ro", "rw"},
    FlagWord{MS_NOSUID, "nosuid", "suid"},
    FlagWord{MS_NODEV, "nodev", "dev"},
    FlagWord{MS_NOEXEC, "noexec", "exec"},
    FlagWord{MS_SYNCHRONOUS, "sync", "async"},
    FlagWord{MS_NOATIME, "noatime", "atime"},
    FlagWord{MS_RELATIME, "relatime", "norelatime"},
    FlagWord{MS_NODIRATIME, "nodiratime", "diratime"},
    FlagWord{MS_SILENT, no_word, "loud"},
    FlagWord{MS_NOSUID | MS_NODEV | MS_NOEXEC, "user", no_word},
    FlagWord{MS_NOSUID | MS_NODEV | MS_NOEXEC, "users", no_word},
    FlagWord{MS_NOSUID | MS_NODEV, "owner", no_word},
    FlagWord{MS_NOSUID | MS_NODEV, "group", no_word},
    FlagWord{MS_REMOUNT, "remount", no_word},
    FlagWord{MS_MOVE, "move", no_word},
};

/// Words for mount(8) and fstab(5), which mean nothing to a kernel.
constexpr std::array<std::string_view, 11> ignored_words{"defaults", "quiet",  "user",    "nouser",
                                                         "auto",     "noauto", "_netdev", "nofail",
                                                         "uhelper",  "helper", "comment"};

/// Words that the kernel reads: EROFS of Linux 6.18, the file system's superblock, and security
/// modules.
constexpr std::array kernel_words{
    std::string_view("user_xattr"),
    std::string_view("nouser_xattr"),
    std::string_view("acl"),
    std::string_view("noacl"),
    std::string_view("cache_strategy"),
    std::string_view("dax"),
    std::string_view("device"),
    std::string_view("fsid"),
    std::string_view("domain_id"),
    std::string_view("directio"),
    std::string_view("fsoffset"),
    std::string_view("inode_share"),
    std::string_view("dirsync"),
    std::string_view("lazytime"),
    std::string_view("nolazytime"),
    std::string_view("mand"),
    std::string_view("nomand"),
    std::string_view("context"),
    std::string_view("fscontext"),
    std::string_view("defcontext"),
    std::string_view("rootcontext"),
    std::string_view("seclabel"),
    std::string_view("smackfsdef"),
    std::string_view("smackfsfloor"),
    std::string_view("smackfshat"),
    std::string_view("smackfsroot"),
    std::string_view("smackfstransmute"),
};

/// "; did you mean ..." if a word that is known is close to this one.
std::string suggestion(std::string_view key);

bool is_flag(std::string_view key) {
  return key != no_word && std::ranges::any_of(flag_words, [&](FlagWord const& flag) {
           return key == flag.set || key == flag.clear;
         });
}

bool is_ignored(std::string_view key) {
  return std::ranges::find(ignored_words, key) != ignored_words.end() || key.starts_with("x-");
}

/// Handles a word that is not about an image; words for the kernel go to `data`.
Checked apply_generic(Word const& word, Command command, MountOptions& mount) {
  auto const key = erofs_oci::ascii_lower(word.key);
  for (auto const& [flag, set, clear] : flag_words) {
    if (word.has_value || key == no_word || (key != set && key != clear)) continue;
    mount.flags = (mount.flags & ~flag) | (key == set ? flag : 0);
    if (flag == MS_RDONLY) mount.asks_rw = key == clear;
    return {};
  }
  if (key == "stack" && !word.has_value) {
    mount.stack = true;
    return {};
  }
  if (is_ignored(key)) return {};
  if (key == "loop")
    return usage("-o loop: the image is served by this program, not by a loop device");
  if (!is_flag(key) && std::ranges::find(kernel_words, key) == kernel_words.end()) {
    if (mount.sloppy) return {};
    // Only the key: what follows a comma in a password that is not quoted looks like a word.
    return usage("-o " + word.key + ": unknown word" + suggestion(key));
  }
  if (command != Command::mount) {
    return usage("-o " + word.key + ": this command does not mount anything");
  }
  mount.data += (mount.data.empty() ? "" : ",") + word.raw;
  return {};
}

// ---------------------------------------------------------------- words of the image

/// Sets the field to what the word's value means; if that is nothing, `wrong` says why.
template <class T>
Checked set_value(auto& field, std::optional<T> const& value, Word const& word,
                  std::string const& wrong) {
  if (!value) return usage("-o " + word.key + "=" + word.value + ": " + wrong);
  field = *value;
  return {};
}

Checked set_text(std::string& field, Word const& word) {
  if (word.value.empty()) return usage("-o " + word.key + ": a value is needed");
  if (word.value.find('\0') != std::string::npos) return usage("-o " + word.key + ": a NUL byte");
  field = word.value;
  return {};
}

Checked set_blob(ImageOptions& image, Word const& word) {
  auto const text = word.value.find(':') == word.value.npos ? "sha256:" + word.value : word.value;
  return set_value(image.blob, erofs_oci::Digest::parse(text) ? std::optional(text) : std::nullopt,
                   word, "not a digest (sha256: and 64 lower-case hexadecimal digits)");
}

Checked set_layer(ImageOptions& image, Word const& word) {
  return set_value(image.layer, erofs_oci::whole_number<std::uint32_t>(word.value), word,
                   "not the number of a layer (0, 1, ...)");
}

Checked set_first_layers(ImageOptions& image, Word const& word) {
  auto number = erofs_oci::whole_number<std::uint32_t>(word.value);
  if (number && *number == 0) number.reset();
  return set_value(image.first_layers, number, word, "not a number of layers (1, 2, ...)");
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
  auto const value = erofs_oci::ascii_lower(word.value);
  std::optional<bool> on;
  if (!word.has_value || value == "1" || value == "true" || value == "yes") on = true;
  if (value == "0" || value == "false" || value == "no") on = false;
  return set_value(field, on, word, "neither 0 nor 1");
}

Checked set_size(auto& field, Word const& word, std::uint64_t least, std::uint64_t most) {
  auto const size = parse_size(word.value);
  auto const good = size && *size >= least && *size <= most;
  return set_value(field, good ? size : std::nullopt, word,
                   "not a size such as 64M, or out of range (" + std::to_string(least) + " to " +
                       std::to_string(most) + " bytes)");
}

Checked set_seconds(std::chrono::seconds& field, Word const& word) {
  return set_value(field, parse_seconds(word.value, 1), word,
                   "not a number of seconds from 1 to 86400");
}

Checked set_seconds_or_off(auto& field, Word const& word) {
  return set_value(field, parse_seconds(word.value == "off" ? "0" : word.value, 0), word,
                   "neither off nor a number of seconds from 0 to 86400");
}

/// DIR[:DIR]...|none
Checked set_hosts(ImageOptions& image, Word const& word) {
  auto const good =
      word.value == "none" || erofs_oci::are_parts_good(word.value, ':', [](std::string_view path) {
        return path.starts_with('/') && path.find('\0') == path.npos;
      });
  return set_value(image.hosts, good ? std::optional(word.value) : std::nullopt, word,
                   "neither none nor absolute paths of directories, joined by colons");
}

template <class E>
Checked set_choice(E& value, Word const& word,
                   std::initializer_list<std::pair<std::string_view, E>> choices) {
  std::optional<E> chosen;
  std::string all;
  for (auto const& [name, meaning] : choices) {
    if (word.value == name) chosen = meaning;
    (all += all.empty() ? "none of " : ", ") += name;
  }
  return set_value(value, chosen, word, all);
}

/// signed|bound|trusted|none, a directory, or an OCI layout.
Checked set_index(ImageOptions& image, Word const& word) {
  constexpr std::string_view layout = "oci:";
  if (word.value.starts_with(layout)) {
    auto directory = word;
    directory.value.erase(0, layout.size());
    if (!erofs_oci::is_absolute_path(directory.value)) {
      return usage("-o " + word.key + "=" + word.value + ": not oci: and an absolute path");
    }
    return set_text(image.index_layout, directory);
  }
  if (erofs_oci::is_absolute_path(word.value)) return set_text(image.index_directory, word);
  return set_choice(image.index, word,
                    {{"none", IndexUse::none},
                     {"signed", IndexUse::by_key},
                     {"bound", IndexUse::bound},
                     {"trusted", IndexUse::trusted}});
}

Checked set_verify(ImageOptions& image, Word const& word) {
  return set_value(image.verify, parse_verify(word.value), word,
                   "none of off, lazy, background, before");
}

/// off|try|require, or the root hash that is required.
Checked set_verity(ImageOptions& image, Word const& word) {
  if (auto const root = erofs_oci::Digest::parse("sha256:" + word.value)) {
    image.verity_root = *root;
    image.verity = VerityUse::require;
    return {};
  }
  image.verity_root.reset();
  return set_choice(image.verity, word,
                    {{"off", VerityUse::off},
                     {"try", VerityUse::attempt},
                     {"require", VerityUse::require},
                     {"a root hash of 64 hexadecimal digits", VerityUse::require}});
}

Checked set_pull(ImageOptions& image, Word const& word) {
  return set_choice(image.pull, word,
                    {{"always", Pull::always}, {"missing", Pull::missing}, {"never", Pull::never}});
}

Checked set_start_list(ImageOptions& image, Word const& word) {
  return set_choice(image.start_list, word,
                    {{"off", StartListUse::off},
                     {"record", StartListUse::record},
                     {"use", StartListUse::use},
                     {"all", StartListUse::all}});
}

/// DIR|none; a worker changes its directory.
Checked set_cache_dir(ImageOptions& image, Word const& word) {
  auto const good = word.value == "none" || erofs_oci::is_absolute_path(word.value);
  return set_value(image.cache_dir, good ? std::optional(word.value) : std::nullopt, word,
                   "neither none nor an absolute path");
}

Checked set_connections(ImageOptions& image, Word const& word) {
  auto number = erofs_oci::whole_number<unsigned>(word.value);
  if (number && (*number < 1 || *number > 64)) number.reset();
  return set_value(image.connections, number, word, "not a number from 1 to 64");
}

struct ImageWord {
  std::string_view name;
  Checked (*apply)(ImageOptions&, Word const&);
};

constexpr std::array image_words{
    ImageWord{"oci.blob", set_blob},
    ImageWord{"oci.layer", set_layer},
    ImageWord{"oci.first_layers", set_first_layers},
    ImageWord{"oci.platform", set_platform},
    ImageWord{"oci.username", [](auto& i, auto& w) { return set_text(i.username, w); }},
    ImageWord{"oci.password", [](auto& i, auto& w) { return set_text(i.password, w); }},
    ImageWord{"oci.password_file", [](auto& i, auto& w) { return set_text(i.password_file, w); }},
    ImageWord{"oci.tarindex", [](auto& i, auto& w) { return set_text(i.tarindex, w); }},
    ImageWord{"oci.zinfo", [](auto& i, auto& w) { return set_text(i.zinfo, w); }},
    ImageWord{"oci.insecure", [](auto& i, auto& w) { return set_switch(i.insecure, w); }},
    ImageWord{"oci.mirror", [](auto& i, auto& w) { return set_text(i.mirrors.emplace_back(), w); }},
    ImageWord{"oci.hosts", set_hosts},
    ImageWord{"oci.allow_private", [](auto& i, auto& w) { return set_switch(i.allow_private, w); }},
    ImageWord{"oci.ca", [](auto& i, auto& w) { return set_text(i.ca, w); }},
    ImageWord{"oci.memory",
              [](auto& i, auto& w) { return set_size(i.memory, w, 64u << 20, 1ull << 41); }},
    ImageWord{"oci.cache",
              [](auto& i, auto& w) { return set_size(i.cache, w, 1u << 20, 1ull << 40); }},
    ImageWord{"oci.idle", [](auto& i, auto& w) { return set_seconds_or_off(i.idle, w); }},
    ImageWord{"oci.index_size",
              [](auto& i, auto& w) { return set_size(i.index_size, w, 1u << 20, 1ull << 50); }},
    ImageWord{"oci.index_time", [](auto& i, auto& w) { return set_seconds(i.index_time, w); }},
    ImageWord{"oci.readahead",
              [](auto& i, auto& w) { return set_size(i.readahead, w, 0, 1u << 30); }},
    ImageWord{"oci.index", set_index},
    ImageWord{"oci.index_key",
              [](auto& i, auto& w) { return set_text(i.index_keys.emplace_back(), w); }},
    ImageWord{"oci.verify", set_verify},
    ImageWord{"oci.verity", set_verity},
    ImageWord{"oci.native", [](auto& i, auto& w) { return set_switch(i.native, w); }},
    ImageWord{"oci.store", [](auto& i, auto& w) { return set_text(i.store, w); }},
    ImageWord{"oci.cache_dir", set_cache_dir},
    ImageWord{"oci.cache_size",
              [](auto& i, auto& w) { return set_size(i.cache_size, w, 1u << 20, 1ull << 50); }},
    ImageWord{"oci.pull", set_pull},
    ImageWord{"oci.retry", [](auto& i, auto& w) { return set_seconds_or_off(i.retry, w); }},
    ImageWord{"oci.timeout", [](auto& i, auto& w) { return set_seconds(i.timeout, w); }},
    ImageWord{"oci.connections", set_connections},
    ImageWord{"oci.start_list", set_start_list},
    ImageWord{"oci.hedge", [](auto& i, auto& w) { return set_switch(i.hedge, w); }},
    ImageWord{"oci.share", [](auto& i, auto& w) { return set_switch(i.share, w); }},
};

constexpr std::string_view writable_word = "oci.writable";

/// oci.writable[=DIR], as --writable[=DIR].
Checked set_writable(Word const& word, Options& options) {
  if (options.command != Command::mount) {
    return usage("-o " + word.key + ": this command does not mount anything");
  }
  if (word.has_value) {
    if (auto ok = set_text(options.mount.writable_directory, word); !ok) return ok;
  }
  options.mount.writable = true;
  return {};
}

std::string suggestion(std::string_view key) {
  auto const known = option_words();
  std::vector<std::string_view> const names(known.begin(), known.end());
  auto const meant = close_to(key, names);
  return meant ? "; did you mean `" + std::string(*meant) + "`?" : "";
}

Checked apply_word(Word const& word, Options& options) {
  auto const key = erofs_oci::ascii_lower(word.key);
  if (!key.starts_with("oci") && !key.starts_with("s3.")) {
    return apply_generic(word, options.command, options.mount);
  }
  // A disguised key would hide a secret from scrub_secrets().
  if (!word.raw.starts_with(word.key))
    return usage("-o " + word.key + ": quotes belong to a value");
  if (word.key == writable_word) return set_writable(word, options);
  auto const known = std::ranges::find(image_words, word.key, &ImageWord::name);
  if (known != image_words.end()) return known->apply(options.image, word);
  // Only the key: the value of a misspelt oci.pasword= is a secret all the same.
  return usage("-o " + word.key + ": unknown word" + suggestion(word.key));
}

/// Words that replace what a place of less weight says by any of them.
constexpr std::array<std::array<std::string_view, 3>, 4> replacing{{
    {"oci.username", "oci.password", "oci.password_file"},
    {"oci.blob", "oci.layer", "oci.first_layers"},
    {"oci.mirror", "", ""},
    {"oci.index_key", "", ""},
}};

/// Forgets what the words of one place, which follow, replace.
void forget_replaced(std::vector<Word> const& words, ImageOptions& image) {
  auto const names_one_of = [&](auto const& group) {
    return std::ranges::any_of(
        words, [&](Word const& word) { return std::ranges::find(group, word.key) != group.end(); });
  };
  if (names_one_of(replacing[0])) {
    image.username.clear();
    image.password.clear();
    image.password_file.clear();
  }
  if (names_one_of(replacing[1])) {
    image.blob.clear();
    image.layer.reset();
    image.first_layers.reset();
  }
  if (names_one_of(replacing[2])) image.mirrors.clear();
  if (names_one_of(replacing[3])) image.index_keys.clear();
}

/// Applies one word of the configuration file. One that mounts alone understand says nothing to
/// another command, and none goes to the kernel unseen.
Checked apply_config_word(ConfigWord const& config, Options& options) {
  auto word = config.word;
  auto const is_writable = word.key == writable_word;
  if (is_writable || !word.key.starts_with("oci.")) {
    if (!is_writable && word.key != "stack" && !is_ignored(word.key) && !is_flag(word.key)) {
      return usage(config.place + word.key + ": unknown word" + suggestion(word.key));
    }
    auto const is_true = config.is_switch && word.value == "true";
    if (!is_true && (config.is_switch || !is_writable)) {
      return usage(config.place + word.key + ": may only be true");
    }
    if (is_true) word.has_value = false;
    if (options.command != Command::mount) return {};
  }
  auto ok = apply_word(word, options);
  if (ok) return ok;
  auto const& text = ok.error().text;
  return usage(config.place + text.substr(text.starts_with("-o ") ? 3 : 0));
}

/// Refuses what looks like the end of a password with a comma, without repeating it.
Checked check_password(std::vector<Word> const& words) {
  auto const known = option_words();
  for (std::size_t i = 1; i < words.size(); ++i) {
    auto const key = erofs_oci::ascii_lower(words[i].key);
    if (words[i - 1].key != "oci.password" || key.starts_with("oci.") || is_ignored(key)) continue;
    if (std::ranges::find(known, key) != known.end()) continue;
    return usage(
        "-o oci.password: behind its comma stands no word; a value with a comma is written "
        "in double quotes");
  }
  return {};
}

Checked apply_config(Options& options) {
  if (!options.config_reader) return {};
  auto const config = options.config_reader(options.config);
  if (!config) return tl::unexpected(config.error());
  if (!config->empty()) {
    options.image.config = options.config.empty() ? std::string(default_config) : options.config;
  }
  std::vector<std::string> places{""};
  if (auto own = registry_of_image(options.image.image); !own.empty())
    places.push_back(std::move(own));
  for (auto const& place : places) {
    std::vector<Word> words;
    for (auto const& one : *config) {
      if (one.registry == place) words.push_back(one.word);
    }
    forget_replaced(words, options.image);
    for (auto const& one : *config) {
      if (one.registry != place) continue;
      if (auto ok = apply_config_word(one, options); !ok) return ok;
    }
  }
  // Mistakes in the tables of other registries are mistakes, too.
  for (auto const& one : *config) {
    Options unused;
    if (auto ok = apply_config_word(one, unused); !ok) return ok;
  }
  return {};
}

}  // namespace

std::vector<std::string> option_words() {
  std::vector<std::string> words{"stack", std::string(writable_word)};
  for (auto const& word : image_words) words.emplace_back(word.name);
  for (auto const& flag : flag_words) {
    for (auto const& word : {flag.set, flag.clear}) {
      if (word != no_word) words.emplace_back(word);
    }
  }
  words.insert(words.end(), ignored_words.begin(), ignored_words.end());
  words.insert(words.end(), kernel_words.begin(), kernel_words.end());
  return words;
}

std::string registry_of_image(std::string const& image) {
  auto const name = erofs_oci::ImageName::parse(image);
  if (name.place != erofs_oci::ImagePlace::registry) return {};
  auto const reference = erofs_oci::Reference::parse(name.path);
  return reference ? reference->registry : std::string();
}

std::optional<Verify> parse_verify(std::string_view text) {
  for (auto const verify : {Verify::off, Verify::lazy, Verify::background, Verify::before}) {
    if (text == name_of(verify)) return verify;
  }
  return std::nullopt;
}

std::string_view name_of(Verify verify) {
  constexpr std::array<std::string_view, 4> names{"off", "lazy", "background", "before"};
  return names.at(static_cast<std::size_t>(verify));
}

tl::expected<ImageOptions, UsageError> options_in_config(std::string const& path,
                                                         std::string const& image,
                                                         ConfigReader const& reader) {
  Options options;
  options.config = path;
  options.config_reader = reader;
  options.image.image = image;
  if (auto ok = apply_config(options); !ok) return tl::unexpected(std::move(ok).error());
  return std::move(options.image);
}

Checked apply_lists(std::vector<std::string> const& lists, Options& options) {
  std::vector<Word> words;
  for (auto const& list : lists) {
    auto more = split_list(list);
    if (!more) return tl::unexpected(more.error());
    std::ranges::move(*more, std::back_inserter(words));
  }
  if (auto ok = apply_config(options); !ok) return ok;
  forget_replaced(words, options.image);
  if (auto ok = check_password(words); !ok) return ok;
  for (auto const& word : words) {
    if (auto ok = apply_word(word, options); !ok) return ok;
  }
  auto const& image = options.image;
  if (!image.blob.empty() && image.layer) {
    return usage("-o: oci.blob and oci.layer cannot be set together");
  }
  if (image.first_layers && (image.layer || !image.blob.empty())) {
    return usage("-o: oci.first_layers goes with neither oci.blob nor oci.layer");
  }
  if (image.cache_bytes() > image.budget().cache()) {
    return usage("-o: oci.cache may be at most half of oci.memory");
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

}  // namespace mount_oci
