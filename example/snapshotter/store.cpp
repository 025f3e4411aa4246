// SPDX-License-Identifier: Apache-2.0
#include "store.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <set>
#include <string_view>
#include <system_error>

#include "refusal.hpp"

namespace oci_snapshotter {

using erofs_oci::Digest;
using erofs_oci::Errc;
using erofs_oci::fail;

namespace {

constexpr DatabaseForm form{
    .application = 0x6f636973,  // "ocis"
    .version = 1,
    .tables = R"(
CREATE TABLE snapshots(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, parent TEXT NOT NULL,
  kind INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL, depth INTEGER NOT NULL,
  chain TEXT NOT NULL);
CREATE TABLE labels(snapshot INTEGER NOT NULL REFERENCES snapshots(id) ON DELETE CASCADE,
  name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(snapshot, name)) WITHOUT ROWID;
CREATE TABLE claims(snapshot INTEGER NOT NULL REFERENCES snapshots(id) ON DELETE CASCADE,
  place INTEGER NOT NULL, manifest TEXT NOT NULL, PRIMARY KEY(snapshot, place)) WITHOUT ROWID;
CREATE TABLE images(manifest TEXT PRIMARY KEY, repository TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE image_layers(manifest TEXT NOT NULL REFERENCES images(manifest) ON DELETE CASCADE,
  place INTEGER NOT NULL, digest TEXT NOT NULL, diff_id TEXT NOT NULL,
  PRIMARY KEY(manifest, place)) WITHOUT ROWID;
CREATE TABLE refuted(manifest TEXT PRIMARY KEY, why TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE layers(digest TEXT PRIMARY KEY, diff_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counter(next INTEGER NOT NULL);
INSERT INTO counter VALUES(1);)",
    .way_to_heal =
        "to heal it, put the file back from a backup; or stop the snapshotter, move its whole root "
        "directory away, start it, remove from containerd all images and containers that use this "
        "snapshotter, and pull the images again"};

std::int64_t ticks(Time time) {
  return time.time_since_epoch().count();
}

Time time_of(std::int64_t ticks) {
  return Time(std::chrono::nanoseconds(ticks));
}

std::int64_t number(Row const& row, std::size_t at) {
  auto const* const value = std::get_if<std::int64_t>(&row.at(at));
  return value == nullptr ? 0 : *value;
}

std::string text(Row const& row, std::size_t at) {
  auto const* const value = std::get_if<std::string>(&row.at(at));
  return value == nullptr ? std::string() : *value;
}

tl::unexpected<Error> no_such(std::string const& name) {
  return refuse(Refusal::not_found, "snapshot `" + name + "` does not exist");
}

tl::unexpected<Error> taken(std::string const& name) {
  return refuse(Refusal::already_exists, "snapshot `" + name + "` exists already");
}

}  // namespace

Time SnapshotStore::system_time() {
  return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

// ---------------------------------------------------------------- from the file

Result<std::unique_ptr<SnapshotStore>> SnapshotStore::open(std::string const& path, Now now) {
  EROFS_OCI_TRY_ASSIGN(auto database, Database::open(path, form));
  std::unique_ptr<SnapshotStore> store(new SnapshotStore(std::move(database), std::move(now)));
  auto loaded = store->load();
  if (loaded) return store;
  auto error = erofs_oci::make_error(std::move(loaded).error(), path);
  error.context += " (" + std::string(form.way_to_heal) + ")";
  return tl::unexpected(std::move(error));
}

Result<void> SnapshotStore::load() {
  EROFS_OCI_TRY(load_snapshots());
  EROFS_OCI_TRY(load_images());
  EROFS_OCI_TRY_ASSIGN(auto const next, database_.run("SELECT next FROM counter"));
  if (next.size() != 1) return fail(Errc::corrupt, "no counter");
  next_id_ = static_cast<std::uint64_t>(number(next[0], 0));
  for (auto const& [name, row] : rows_) next_id_ = std::max(next_id_, row.id + 1);
  return check_rows();
}

Result<void> SnapshotStore::load_snapshots() {
  std::map<std::int64_t, Snapshot> by_id;
  EROFS_OCI_TRY_ASSIGN(
      auto const snapshots,
      database_.run(
          "SELECT id, name, parent, kind, created, updated, depth, chain FROM snapshots"));
  for (auto const& row : snapshots) {
    auto& one = by_id[number(row, 0)];
    one.id = static_cast<std::uint64_t>(number(row, 0));
    auto const kind = number(row, 3);
    if (kind < 1 || kind > 3) return fail(Errc::corrupt, "a kind that does not exist");
    one.info = {text(row, 1),
                text(row, 2),
                static_cast<Kind>(kind),
                time_of(number(row, 4)),
                time_of(number(row, 5)),
                {}};
    one.depth = static_cast<std::size_t>(number(row, 6));
    one.chain = text(row, 7);
  }
  EROFS_OCI_TRY_ASSIGN(auto const labels,
                       database_.run("SELECT snapshot, name, value FROM labels"));
  for (auto const& row : labels) by_id[number(row, 0)].info.labels[text(row, 1)] = text(row, 2);
  EROFS_OCI_TRY_ASSIGN(
      auto const claims,
      database_.run("SELECT snapshot, manifest FROM claims ORDER BY snapshot, place"));
  for (auto const& row : claims) by_id[number(row, 0)].manifests.push_back(text(row, 1));
  for (auto& [id, one] : by_id) {
    auto name = one.info.name;
    rows_.emplace(std::move(name), std::move(one));
  }
  return {};
}

Result<void> SnapshotStore::load_images() {
  EROFS_OCI_TRY_ASSIGN(auto const images, database_.run("SELECT manifest, repository FROM images"));
  for (auto const& row : images) images_[text(row, 0)] = {text(row, 0), text(row, 1), {}};
  EROFS_OCI_TRY_ASSIGN(
      auto const layers,
      database_.run("SELECT manifest, digest, diff_id FROM image_layers ORDER BY manifest, place"));
  for (auto const& row : layers) {
    EROFS_OCI_TRY_ASSIGN(auto const digest, Digest::parse(text(row, 1)));
    EROFS_OCI_TRY_ASSIGN(auto const diff_id, Digest::parse(text(row, 2)));
    images_[text(row, 0)].layers.push_back({digest, diff_id});
  }
  EROFS_OCI_TRY_ASSIGN(auto const refuted, database_.run("SELECT manifest, why FROM refuted"));
  for (auto const& row : refuted) refuted_[text(row, 0)] = text(row, 1);
  EROFS_OCI_TRY_ASSIGN(auto const known, database_.run("SELECT digest, diff_id FROM layers"));
  for (auto const& row : known) {
    EROFS_OCI_TRY_ASSIGN(diff_ids_[text(row, 0)], Digest::parse(text(row, 1)));
  }
  return {};
}

/// That parents exist, are committed, and are one less deep: so there are no circles.
Result<void> SnapshotStore::check_rows() const {
  for (auto const& [name, row] : rows_) {
    if (name.empty()) return fail(Errc::corrupt, "a snapshot without a name");
    auto const depth = depth_above(row.info.parent);
    if (!depth || *depth != row.depth) {
      return fail(Errc::corrupt, "snapshot `" + name + "` does not fit its parent");
    }
  }
  return {};
}

// ---------------------------------------------------------------- looking

std::uint64_t SnapshotStore::next_id() {
  std::scoped_lock const lock(change_mutex_);
  return next_id_++;
}

Result<std::size_t> SnapshotStore::depth_above(std::string const& parent) const {
  if (parent.empty()) return std::size_t{1};
  auto const found = rows_.find(parent);
  if (found == rows_.end())
    return refuse(Refusal::not_found, "parent `" + parent + "` does not exist");
  if (found->second.info.kind != Kind::committed) {
    return refuse(Refusal::invalid_argument, "parent `" + parent + "` is not committed");
  }
  return found->second.depth + 1;
}

bool SnapshotStore::has_children(std::string const& name) const {
  return std::ranges::any_of(rows_,
                             [&](auto const& row) { return row.second.info.parent == name; });
}

Result<Snapshot> SnapshotStore::find(std::string const& name) const {
  std::shared_lock const lock(rows_mutex_);
  auto const found = rows_.find(name);
  if (found == rows_.end()) return no_such(name);
  return found->second;
}

Result<std::vector<Snapshot>> SnapshotStore::lineage(std::string const& name) const {
  std::shared_lock const lock(rows_mutex_);
  std::vector<Snapshot> out;
  for (auto const* next = &name; !next->empty(); next = &out.back().info.parent) {
    auto const found = rows_.find(*next);
    if (found == rows_.end()) return no_such(*next);
    out.push_back(found->second);
  }
  return out;
}

std::vector<Info> SnapshotStore::list(Filters const& filters) const {
  std::shared_lock const lock(rows_mutex_);
  std::vector<Info> out;
  for (auto const& [name, row] : rows_) {
    if (filters.match(row.info)) out.push_back(row.info);
  }
  return out;
}

std::vector<Snapshot> SnapshotStore::all() const {
  std::shared_lock const lock(rows_mutex_);
  std::vector<Snapshot> out;
  for (auto const& [name, row] : rows_) out.push_back(row);
  return out;
}

Snapshot const* SnapshotStore::find_claim(std::string const& chain,
                                          std::string const& parent) const {
  if (chain.empty()) return nullptr;  // what has no such label is no layer's
  auto const is_it = [&](auto const& row) {
    auto const& info = row.second.info;
    return info.kind == Kind::committed && info.parent == parent &&
           label_of(info.labels, reference_label) == chain;
  };
  // What is served first, then what was unpacked under this label.
  for (auto const served : {true, false}) {
    auto const found = std::ranges::find_if(
        rows_, [&](auto const& row) { return row.second.is_served() == served && is_it(row); });
    if (found != rows_.end()) return &found->second;
  }
  return nullptr;
}

std::optional<Snapshot> SnapshotStore::claimed(std::string const& chain,
                                               std::string const& parent) const {
  std::shared_lock const lock(rows_mutex_);
  auto const* const found = find_claim(chain, parent);
  return found == nullptr ? std::nullopt : std::optional(*found);
}

// ---------------------------------------------------------------- changing

Result<void> SnapshotStore::insert(Snapshot const& row) {
  auto const& info = row.info;
  auto const id = static_cast<std::int64_t>(row.id);
  EROFS_OCI_TRY(database_.run(
      "INSERT INTO snapshots VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
      std::array<Cell, 8>{id, info.name, info.parent, static_cast<std::int64_t>(info.kind),
                          ticks(info.created), ticks(info.updated),
                          static_cast<std::int64_t>(row.depth), row.chain}));
  for (auto const& [name, value] : info.labels) {
    EROFS_OCI_TRY(
        database_.run("INSERT INTO labels VALUES(?, ?, ?)", std::array<Cell, 3>{id, name, value}));
  }
  std::int64_t place = 0;
  for (auto const& manifest : row.manifests) {
    EROFS_OCI_TRY(database_.run("INSERT INTO claims VALUES(?, ?, ?)",
                                std::array<Cell, 3>{id, place++, manifest}));
  }
  EROFS_OCI_TRY(
      database_.run("UPDATE counter SET next = max(next, ?)", std::array<Cell, 1>{id + 1}));
  return {};
}

Result<void> SnapshotStore::erase(Snapshot const& row) {
  EROFS_OCI_TRY(database_.run("DELETE FROM snapshots WHERE id = ?",
                              std::array<Cell, 1>{static_cast<std::int64_t>(row.id)}));
  return {};
}

/// Writes a row anew that is there under the same number.
Result<void> SnapshotStore::replace(Snapshot const& row) {
  return database_.transact([&]() -> Result<void> {
    EROFS_OCI_TRY(erase(row));
    return insert(row);
  });
}

/// Adds a row whose fields are right.
Result<Snapshot> SnapshotStore::add(Snapshot row) {
  EROFS_OCI_TRY(database_.transact([&] { return insert(row); }));
  std::unique_lock const lock(rows_mutex_);
  rows_.emplace(row.info.name, row);
  return row;
}

Result<Snapshot> SnapshotStore::create(std::uint64_t id, std::string const& name,
                                       std::string const& parent, Kind kind, Labels labels) {
  std::scoped_lock const change(change_mutex_);
  if (name.empty()) return refuse(Refusal::invalid_argument, "a snapshot without a name");
  EROFS_OCI_TRY_ASSIGN(auto const depth, depth_above(parent));
  if (rows_.contains(name)) return taken(name);
  auto const now = now_();
  return add({id, {name, parent, kind, now, now, std::move(labels)}, depth, {}, {}});
}

Result<Snapshot> SnapshotStore::claim(std::string const& key, std::string const& parent,
                                      Labels labels, std::string const& manifest) {
  std::scoped_lock const change(change_mutex_);
  auto const chain = label_of(labels, reference_label);
  if (key.empty() || chain.empty()) {
    return refuse(Refusal::invalid_argument, "a claim without a name or a chain ID");
  }
  EROFS_OCI_TRY_ASSIGN(auto const depth, depth_above(parent));
  if (auto const* const found = find_claim(chain, parent)) {
    auto row = *found;
    auto const is_known = std::ranges::find(row.manifests, manifest) != row.manifests.end();
    if (!row.is_served() || is_known) return row;
    row.manifests.push_back(manifest);
    EROFS_OCI_TRY(replace(row));
    std::unique_lock const lock(rows_mutex_);
    rows_.at(row.info.name) = row;
    return row;
  }
  auto name = key + "-served";
  for (int i = 2; rows_.contains(name); ++i) name = key + "-served-" + std::to_string(i);
  auto const now = now_();
  return add({next_id_++,
              {name, parent, Kind::committed, now, now, std::move(labels)},
              depth,
              chain,
              {manifest}});
}

Result<Snapshot> SnapshotStore::commit(std::string const& name, std::string const& key,
                                       Labels labels) {
  std::scoped_lock const change(change_mutex_);
  if (name.empty()) return refuse(Refusal::invalid_argument, "a snapshot without a name");
  auto const found = rows_.find(key);
  if (found == rows_.end()) return no_such(key);
  if (rows_.contains(name)) return taken(name);
  if (found->second.info.kind != Kind::active) {
    return refuse(Refusal::failed_precondition, "snapshot `" + key + "` is not active");
  }
  auto row = found->second;
  auto const now = now_();
  row.info = {name, row.info.parent, Kind::committed, now, now, std::move(labels)};
  EROFS_OCI_TRY(replace(row));
  std::unique_lock const lock(rows_mutex_);
  rows_.erase(found);
  rows_.emplace(name, row);
  return row;
}

Result<Info> SnapshotStore::update(Info const& info, std::span<std::string const> paths) {
  constexpr std::string_view one = "labels.";
  std::scoped_lock const change(change_mutex_);
  auto const found = rows_.find(info.name);
  if (found == rows_.end()) return no_such(info.name);
  auto row = found->second;
  auto& labels = row.info.labels;
  if (paths.empty()) labels = info.labels;
  for (auto const& path : paths) {
    if (path == "labels") {
      labels = info.labels;
    } else if (path.starts_with(one) && path.size() > one.size()) {
      auto const name = path.substr(one.size());
      auto const given = info.labels.find(name);
      if (given == info.labels.end()) {
        labels.erase(name);
      } else {
        labels[name] = given->second;
      }
    } else {
      return refuse(Refusal::invalid_argument,
                    "cannot update `" + path + "` of snapshot `" + info.name + "`");
    }
  }
  row.info.updated = std::max(now_(), row.info.updated);
  EROFS_OCI_TRY(replace(row));
  std::unique_lock const lock(rows_mutex_);
  found->second = row;
  return row.info;
}

Result<Snapshot> SnapshotStore::remove(std::string const& name) {
  std::scoped_lock const change(change_mutex_);
  auto const found = rows_.find(name);
  if (found == rows_.end()) return no_such(name);
  if (has_children(name)) {
    return refuse(Refusal::failed_precondition,
                  "cannot remove snapshot `" + name + "`: other snapshots stand on it");
  }
  auto row = found->second;
  EROFS_OCI_TRY(database_.transact([&] { return erase(row); }));
  std::unique_lock const lock(rows_mutex_);
  rows_.erase(found);
  return row;
}

// ---------------------------------------------------------------- images

Result<void> SnapshotStore::remember(ImageFacts const& image) {
  std::scoped_lock const change(change_mutex_);
  auto const known = images_.find(image.manifest);
  if (known != images_.end() && known->second == image) return {};
  auto const change_file = [&]() -> Result<void> {
    EROFS_OCI_TRY(database_.run("DELETE FROM images WHERE manifest = ?",
                                std::array<Cell, 1>{image.manifest}));
    EROFS_OCI_TRY(database_.run("INSERT INTO images VALUES(?, ?)",
                                std::array<Cell, 2>{image.manifest, image.repository}));
    std::int64_t place = 0;
    for (auto const& layer : image.layers) {
      EROFS_OCI_TRY(
          database_.run("INSERT INTO image_layers VALUES(?, ?, ?, ?)",
                        std::array<Cell, 4>{image.manifest, place++, layer.digest.to_string(),
                                            layer.diff_id.to_string()}));
    }
    return {};
  };
  EROFS_OCI_TRY(database_.transact(change_file));
  std::unique_lock const lock(rows_mutex_);
  images_[image.manifest] = image;
  return {};
}

std::optional<ImageFacts> SnapshotStore::image(std::string const& manifest) const {
  std::shared_lock const lock(rows_mutex_);
  auto const found = images_.find(manifest);
  return found == images_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<ImageFacts> SnapshotStore::images() const {
  std::shared_lock const lock(rows_mutex_);
  std::vector<ImageFacts> out;
  for (auto const& [manifest, image] : images_) out.push_back(image);
  return out;
}

Result<void> SnapshotStore::note_diff_ids(std::span<LayerFacts const> layers) {
  std::scoped_lock const change(change_mutex_);
  auto const change_file = [&]() -> Result<void> {
    for (auto const& layer : layers) {
      EROFS_OCI_TRY(
          database_.run("INSERT OR REPLACE INTO layers VALUES(?, ?)",
                        std::array<Cell, 2>{layer.digest.to_string(), layer.diff_id.to_string()}));
    }
    return {};
  };
  EROFS_OCI_TRY(database_.transact(change_file));
  std::unique_lock const lock(rows_mutex_);
  for (auto const& layer : layers) diff_ids_[layer.digest.to_string()] = layer.diff_id;
  return {};
}

std::optional<Digest> SnapshotStore::diff_id(Digest const& blob) const {
  std::shared_lock const lock(rows_mutex_);
  auto const found = diff_ids_.find(blob.to_string());
  return found == diff_ids_.end() ? std::nullopt : std::optional(found->second);
}

Result<void> SnapshotStore::refute(std::string const& manifest, std::string const& why) {
  std::scoped_lock const change(change_mutex_);
  // What is left of the rows, from the top down: so that a claim goes after those above it.
  std::vector<Snapshot> claims;
  for (auto const& [name, row] : rows_) {
    auto copy = row;
    if (std::erase(copy.manifests, manifest) != 0) claims.push_back(std::move(copy));
  }
  std::ranges::sort(claims, std::greater<>(), &Snapshot::depth);
  std::set<std::string> gone;
  auto const is_free = [&](std::string const& name) {
    return std::ranges::none_of(rows_, [&](auto const& row) {
      return row.second.info.parent == name && !gone.contains(row.first);
    });
  };
  auto const change_file = [&]() -> Result<void> {
    for (auto const& row : claims) {
      EROFS_OCI_TRY(erase(row));
      auto const goes = row.manifests.empty() && is_free(row.info.name);
      if (goes) gone.insert(row.info.name);
      if (!goes) EROFS_OCI_TRY(insert(row));
    }
    EROFS_OCI_TRY(database_.run("INSERT OR REPLACE INTO refuted VALUES(?, ?)",
                                std::array<Cell, 2>{manifest, why}));
    return {};
  };
  EROFS_OCI_TRY(database_.transact(change_file));
  std::unique_lock const lock(rows_mutex_);
  for (auto const& row : claims) {
    if (gone.contains(row.info.name)) {
      rows_.erase(row.info.name);
    } else {
      rows_.at(row.info.name) = row;
    }
  }
  refuted_[manifest] = why;
  return {};
}

std::optional<std::string> SnapshotStore::refuted(std::string const& manifest) const {
  std::shared_lock const lock(rows_mutex_);
  auto const found = refuted_.find(manifest);
  return found == refuted_.end() ? std::nullopt : std::optional(found->second);
}

Result<void> SnapshotStore::forget_unused_images() {
  std::scoped_lock const change(change_mutex_);
  std::set<std::string> used;
  for (auto const& [name, row] : rows_) used.insert(row.manifests.begin(), row.manifests.end());
  std::set<std::string> blobs;
  std::vector<std::string> gone;
  for (auto const& [manifest, image] : images_) {
    if (!used.contains(manifest)) {
      gone.push_back(manifest);
      continue;
    }
    for (auto const& layer : image.layers) blobs.insert(layer.digest.to_string());
  }
  std::vector<std::string> unneeded;
  for (auto const& [blob, diff_id] : diff_ids_) {
    if (!blobs.contains(blob)) unneeded.push_back(blob);
  }
  if (gone.empty() && unneeded.empty()) return {};
  auto const change_file = [&]() -> Result<void> {
    for (auto const& manifest : gone) {
      EROFS_OCI_TRY(
          database_.run("DELETE FROM images WHERE manifest = ?", std::array<Cell, 1>{manifest}));
    }
    for (auto const& blob : unneeded) {
      EROFS_OCI_TRY(
          database_.run("DELETE FROM layers WHERE digest = ?", std::array<Cell, 1>{blob}));
    }
    return {};
  };
  EROFS_OCI_TRY(database_.transact(change_file));
  std::unique_lock const lock(rows_mutex_);
  for (auto const& manifest : gone) images_.erase(manifest);
  for (auto const& blob : unneeded) diff_ids_.erase(blob);
  return {};
}

}  // namespace oci_snapshotter
