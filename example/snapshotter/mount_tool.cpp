// SPDX-License-Identifier: Apache-2.0
#include "mount_tool.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>

#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/oci/json.hpp>

#include "mount_answer.hpp"
#include "run_to_end.hpp"

namespace oci_snapshotter {

using erofs_oci::Digest;
using erofs_oci::Errc;
using erofs_oci::fail;
using erofs_oci::Result;
using namespace std::chrono_literals;

namespace json = erofs_oci::json;

namespace {

constexpr auto never = std::chrono::steady_clock::time_point::max();

Result<Digest> digest_in(json::Value const& object, char const* name) {
  EROFS_OCI_TRY_ASSIGN(auto const text, json::text(object, name));
  return Digest::parse(text);
}

}  // namespace

std::vector<std::string> overlay_options() {
  std::vector<std::string> options;
  // Without it an upper directory belongs to the lower ones by their file handles, which other
  // mounts of the same image do not have.
  if (::access("/sys/module/overlay/parameters/index", F_OK) == 0)
    options.emplace_back("index=off");
  if (!erofs_oci::in_first_user_namespace()) options.emplace_back("userxattr");
  return options;
}

std::string MountTool::words(std::size_t count) const {
  auto list = "oci.index=" + options_.index;
  for (auto const& word : options_.words) list += "," + word;
  if (count != 0) list += ",oci.first_layers=" + std::to_string(count);
  return list;
}

/// By which the helper of mount-oci, and of what serves its mount, gets the login for an image. The
/// environment of root's processes is root's to read alone, and has no secret.
std::vector<std::string> MountTool::variables_for(std::string const& repository) const {
  if (options_.login_address.empty() || repository.empty()) return {};
  return {"REGISTRY_AUTH_FILE=" + options_.login_file,
          std::string(login_address_variable) + "=" + options_.login_address,
          std::string(login_repository_variable) + "=" + repository};
}

Result<std::string> MountTool::run(std::vector<std::string> words, Deadline deadline,
                                   std::stop_token const& stop,
                                   std::string const& repository) const {
  auto const what = options_.program + " " + words.front();
  words.insert(words.begin(), options_.program);
  EROFS_OCI_TRY_ASSIGN(
      auto outcome,
      run_to_end(std::move(words), {.variables = variables_for(repository), .deadline = deadline},
                 stop),
      what);
  return output_of(std::move(outcome), what);
}

Result<ImageDescription> MountTool::describe(std::string const& repository,
                                             std::string const& manifest, Deadline deadline,
                                             std::stop_token const& stop) const {
  ImageDescription out{{manifest, repository, {}}, {}};
  EROFS_OCI_TRY_ASSIGN(auto const text,
                       run({"image", "--quiet", "--json", "-o", words(0), out.facts.reference()},
                           deadline, stop, repository));
  EROFS_OCI_TRY_ASSIGN(auto const image, json::parse(erofs_oci::as_bytes(text), "image --json"));
  EROFS_OCI_TRY_ASSIGN(auto const digest, json::text(image, "digest"));
  auto const* const layers = json::find(image, "layers");
  auto const* const config = json::find(image, "configuration");
  auto const* const rootfs = config == nullptr ? nullptr : json::find(*config, "rootfs");
  if (digest != manifest || layers == nullptr || !layers->is_array() || rootfs == nullptr) {
    return fail(Errc::corrupt, out.facts.reference() + ": not a whole image of that digest");
  }
  EROFS_OCI_TRY_ASSIGN(auto const diff_ids, json::text_list(*rootfs, "diff_ids"));
  if (diff_ids.size() != layers->size()) {
    return fail(Errc::corrupt, out.facts.reference() + ": " + std::to_string(layers->size()) +
                                   " layers, but " + std::to_string(diff_ids.size()) + " diffIDs");
  }
  for (std::size_t i = 0; i < diff_ids.size(); ++i) {
    auto const& layer = layers->at(i);
    auto& facts = out.facts.layers.emplace_back();
    EROFS_OCI_TRY_ASSIGN(facts.digest, digest_in(layer, "digest"));
    EROFS_OCI_TRY_ASSIGN(facts.diff_id, Digest::parse(diff_ids[i]));
    EROFS_OCI_TRY_ASSIGN(out.media_types.emplace_back(), json::text(layer, "media_type"));
    EROFS_OCI_TRY_ASSIGN(auto const size, json::count(layer, "size"));
    out.size += size;
  }
  return out;
}

Result<std::vector<LayerFacts>> MountTool::index(ImageFacts const& image, std::size_t count,
                                                 std::stop_token const& stop) const {
  EROFS_OCI_TRY_ASSIGN(auto const text,
                       run({"index", "--quiet", "--json", "-o", words(count), image.reference()},
                           never, stop, image.repository));
  std::vector<LayerFacts> out;
  for (std::string_view rest = text; !rest.empty();) {
    auto const line = erofs_oci::take_part(rest, '\n');
    EROFS_OCI_TRY_ASSIGN(auto const layer, json::parse(erofs_oci::as_bytes(line), "index --json"));
    auto& facts = out.emplace_back();
    EROFS_OCI_TRY_ASSIGN(facts.digest, digest_in(layer, "digest"));
    if (json::find(layer, "diff_id") == nullptr) {
      return fail(Errc::unsupported, "the index of " + facts.digest.to_string() +
                                         " does not tell what the whole layer is");
    }
    EROFS_OCI_TRY_ASSIGN(facts.diff_id, digest_in(layer, "diff_id"));
  }
  if (out.size() != count) return fail(Errc::corrupt, "index --json: another number of layers");
  return out;
}

Result<void> MountTool::mount(ImageFacts const& image, std::size_t count,
                              std::string const& directory, std::stop_token const& stop) const {
  // Each mount has a scope and metrics of its own, and a stack of layers is mounted once.
  std::vector<std::string> all{"mount",      "--quiet",  "--no-share",    "-o",
                               words(count), "--attach", options_.attach, image.reference(),
                               directory};
  if (!options_.journal.empty()) all.insert(all.begin() + 1, {"--journal", options_.journal});
  if (auto scoped = scope_of(directory); !scoped.empty()) {
    scoped.push_back(options_.program);
    scoped.insert(scoped.end(), all.begin(), all.end());
    EROFS_OCI_TRY_ASSIGN(
        auto outcome,
        run_to_end(std::move(scoped), {.variables = variables_for(image.repository)}, stop),
        "mount");
    // What mount-oci says begins with its name, which systemd-run takes the place of.
    if (outcome.status == 0 || outcome.errors.find("mount-oci: ") != outcome.errors.npos) {
      EROFS_OCI_TRY(output_of(std::move(outcome), "mount-oci mount"));
      return {};
    }
  }
  EROFS_OCI_TRY(run(std::move(all), never, stop, image.repository));
  return {};
}

/// What to put before a command line, so that systemd keeps what it starts apart from this service:
/// in a scope, which no restart of the service ends.
/// @spec{systemd-run(1), sd_booted(3)}
std::vector<std::string> MountTool::scope_of(std::string const& directory) const {
  if (options_.scope == "none" || ::access("/run/systemd/system", F_OK) != 0) return {};
  // A scope with the same name may still be there, of processes that have not ended yet.
  auto const now = std::chrono::system_clock::now().time_since_epoch();
  auto const name = std::filesystem::path(directory).parent_path().filename().string();
  return {"systemd-run",
          "--scope",
          "--quiet",
          "--collect",
          "--unit=oci-mount-" + name.substr(0, 16) + "-" +
              std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()),
          "--description=Image mounted at " + directory,
          "--"};
}

