// SPDX-License-Identifier: Apache-2.0
// cache: what is kept of registries.
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <erofs_oci/cache/blob_cache.hpp>
#include <erofs_oci/cache/document_store.hpp>
#include <erofs_oci/erofs/inode.hpp>

#include "commands.hpp"
#include "confine.hpp"
#include "layer_cache.hpp"
#include "output.hpp"
#include "progress.hpp"

namespace mount_oci {
namespace {

using erofs_oci::BlobCache;
using erofs_oci::BlobContents;
using erofs_oci::DocumentStore;
using erofs_oci::fail;
using erofs_oci::KeptBlob;
using erofs_oci::json::Value;

constexpr std::int64_t per_second = 1'000'000'000;  // nanoseconds

/// A line for each blob, as text or JSON.
class BlobLines {
 public:
  BlobLines(Output& output, bool json) : output_(output), json_(json) {}

  [[nodiscard]] Result<void> put(Value const& object, std::string const& text) {
    return json_ ? output_.put_json(object) : output_.put(text + "\n");
  }

 private:
  Output& output_;
  bool json_;
};

Result<void> list_blobs(BlobCache const& cache, BlobLines& lines) {
  EROFS_OCI_TRY_ASSIGN(auto const blobs, cache.list());
  for (auto const& blob : blobs) {
    auto const found = cache.look_at(blob.name).value_or(BlobContents{});  // it may have just gone
    auto const whole = found.kept == blob.name.size;
    auto const used = blob.used / per_second;
    EROFS_OCI_TRY(lines.put({{"digest", blob.name.digest.to_string()},
                             {"size", blob.name.size},
                             {"kept", found.kept},
                             {"complete", whole},
                             {"on_disk", blob.on_disk},
                             {"used", used}},
                            blob.name.digest.to_string() + "  " + size_text(found.kept) + " of " +
                                size_text(blob.name.size) + (whole ? ", complete" : "") +
                                ", used " + time_text({used, 0})));
  }
  return {};
}

Result<void> show_usage(BlobCache const& cache, BlobLines& lines) {
  EROFS_OCI_TRY_ASSIGN(auto const blobs, cache.list());
  auto const bytes = erofs_oci::bytes_on_disk(blobs);
  return lines.put({{"directory", cache.path()},
                    {"blobs", blobs.size()},
                    {"on_disk", bytes},
                    {"limit", cache.limit()}},
                   cache.path() + "  " + counted(blobs.size(), "blob") + ", " + size_text(bytes) +
                       " of at most " + size_text(cache.limit()));
}

/// The blobs that the command line names; all if it names none.
Result<std::vector<KeptBlob>> chosen_blobs(BlobCache const& cache,
                                           std::vector<std::string> const& names) {
  EROFS_OCI_TRY_ASSIGN(auto blobs, cache.list());
  if (names.empty()) return blobs;
  std::vector<KeptBlob> found;
  for (auto const& name : names) {
    auto const before = found.size();
    for (auto const& blob : blobs) {
      if (blob.name.digest.to_string() == name) found.push_back(blob);
    }
    if (found.size() == before) return fail(Errc::not_found, cache.path() + ": " + name);
  }
  return found;
}

/// The status: 1 if something was damaged.
Result<int> verify_blobs(BlobCache const& cache, std::vector<std::string> const& names,
                         BlobLines& lines) {
  EROFS_OCI_TRY_ASSIGN(auto const blobs, chosen_blobs(cache, names));
  int status = 0;
  for (auto const& blob : blobs) {
    auto const found = cache.verify(blob.name);
    if (!found && found.error().code == std::errc::no_such_file_or_directory) continue;
    if (!found) return fail(found.error());
    if (found->damaged > 0) status = 1;
    EROFS_OCI_TRY(lines.put(
        {{"digest", blob.name.digest.to_string()},
         {"kept", found->kept},
         {"damaged", found->damaged}},
        blob.name.digest.to_string() + "  " + size_text(found->kept) + ", " +
            (found->damaged == 0 ? std::string("good")
                                 : counted(found->damaged, "damaged chunk") + " removed")));
  }
  return status;
}

Result<void> tell_removed(std::vector<KeptBlob> const& blobs, BlobLines& lines) {
  for (auto const& blob : blobs) {
    EROFS_OCI_TRY(
        lines.put({{"digest", blob.name.digest.to_string()}, {"removed", blob.on_disk}},
                  blob.name.digest.to_string() + "  " + size_text(blob.on_disk) + " removed"));
  }
  return {};
}

Result<void> prune_blobs(BlobCache const& cache, RecordOptions const& keep, BlobLines& lines) {
  auto const bytes = keep.keep_bytes.value_or(std::numeric_limits<std::uint64_t>::max());
  auto before = std::numeric_limits<std::int64_t>::min();
  if (keep.keep_used) {
    auto const now = std::chrono::system_clock::now().time_since_epoch();
    before = std::chrono::nanoseconds(now - *keep.keep_used).count();
  }
  EROFS_OCI_TRY_ASSIGN(auto const removed, cache.prune(bytes, before));
  return tell_removed(removed, lines);
}

Result<void> remove_blobs(BlobCache const& cache, CacheCommandOptions const& options,
                          BlobLines& lines) {
  EROFS_OCI_TRY_ASSIGN(auto const blobs, chosen_blobs(cache, options.digests));
  for (auto const& blob : blobs) cache.remove(blob.name);
  if (options.all) {
    auto const root = std::filesystem::path(cache.path()).parent_path().string();
    EROFS_OCI_TRY_ASSIGN(auto const documents, DocumentStore::open(root, cache.options().owner));
    documents->clear();
  }
  return tell_removed(blobs, lines);
}

}  // namespace

Result<int> run_cache(Options const& options, Log&) {
  EROFS_OCI_TRY_ASSIGN(auto const path, cache_path(options.image), "oci.cache_dir");
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return 0;  // nothing is kept
  EROFS_OCI_TRY_ASSIGN(auto const cache, BlobCache::open(path, {.limit = options.image.cache_size,
                                                                .owner = store_owner(path)}));
  Output output;
  BlobLines lines(output, options.read.json);
  auto const& action = options.cache.action;
  Result<int> status = 0;
  Result<void> done;
  if (action == "ls") done = list_blobs(*cache, lines);
  if (action == "du") done = show_usage(*cache, lines);
  if (action == "verify") status = verify_blobs(*cache, options.cache.digests, lines);
  if (action == "prune") done = prune_blobs(*cache, options.record, lines);
  if (action == "rm") done = remove_blobs(*cache, options.cache, lines);
  if (!done) return fail(done.error());
  EROFS_OCI_TRY(output.flush());
  return status;
}

}  // namespace mount_oci
