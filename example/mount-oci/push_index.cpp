// SPDX-License-Identifier: Apache-2.0
#include "push_index.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/digest/sha256.hpp>
#include <erofs_oci/gzip/extra_checkpoints.hpp>
#include <erofs_oci/host/mount_point.hpp>
#include <erofs_oci/http/transport.hpp>
#include <erofs_oci/image/checkpoints_file.hpp>
#include <erofs_oci/image/open_layers.hpp>
#include <erofs_oci/image/packed_index.hpp>
#include <erofs_oci/image/start_list.hpp>
#include <erofs_oci/oci/cosign.hpp>
#include <erofs_oci/oci/index_artifact.hpp>
#include <erofs_oci/oci/layout_writer.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/oci/push.hpp>
#include <erofs_oci/posix/trusted_file.hpp>

#include "progress.hpp"
#include "reader.hpp"

namespace mount_oci {
namespace {

using erofs_oci::BlobPush;
using erofs_oci::Descriptor;
using erofs_oci::Digest;
using erofs_oci::ExtraCheckpoints;
using erofs_oci::fail;
using erofs_oci::Reference;
using erofs_oci::StartList;
using erofs_oci::StoredLayer;
using erofs_oci::json::Value;
using Pusher = erofs_oci::BasicPusher<erofs_oci::HttplibTransport>;

Result<Pusher> open_pusher(PushTarget const& target, PushIndexOptions const& options,
                           Log const& log) {
  EROFS_OCI_TRY_ASSIGN(auto access,
                       registry_access(target.repository.registry, target.access, log));
  return Pusher::make(target.repository, access.settings, access.transport_of,
                      {.mount_from = options.mount_from},
                      erofs_oci::SteadyClock{target.access.access.requests.get_token()});
}

char const* push_word(BlobPush push) {
  switch (push) {
    case BlobPush::was_there: return "was there";
    case BlobPush::mounted: return "mounted";
    case BlobPush::uploaded: break;
  }
  return "uploaded";
}

std::string place_of(Reference const& repository) {
  return repository.registry + "/" + repository.repository;
}

/// The list that mounts of the image have recorded.
Result<StartList> start_list_of(FoundImage const& found, IndexedImage const& indexed,
                                Log const& log) {
  EROFS_OCI_TRY_ASSIGN(
      auto const merged,
      erofs_oci::open_layers(found.image_layers(), indexed.indexes, {}, indexed.options(log)));
  std::vector<erofs_oci::Digest> layers;
  for (auto const& layer : merged.device.starts) layers.push_back(layer.digest);
  std::optional<StartList> list;
  if (indexed.store != nullptr) {
    EROFS_OCI_TRY_ASSIGN(list, indexed.store->find_start_list(layers));
  }
  if (list) return *std::move(list);
  return fail(Errc::not_found,
              "no mount of this image has recorded one: mount it, start in it what is to start "
              "fast, and umount it");
}

/// What one push puts somewhere.
/// @tparam Place  a BasicPusher or a LayoutWriter
template <class Place>
struct PartPusher {
  Place const* place;  // null: a dry run
  std::vector<Descriptor> parts{};
  Value told = Value::array();

  /// Puts one part there.
  /// @param line  what is told of it besides
  Result<void> put(Descriptor part, std::span<std::byte const> bytes, Value line) {
    line["size"] = part.size;
    if (place != nullptr) {
      EROFS_OCI_TRY_ASSIGN(auto const pushed, place->put_blob(part.digest, bytes));
      line["push"] = push_word(pushed);
    }
    told.push_back(std::move(line));
    parts.push_back(std::move(part));
    return {};
  }

  Result<void> put_index(Digest const& layer, StoredLayer const& index) {
    EROFS_OCI_TRY_ASSIGN(auto const files, erofs_oci::index_files(index));
    EROFS_OCI_TRY_ASSIGN(auto const packed, erofs_oci::pack_index(files));
    auto part = erofs_oci::describe_index(packed, layer);
    auto const name = part.digest.to_string();
    return put(std::move(part), packed, {{"layer", layer.to_string()}, {"index", name}});
  }

  Result<void> put_tree(TreeToPush const& tree) {
    if (parts.size() >= erofs_oci::max_manifest_layers) {
      return fail(Errc::unsupported, "--verity: the artifact has no place for the Merkle tree");
    }
    auto part = erofs_oci::describe_tree(tree.file, tree.root, tree.metadata);
    auto const name = part.digest.to_string();
    return put(std::move(part), tree.file, {{"root_hash", tree.root.hex()}, {"tree", name}});
  }

  Result<void> put_checkpoints(Digest const& layer, ExtraCheckpoints const& extra) {
    // The list has the last place of an artifact.
    if (extra.empty() || parts.size() + 1 >= erofs_oci::max_manifest_layers) return {};
    auto const file = erofs_oci::encode_checkpoints(extra);
    auto part = erofs_oci::describe_checkpoints(file, layer);
    auto const name = part.digest.to_string();
    return put(std::move(part), file, {{"layer", layer.to_string()}, {"checkpoints", name}});
  }

  Result<void> put_start_list(StartList const& list) {
    if (parts.size() >= erofs_oci::max_manifest_layers) return {};
    auto const file = list.encode();
    auto part = erofs_oci::describe_start_list(file);
    auto const name = part.digest.to_string();
    return put(std::move(part), file, {{"start_list", name}});
  }

