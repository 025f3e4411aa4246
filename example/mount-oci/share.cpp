// SPDX-License-Identifier: Apache-2.0
#include "share.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/host/detached_mount.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/image/image_name.hpp>
#include <erofs_oci/mount/mount_channel.hpp>
#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/reference.hpp>
#include <erofs_oci/version.hpp>

#include "control.hpp"
#include "find_image.hpp"
#include "indexing.hpp"
#include "layer_cache.hpp"
#include "mount_journal.hpp"
#include "mount_table.hpp"
#include "reader.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::ImageName;
using erofs_oci::ImagePlace;
using erofs_oci::MountChannel;
using erofs_oci::MountMessage;
using erofs_oci::MountPoint;
using erofs_oci::Record;
using erofs_oci::RecordSource;
using namespace std::chrono_literals;

constexpr auto patience_for_others = 60s;  // that mount the same

// ---------------------------------------------------------------- the key

/// Flags that each mount of a file system has for itself.
constexpr unsigned long own_flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME |
                                    MS_NODIRATIME | MS_RELATIME | MS_SILENT;

/// Variables that say how a registry is reached.
constexpr std::array variables{"SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY",
                               "ALL_PROXY",     "NO_PROXY",     "http_proxy", "https_proxy",
                               "all_proxy",     "no_proxy"};

/// Those of docker's and podman's files that are there. Where others would be differs between a
/// login and a service, and says nothing.
std::vector<std::string> credential_files(ImageOptions const& image) {
  auto files = image.config_files.empty() ? erofs_oci::default_config_files() : image.config_files;
  std::erase_if(files, [](std::string const& file) {
    std::error_code error;
    return !std::filesystem::exists(file, error);
  });
  return files;
}

/// A text made of values such that no two lists of values make the same one.
class KeyText {
 public:
  KeyText& text(std::string_view value) {
    text_ += std::to_string(value.size()) + ":";
    text_ += value;
    return *this;
  }
  KeyText& path(std::string const& value) {
    if (value.empty() || value == "none") return text(value);
    std::error_code error;
    auto const absolute = std::filesystem::absolute(value, error);
    return text(error ? value : absolute.lexically_normal().string());
  }
  template <class Number>
    requires std::is_arithmetic_v<Number> || std::is_enum_v<Number>
  KeyText& number(Number value) {
    return text(std::to_string(static_cast<std::uint64_t>(value)));
  }
  KeyText& number(std::chrono::seconds value) { return number(value.count()); }
  template <class T>
  KeyText& maybe(std::optional<T> const& value) {
    return value ? number(*value) : text("-");
  }
  KeyText& texts(std::vector<std::string> const& values) {
    number(values.size());
    for (auto const& value : values) text(value);
    return *this;
  }
  KeyText& paths(std::vector<std::string> const& values) {
    number(values.size());
    for (auto const& value : values) path(value);
    return *this;
  }

  [[nodiscard]] std::string digest() const {
    return erofs_oci::digest_of(erofs_oci::as_bytes(text_)).hex();
  }

 private:
  std::string text_;
};

void add_served(ImageOptions const& image, KeyText& key) {
  key.text(image.blob).maybe(image.layer).maybe(image.first_layers).text(image.platform);
  key.path(image.tarindex).path(image.zinfo).number(image.index).paths(image.index_keys);
  key.path(image.index_directory).path(image.index_layout).number(image.verify);
  key.number(image.verity).text(image.verity_root ? image.verity_root->to_string() : "");
  key.number(image.native).path(store_path(image).value_or("none"));
  key.path(cache_path(image).value_or("none")).maybe(image.cache_size);
}

void add_reach(ImageOptions const& image, KeyText& key) {
  key.text(image.username).path(image.password_file).paths(credential_files(image));
  key.number(image.pull).path(image.ca).texts(image.mirrors).text(image.hosts);
  key.number(image.allow_private).number(image.insecure).maybe(image.memory).maybe(image.cache);
  key.number(image.idle).maybe(image.index_size).number(image.index_time);
  key.number(image.readahead).number(image.timeout).maybe(image.retry).number(image.connections);
  key.number(image.hedge).number(image.start_list).path(image.config);
  key.number(image.allow_unconfined);
  for (auto const* const name : variables) {
    auto const* const value = std::getenv(name);
    key.text(value != nullptr ? value : "");
  }
}