Result<void> MountTool::unmount(std::string const& directory, std::stop_token const& stop) const {
  std::vector<std::string> all{"umount", "--quiet", directory};
  if (!options_.journal.empty()) all.insert(all.begin() + 1, {"--journal", options_.journal});
  EROFS_OCI_TRY(run(std::move(all), std::chrono::steady_clock::now() + 60s, stop));
  return {};
}

Result<std::vector<MountStatus>> MountTool::status() const {
  std::vector<std::string> all{"status", "--json"};
  if (!options_.journal.empty()) all.insert(all.end(), {"--journal", options_.journal});
  EROFS_OCI_TRY_ASSIGN(auto const text,
                       run(std::move(all), std::chrono::steady_clock::now() + 10s, {}), "status");
  auto const whole = "{\"mounts\":" + text + "}";  // parse() takes objects
  EROFS_OCI_TRY_ASSIGN(auto const object, json::parse(erofs_oci::as_bytes(whole), "status --json"));
  auto const* const mounts = json::find(object, "mounts");
  if (mounts == nullptr || !mounts->is_array()) return fail(Errc::corrupt, "status --json");
  std::vector<MountStatus> out;
  for (auto const& mount : *mounts) {
    auto const* const served = json::find(mount, "served");
    // A mount whose supervisor does not answer tells no numbers.
    auto const number = [&](char const* name) { return json::count(mount, name).value_or(0); };
    out.push_back({json::text(mount, "mount_point").value_or(""),
                   served != nullptr && served->is_boolean() && served->get<bool>(),
                   number("requests"), number("bytes"), number("errors"), number("restarts"),
                   number("memory")});
  }
  return out;
}

Result<bool> MountTool::is_served(std::string const& directory) const {
  EROFS_OCI_TRY_ASSIGN(auto const mounts, status());
  return std::ranges::any_of(mounts, [&](MountStatus const& mount) {
    return mount.mount_point == directory && mount.is_served;
  });
}

}  // namespace oci_snapshotter
