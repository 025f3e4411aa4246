// SPDX-License-Identifier: Apache-2.0
#include "mount_tool.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <string_view>
#include <thread>

#include <sys/mman.h>
#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/host/privilege.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/posix/program.hpp>
#include <erofs_oci/posix/text_file.hpp>

#include "mount_answer.hpp"

namespace oci_snapshotter {

using erofs_oci::Digest;
using erofs_oci::Errc;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::Result;
using erofs_oci::UniqueFd;
using namespace std::chrono_literals;

namespace json = erofs_oci::json;

namespace {

constexpr auto never = std::chrono::steady_clock::time_point::max();

/// What a program writes goes to a file in memory and not to a pipe, whose end the processes that
/// serve a mount might keep.
Result<UniqueFd> memory_file(char const* name) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd) return fail_errno(errno, "memfd_create");
  return fd;
}

Result<std::string> written(UniqueFd const& fd) {
  if (::lseek(fd.get(), 0, SEEK_SET) < 0) return fail_errno(errno, "lseek");
  return erofs_oci::read_text(fd, "what mount-oci says", 16u << 20);
}

/// The last line, which tells why a program has failed.
std::string last_line(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  return std::string(text.substr(text.rfind('\n') + 1));
}

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

Result<std::string> MountTool::run(std::vector<std::string> words, Deadline deadline,
                                   std::stop_token const& stop) const {
  auto const what = options_.program + " " + words.front();
  words.insert(words.begin(), options_.program);
  EROFS_OCI_TRY_ASSIGN(auto const out, memory_file("out"));
  EROFS_OCI_TRY_ASSIGN(auto const errors, memory_file("errors"));
  EROFS_OCI_TRY_ASSIGN(auto const input, erofs_oci::open_read("/dev/null"));
  EROFS_OCI_TRY_ASSIGN(
      auto child, erofs_oci::ChildProgram::start(std::move(words),
                                                 {.descriptors = {{input.get(), STDIN_FILENO},
                                                                  {out.get(), STDOUT_FILENO},
                                                                  {errors.get(), STDERR_FILENO}}}));
  for (;;) {
    EROFS_OCI_TRY_ASSIGN(auto const status, child.poll(), what);
    if (status && *status == 0) return written(out);
    if (status) {
      EROFS_OCI_TRY_ASSIGN(auto const said, written(errors));
      return tl::unexpected(
          erofs_oci::explain(make_error_code(std::errc::io_error),
                             said.empty() ? what + ": ended with status " + std::to_string(*status)
                                          : last_line(said)));
    }
    if (stop.stop_requested()) return fail(Errc::stopping, what);
    if (std::chrono::steady_clock::now() >= deadline) return fail(Errc::timed_out, what);
    std::this_thread::sleep_for(5ms);
  }
}

Result<ImageDescription> MountTool::describe(std::string const& repository,
                                             std::string const& manifest, Deadline deadline,
                                             std::stop_token const& stop) const {
  ImageDescription out{{manifest, repository, {}}, {}};
  EROFS_OCI_TRY_ASSIGN(
      auto const text,
      run({"image", "--quiet", "--json", "-o", words(0), out.facts.reference()}, deadline, stop));
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
  EROFS_OCI_TRY_ASSIGN(
      auto const text,
      run({"index", "--quiet", "--json", "-o", words(count), image.reference()}, never, stop));
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
  std::vector<std::string> all{"mount",           "--quiet",  "-o",
                               words(count),      "--attach", options_.attach,
                               image.reference(), directory};
  if (!options_.journal.empty()) all.insert(all.begin() + 1, {"--journal", options_.journal});
  EROFS_OCI_TRY(run(std::move(all), never, stop));
  return {};
}

Result<void> MountTool::unmount(std::string const& directory, std::stop_token const& stop) const {
  std::vector<std::string> all{"umount", "--quiet", directory};
  if (!options_.journal.empty()) all.insert(all.begin() + 1, {"--journal", options_.journal});
  EROFS_OCI_TRY(run(std::move(all), std::chrono::steady_clock::now() + 60s, stop));
  return {};
}

Result<bool> MountTool::is_served(std::string const& directory) const {
  std::vector<std::string> all{"status", "--json"};
  if (!options_.journal.empty()) all.insert(all.end(), {"--journal", options_.journal});
  EROFS_OCI_TRY_ASSIGN(auto const text,
                       run(std::move(all), std::chrono::steady_clock::now() + 10s, {}));
  auto const whole = "{\"mounts\":" + text + "}";  // parse() takes objects
  EROFS_OCI_TRY_ASSIGN(auto const object, json::parse(erofs_oci::as_bytes(whole), "status --json"));
  auto const* const mounts = json::find(object, "mounts");
  if (mounts == nullptr || !mounts->is_array()) return fail(Errc::corrupt, "status --json");
  return std::ranges::any_of(*mounts, [&](json::Value const& mount) {
    auto const* const served = json::find(mount, "served");
    return json::text(mount, "mount_point").value_or("") == directory && served != nullptr &&
           served->is_boolean() && served->get<bool>();
  });
}

}  // namespace oci_snapshotter