// ---------------------------------------------------------------- servers

/// Whether a record is of an image in the same repository, layout or file.
bool is_of_place(Record const& record, ImageName const& name) {
  auto const& image = record.image;
  auto const real = [&] { return real_path(name.path).value_or(name.path); };
  switch (image.source) {
    case RecordSource::layout: return name.place == ImagePlace::layout && real() == image.directory;
    case RecordSource::files:
      return name.place == ImagePlace::file && real() == image.layers.front().file->path;
    case RecordSource::registry: break;
  }
  auto const reference = erofs_oci::Reference::parse(name.path);
  return name.place == ImagePlace::registry && reference && reference->registry == image.registry &&
         reference->repository == image.repository;
}

/// Whether a server lives, has this key and may be shared.
bool serves_by_key(std::string const& journal, std::string const& name, std::string const& key) {
  auto const answer = ask_control(control_path(journal, name), share_question);
  if (!answer) return false;
  auto const value = erofs_oci::json::parse(erofs_oci::as_bytes(*answer), "share");
  return value && erofs_oci::json::text(*value, "share") == key;
}

/// A server that could be shared, and its mounts that this process can see.
struct Candidate {
  std::string name;  ///< of its record
  Record record;
  std::vector<MountEntry> mounts;
};

Result<std::vector<Candidate>> find_candidates(Options const& options, std::string const& journal,
                                               std::string const& key) {
  EROFS_OCI_TRY_ASSIGN(auto noted, noted_mounts(options));
  EROFS_OCI_TRY_ASSIGN(auto const table, read_mount_table());
  auto const name = ImageName::parse(options.image.image);
  std::vector<Candidate> found;
  for (auto& one : noted) {
    if (!one.held || !one.record || !one.record->image.mismatch.empty()) continue;
    if (!is_of_place(*one.record, name)) continue;
    auto mounts = one.mounts(table);
    if (mounts.empty() || !serves_by_key(journal, one.name, key)) continue;
    found.push_back({one.name, *std::move(one.record), std::move(mounts)});
  }
  return found;
}

// ---------------------------------------------------------------- which image it is

/// Whether a local file that a server reads is still the one that it was.
bool is_unchanged(std::optional<erofs_oci::LocalFile> const& file) {
  return !file || erofs_oci::open_unchanged(*file).has_value();
}

/// Whether a server serves what was found.
bool is_same(FoundImage const& found, erofs_oci::RecordImage const& image) {
  auto const same_layer = [](FoundLayer const& one, erofs_oci::RecordLayer const& other) {
    return one.descriptor.digest == other.digest.value_or(erofs_oci::Digest()) &&
           is_unchanged(other.file) && is_unchanged(other.zinfo);
  };
  return found.digest == image.manifest && is_unchanged(image.tarindex) &&
         std::ranges::equal(found.layers, image.layers, same_layer);
}

/// In a process of its own: the number of the first candidate that serves the image.
Result<std::string> find_same(ImageOptions image, std::vector<Candidate> const& candidates,
                              Log const& log) {
  hide_memory();
  image.take_no_index();  // only the image's digests are wanted
  EROFS_OCI_TRY(become_reader(image, nullptr, {}, log));
  EROFS_OCI_TRY_ASSIGN(auto const found, find_image(image, log));
  auto const same = std::ranges::find_if(
      candidates, [&](Candidate const& one) { return is_same(found, one.record.image); });
  return std::to_string(same - candidates.begin());
}

/// The candidate that serves the image; null: none. A confined process finds out.
Result<Candidate const*> same_candidate(ImageOptions const& image,
                                        std::vector<Candidate> const& candidates, Log const& log) {
  EROFS_OCI_TRY_ASSIGN(auto links, MountChannel::make());
  auto const child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child == 0) {
    links.first.close();
    auto const done = find_same(image, candidates, log);
    links.second.tell(done ? MountMessage{MountMessage::Kind::opened, *done, {}, {}}
                           : MountMessage{MountMessage::Kind::failed, {}, done.error(), {}});
    std::_Exit(done ? 0 : 2);
  }
  links.second.close();
  auto const message = links.first.receive();
  ::waitpid(child, nullptr, 0);
  if (!message) return fail(message.error(), "the process that looks for the image");
  if (message->kind != MountMessage::Kind::opened) return fail(message->error);
  auto const number = erofs_oci::whole_number<std::size_t>(message->text);
  if (!number || *number >= candidates.size()) return nullptr;
  return &candidates[*number];
}

