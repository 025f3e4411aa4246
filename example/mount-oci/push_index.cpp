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
#include <erofs_oci/http/transport.hpp>
#include <erofs_oci/image/packed_index.hpp>
#include <erofs_oci/oci/cosign.hpp>
#include <erofs_oci/oci/index_artifact.hpp>
#include <erofs_oci/oci/push.hpp>
#include <erofs_oci/posix/trusted_file.hpp>

#include "progress.hpp"
#include "reader.hpp"

namespace mount_oci {
namespace {

using erofs_oci::BlobPush;
using erofs_oci::Descriptor;
using erofs_oci::fail;
using erofs_oci::Reference;
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

}  // namespace

Result<std::optional<PushTarget>> prepare_push(Options const& options, Log const& log) {
  auto const& push = options.push;
  if (!push.push) return std::optional<PushTarget>();
  PushTarget target;
  EROFS_OCI_TRY_ASSIGN(target.repository,
                       Reference::parse(push.to.empty() ? options.image.image : push.to), "--to");
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
  if (!push.sign_key.empty()) {
    hide_memory();
    EROFS_OCI_TRY_ASSIGN(auto const read, erofs_oci::read_trusted_file(push.sign_key),
                         "--sign-key");
    EROFS_OCI_TRY_ASSIGN(target.key, erofs_oci::PrivateKey::from_pem(read.text),
                         "--sign-key " + push.sign_key);
  }
  EROFS_OCI_TRY(prepare_registry(target.access, target.repository, log));
  return std::optional(std::move(target));
}

Result<Value> push_indexes(PushTarget const& target, PushIndexOptions const& options,
                           FoundImage const& found, IndexedImage const& indexed,
                           TreeToPush const* tree, Log const& log) {
  std::optional<Pusher> pusher;
  if (!options.dry_run) {
    EROFS_OCI_TRY_ASSIGN(pusher, open_pusher(target, options, log));
  }
  auto layers = Value::array();
  std::vector<Descriptor> indexes;
  for (std::size_t i = 0; i < found.layers.size(); ++i) {
    auto const& layer = found.layers[i].descriptor.digest;
    auto const again = std::ranges::any_of(
        std::span(found.layers).first(i),
        [&](FoundLayer const& before) { return before.descriptor.digest == layer; });
    if (again) continue;
    EROFS_OCI_TRY_ASSIGN(auto const files, erofs_oci::index_files(indexed.indexes[i]));
    EROFS_OCI_TRY_ASSIGN(auto const packed, erofs_oci::pack_index(files));
    auto const& at = indexes.emplace_back(erofs_oci::describe_index(packed, layer));
    Value line{{"layer", layer.to_string()}, {"index", at.digest.to_string()}, {"size", at.size}};
    if (pusher) {
      EROFS_OCI_TRY_ASSIGN(auto const pushed, pusher->put_blob(at.digest, packed));
      line["push"] = push_word(pushed);
    }
    layers.push_back(std::move(line));
  }
  auto told = Value();
  if (tree != nullptr) {
    auto const& at =
        indexes.emplace_back(erofs_oci::describe_tree(tree->file, tree->root, tree->metadata));
    told = {{"root_hash", tree->root.hex()}, {"tree", at.digest.to_string()}, {"size", at.size}};
    if (pusher) {
      EROFS_OCI_TRY_ASSIGN(auto const pushed, pusher->put_blob(at.digest, tree->file));
      told["push"] = push_word(pushed);
    }
  }
  auto const artifact = erofs_oci::make_index_artifact(found.manifest_at, std::move(indexes));
  auto const text = erofs_oci::encode(artifact);
  auto const digest = erofs_oci::digest_of(erofs_oci::as_bytes(text));
  if (pusher) {
    EROFS_OCI_TRY(pusher->put_blob(artifact.config.digest,
                                   erofs_oci::as_bytes(erofs_oci::index_artifact::empty_config)));
    EROFS_OCI_TRY(pusher->attach(artifact));
    if (target.key) {
      EROFS_OCI_TRY(
          erofs_oci::sign_manifest(*pusher, place_of(target.repository), digest, *target.key),
          "signature");
    }
  }
  Value out{{"repository", place_of(target.repository)},
            {"subject", found.manifest_at.digest.to_string()},
            {"artifact", digest.to_string()},
            {"signed", target.key.has_value()},
            {"dry_run", options.dry_run},
            {"indexes", std::move(layers)}};
  if (tree != nullptr) out["verity"] = std::move(told);
  if (found.platform) out["platform"] = found.platform->to_string();
  return out;
}

std::string push_text(Value const& pushed) {
  auto const text = [](Value const& object, char const* key) {
    return object.at(key).get<std::string>();
  };
  auto const dry = pushed.at("dry_run").get<bool>();
  std::string out;
  for (auto const& index : pushed.at("indexes")) {
    out += "Index of " + text(index, "layer") + ":  " + text(index, "index") + ", " +
           size_text(index.at("size").get<std::uint64_t>()) +
           (dry ? "" : ", " + text(index, "push")) + "\n";
  }
  if (pushed.contains("verity")) {
    auto const& tree = pushed.at("verity");
    out += "Merkle tree " + text(tree, "root_hash") + ":  " + text(tree, "tree") + ", " +
           size_text(tree.at("size").get<std::uint64_t>()) +
           (dry ? "" : ", " + text(tree, "push")) + "\n";
  }
  out += dry ? "Would push to " : "Pushed to ";
  out += text(pushed, "repository") + ":  " + text(pushed, "artifact") + ", which refers to " +
         text(pushed, "subject");
  if (pushed.contains("platform")) out += " (" + text(pushed, "platform") + ")";
  return out + (pushed.at("signed").get<bool>() ? ", with a signature\n" : "\n");
}

}  // namespace mount_oci
