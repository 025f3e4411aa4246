// SPDX-License-Identifier: Apache-2.0
#include "extract_plan.hpp"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>

#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/tarindex/path.hpp>

#include "entry.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::erofs::Follow;
using erofs_oci::erofs::Inode;
using erofs_oci::erofs::Run;
using erofs_oci::erofs::Step;
using erofs_oci::erofs::Visit;

/// Whether `path` is `top` or below it.
bool is_within(std::string_view path, std::string_view top) {
  if (top == "/") return true;
  return path.starts_with(top) && (path.size() == top.size() || path[top.size()] == '/');
}

class Planner {
 public:
  Planner(ImageReader const& reader, std::vector<std::string> wanted)
      : reader_(reader), wanted_(std::move(wanted)) {}

  [[nodiscard]] Result<ExtractPlan> plan(Inode const& start, std::string path) {
    Result<void> ok;
    walk_from(reader_, start, std::move(path), [&](Visit const& at) {
      if (!is_wanted(at.path)) return Step::skip;
      ok = take(at);
      return ok ? Step::enter : Step::stop;
    });
    EROFS_OCI_TRY(ok);
    std::ranges::sort(contents_, {}, [](Content const& content) {
      return std::tuple(content.at.device, content.at.offset, content.file);
    });
    for (auto const& content : contents_) plan_.by_place.push_back(content.file);
    return std::move(plan_);
  }

 private:
  struct Content {
    erofs_oci::erofs::Place at;  // where it begins
    std::size_t file;
  };

  [[nodiscard]] bool is_wanted(std::string const& path) const {
    return std::ranges::any_of(wanted_, [&](std::string const& wanted) {
      return is_within(path, wanted) || is_within(wanted, path);
    });
  }

  Result<void> take(Visit const& at) {
    if (at.error != nullptr) return fail(*at.error, at.path);
    auto const& inode = *at.inode;
    plan_.files.push_back({at.path, inode, {}});
    if (inode.is_directory()) return {};
    auto const [first, is_new] = names_.try_emplace(inode.nid, at.path);
    if (!is_new) plan_.files.back().link_to = first->second;
    return is_new && inode.is_regular() ? find_place(inode, at.path) : Result<void>();
  }

  Result<void> find_place(Inode const& inode, std::string const& path) {
    Content content{{}, plan_.files.size() - 1};
    auto const ok = reader_.runs(inode, 0, inode.size(), [&](Run const& run) -> Result<bool> {
      content.at = run.place.value_or(erofs_oci::erofs::Place());
      return !run.place;
    });
    if (!ok) return fail(ok.error(), path);
    contents_.push_back(content);
    return {};
  }

  ImageReader const& reader_;
  std::vector<std::string> wanted_;
  ExtractPlan plan_;
  std::vector<Content> contents_;                         // of regular files
  std::unordered_map<std::uint64_t, std::string> names_;  // first path of an inode
};

}  // namespace

Result<ExtractPlan> plan_extraction(ImageReader const& reader,
                                    std::vector<std::string> const& paths) {
  std::vector<std::string> wanted;
  for (auto const& path : paths) {
    EROFS_OCI_TRY(erofs_oci::erofs::find(reader, path, Follow::none));
    std::string clean;  // as walk() spells it
    for (auto const part : erofs_oci::tarindex::split(path)) {
      if (part == "..") return fail(Errc::invalid_argument, path + ": a path with ..");
      clean += "/" + std::string(part);
    }
    wanted.push_back(clean.empty() ? "/" : std::move(clean));
  }
  if (wanted.empty()) wanted.emplace_back("/");
  EROFS_OCI_TRY_ASSIGN(auto const root, reader.root());
  return Planner(reader, std::move(wanted)).plan(root, "/");
}

Result<ExtractPlan> plan_copy(ImageReader const& reader, Inode const& source, std::string as) {
  return Planner(reader, {"/"}).plan(source, std::move(as));
}

}  // namespace mount_oci
