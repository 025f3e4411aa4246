// SPDX-License-Identifier: Apache-2.0
// The words of -o lists.
#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include <sys/mount.h>

#include "parsing.hpp"

namespace mount_oci {
namespace {

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
  if (command != Command::mount) {
    return usage("-o " + word.key + ": this command does not mount anything");
  }
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

Checked set_timeout(ImageOptions& image, Word const& word) {
  auto const value = parse_seconds(word.value, 1);
  if (!value) {
    return usage("-o oci.timeout=" + word.value + ": not a number of seconds from 1 to 86400");
  }
  image.timeout = *value;
  return {};
}

Checked set_retry(ImageOptions& image, Word const& word) {
  image.retry = word.value == "off" ? std::chrono::seconds(0) : parse_seconds(word.value, 0);
  if (!image.retry) {
    return usage("-o oci.retry=" + word.value +
                 ": neither off nor a number of seconds from 0 to 86400");
  }
  return {};
}

Checked set_soci(ImageOptions& image, Word const& word) {
  if (word.value == "none") {
    image.soci = SociUse::none;
  } else if (word.value == "bound") {
    image.soci = SociUse::bound;
  } else if (word.value == "trusted") {
    image.soci = SociUse::trusted;
  } else {
    return usage("-o oci.soci=" + word.value + ": none of none, bound, trusted");
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
    ImageWord{"oci.soci", set_soci},
    ImageWord{"oci.store", [](auto& i, auto& w) { return set_text(i.store, w); }},
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

}  // namespace

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

}  // namespace mount_oci