  /// Puts the artifact there, once its parts are, and its signature.
  /// @return its digest
  Result<Digest> put_artifact(FoundImage const& found, PushTarget const& target) {
    auto const artifact = erofs_oci::make_index_artifact(found.manifest_at, std::move(parts));
    auto const digest = erofs_oci::digest_of(erofs_oci::as_bytes(erofs_oci::encode(artifact)));
    if (place == nullptr) return digest;
    EROFS_OCI_TRY(place->put_blob(artifact.config.digest,
                                  erofs_oci::as_bytes(erofs_oci::index_artifact::empty_config)));
    EROFS_OCI_TRY(place->attach(artifact));
    if (target.key) {
      EROFS_OCI_TRY(erofs_oci::sign_manifest(*place, target.place, digest, *target.key),
                    "signature");
    }
    return digest;
  }
};

template <class Place>
Result<Value> push_parts(Place const* place, PushTarget const& target,
                         PushIndexOptions const& options, FoundImage const& found,
                         IndexedImage const& indexed, TreeToPush const* tree, Log const& log) {
  PartPusher<Place> pusher{place};
  std::optional<StartList> list;
  if (options.with_start_list) {
    EROFS_OCI_TRY_ASSIGN(list, start_list_of(found, indexed, log), "--with-start-list");
  }
  std::vector<std::size_t> different;  // layers, each once
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    auto const same = [&](std::size_t n) {
      return found.layers[n].descriptor.digest == found.layers[i].descriptor.digest;
    };
    if (std::ranges::none_of(different, same)) different.push_back(i);
  }
  for (auto const i : different) {
    EROFS_OCI_TRY(pusher.put_index(found.layers[i].descriptor.digest, indexed.indexes[i]));
  }
  if (tree != nullptr) EROFS_OCI_TRY(pusher.put_tree(*tree));
  if (list) {
    for (auto const i : different) {
      EROFS_OCI_TRY(
          pusher.put_checkpoints(found.layers[i].descriptor.digest, indexed.indexes[i].extra));
    }
    EROFS_OCI_TRY(pusher.put_start_list(*list));
  }
  EROFS_OCI_TRY_ASSIGN(auto const digest, pusher.put_artifact(found, target));
  Value out{{"repository", target.place},     {"subject", found.manifest_at.digest.to_string()},
            {"artifact", digest.to_string()}, {"signed", target.key.has_value()},
            {"dry_run", options.dry_run},     {"indexes", std::move(pusher.told)}};
  if (found.platform) out["platform"] = found.platform->to_string();
  return out;
}

}  // namespace

Result<std::optional<PushTarget>> prepare_push(Options const& options, Log const& log) {
  auto const& push = options.push;
  if (!push.push && push.layout.empty()) return std::optional<PushTarget>();
  PushTarget target;
  if (!push.sign_key.empty()) {
    hide_memory();
    EROFS_OCI_TRY_ASSIGN(auto const read, erofs_oci::read_trusted_file(push.sign_key),
                         "--sign-key");
    EROFS_OCI_TRY_ASSIGN(target.key, erofs_oci::PrivateKey::from_pem(read.text),
                         "--sign-key " + push.sign_key);
  }
  if (!push.layout.empty()) {
    target.place = "oci:" + push.layout;
    if (push.dry_run) return std::optional(std::move(target));
    EROFS_OCI_TRY_ASSIGN(auto const directory, erofs_oci::MountPoint::open(push.layout));
    EROFS_OCI_TRY_ASSIGN(target.layout, erofs_oci::LayoutWriter::open(directory.path()),
                         "--output");
    return std::optional(std::move(target));
  }
  EROFS_OCI_TRY_ASSIGN(target.repository,
                       Reference::parse(push.to.empty() ? options.image.image : push.to), "--to");
  target.place = place_of(target.repository);
  target.access = options.image;
  target.access.image = target.repository.to_string();
  target.access.mirrors.clear();
  auto const image = Reference::parse(options.image.image);
  if (!image || image->registry != target.repository.registry) {
    // A given login belongs to the image's own registry alone.
    target.access.username.clear();
    target.access.password.clear();
    target.access.password_file.clear();
  }
  EROFS_OCI_TRY(prepare_registry(target.access, target.repository, log));
  return std::optional(std::move(target));
}

Result<Value> push_indexes(PushTarget const& target, PushIndexOptions const& options,
                           FoundImage const& found, IndexedImage const& indexed,
                           TreeToPush const* tree, Log const& log) {
  if (options.dry_run) {
    Pusher const* const nowhere = nullptr;
    return push_parts(nowhere, target, options, found, indexed, tree, log);
  }
  if (target.layout) return push_parts(&*target.layout, target, options, found, indexed, tree, log);
  EROFS_OCI_TRY_ASSIGN(auto const pusher, open_pusher(target, options, log));
  return push_parts(&pusher, target, options, found, indexed, tree, log);
}

std::string push_text(Value const& pushed) {
  auto const text = [](Value const& object, char const* key) {
    return object.at(key).get<std::string>();
  };
  auto const dry = pushed.at("dry_run").get<bool>();
  std::string out;
  for (auto const& index : pushed.at("indexes")) {
    out += index.contains("index")
               ? "Index of " + text(index, "layer") + ":  " + text(index, "index")
           : index.contains("checkpoints")
               ? "Checkpoints of " + text(index, "layer") + ":  " + text(index, "checkpoints")
           : index.contains("tree")
               ? "Merkle tree " + text(index, "root_hash") + ":  " + text(index, "tree")
               : "Start list:  " + text(index, "start_list");
    out += ", " + size_text(index.at("size").get<std::uint64_t>()) +
           (dry ? "" : ", " + text(index, "push")) + "\n";
  }
  out += dry ? "Would push to " : "Pushed to ";
  out += text(pushed, "repository") + ":  " + text(pushed, "artifact") + ", which refers to " +
         text(pushed, "subject");
  if (pushed.contains("platform")) out += " (" + text(pushed, "platform") + ")";
  return out + (pushed.at("signed").get<bool>() ? ", with a signature\n" : "\n");
}

}  // namespace mount_oci