// ---------------------------------------------------------------- the clone

/// A clone of one of a server's mounts, and where that one is. While the clone is there, the file
/// system is mounted, also if all its other mounts end.
Result<std::pair<UniqueFd, std::string>> clone_any(Candidate const& server, unsigned long flags) {
  auto why = erofs_oci::make_error(Errc::not_found, "no mount");
  for (auto const& entry : server.mounts) {
    auto clone = erofs_oci::clone_of_mount(entry.target, entry.id, flags);
    if (clone) return std::pair(*std::move(clone), entry.target);
    why = clone.error();
  }
  return fail(std::move(why));
}

}  // namespace

std::string share_key(Options const& options) {
  auto const& [image, mount, keep] = std::tie(options.image, options.mount, options.keep);
  auto const alone = !image.share || mount.foreground || mount.writable || mount.fake ||
                     !mount.name_space.empty() || !keep.supervise || !keep.metrics.empty() ||
                     !image.password.empty() || image.in_place_of;
  if (alone) return {};
  KeyText key;
  key.text(erofs_oci::version);
  add_served(image, key);
  add_reach(image, key);
  key.text(mount.data).number(mount.flags & ~own_flags).number(mount.attach);
  key.number(keep.dead_timeout);
  return key.digest();
}

std::string share_answer(std::string const& key) {
  return erofs_oci::json::Value{{"share", key}}.dump();
}

ShareTurn ShareTurn::wait(Options const& options, std::string const& key, Log const& log) {
  if (key.empty()) return ShareTurn();
  auto const path = journal_path(options);
  auto const journal = path ? erofs_oci::Journal::open(*path) : fail(path.error());
  if (!journal) return ShareTurn();  // MountJournal tells why
  auto const what = KeyText().text(key).text(options.image.image).digest();
  auto const name = "share-" + what.substr(0, 32);
  auto entry = journal->acquire(name);
  if (!entry && entry.error().code == std::errc::device_or_resource_busy) {
    log.say(Level::info, "another process is mounting this image; waiting for it");
    entry = journal->acquire(name, patience_for_others);
  }
  if (!entry) return ShareTurn();
  return ShareTurn(*std::move(entry));
}

ShareTurn::~ShareTurn() {
  if (entry_) static_cast<void>((*std::move(entry_)).remove());  // else gc() does
}

bool is_same_image(ImageOptions const& options, NotedMount const& noted, Log& log) {
  if (!noted.record || !is_of_place(*noted.record, ImageName::parse(options.image))) return false;
  std::vector<Candidate> const one{{noted.name, *noted.record, {}}};
  return same_candidate(options, one, log).value_or(nullptr) != nullptr;
}

Result<std::string> mount_shared(Options const& options, std::string const& key, Log& log) {
  auto const journal = journal_path(options);
  if (!journal) return std::string();  // no place for records, no server that has one
  auto const candidates = find_candidates(options, *journal, key);
  if (!candidates || candidates->empty()) return std::string();
  EROFS_OCI_TRY_ASSIGN(auto const* const server, same_candidate(options.image, *candidates, log));
  if (server == nullptr) return std::string();
  auto const clone = clone_any(*server, options.mount.flags);
  // It may have ended, or be ending under its users.
  auto const good = clone && erofs_oci::check_mounted(clone->first.get(), clone->second) &&
                    serves_by_key(*journal, server->name, key);
  if (!good) {
    log.say(Level::info, "a server of this image cannot be shared" +
                             (clone ? std::string() : ": " + clone.error().message()));
    return std::string();
  }
  EROFS_OCI_TRY_ASSIGN(auto const place, MountPoint::open(options.mount.target));
  EROFS_OCI_TRY(place.attach(clone->first.get()));
  return clone->second;
}

}  // namespace mount_oci
