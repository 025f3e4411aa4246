// SPDX-License-Identifier: Apache-2.0
#include "matching_paths.hpp"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <system_error>
#include <utility>

#include <fnmatch.h>

#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/tarindex/path.hpp>

#include "entry.hpp"

namespace mount_oci {
namespace {

using erofs_oci::fail;
using erofs_oci::erofs::DirEntry;
using erofs_oci::erofs::Follow;

constexpr std::size_t most_paths = 1'000'000;

bool has_wildcard(std::string_view text) {
  return text.find_first_of("*?[") != std::string_view::npos;
}

/// Whether an error says that a name leads nowhere, and not that the image is damaged.
bool leads_nowhere(Error const& error) {
  return error.code == std::errc::no_such_file_or_directory ||
         error.code == std::errc::not_a_directory ||
         error.code == std::errc::too_many_symbolic_link_levels ||
         error.code == std::errc::filename_too_long;
}

std::string without_backslashes(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) ++i;
    out += text[i];
  }
  return out;
}

/// Of each of the paths, those that `part` matches there.
Result<std::vector<std::string>> descend(ImageReader const& reader,
                                         std::vector<std::string> const& paths,
                                         std::string const& part) {
  std::vector<std::string> found;
  for (auto const& path : paths) {
    auto const add = [&](std::string_view name) {
      found.push_back(path + "/" + std::string(name));
      return found.size() <= most_paths;
    };
    if (!has_wildcard(part)) {
      add(without_backslashes(part));
      continue;
    }
    auto const inode = erofs_oci::erofs::find(reader, path, Follow::all);
    if (!inode && !leads_nowhere(inode.error())) return fail(inode.error());
    if (!inode || !inode->is_directory()) continue;
    EROFS_OCI_TRY(reader.readdir(*inode,
                                 [&](DirEntry const& entry) {
                                   std::string const name(entry.name);
                                   if (entry.is_dot()) return true;
                                   if (::fnmatch(part.c_str(), name.c_str(), FNM_PERIOD) != 0) {
                                     return true;
                                   }
                                   return add(name);
                                 }),
                  path);
    if (found.size() > most_paths) {
      return fail(Errc::unsupported, "a pattern that matches more than a million paths");
    }
  }
  return found;
}

}  // namespace

Result<std::vector<std::string>> matching_paths(ImageReader const& reader,
                                                std::string const& pattern) {
  std::vector<std::string> const itself{pattern};
  if (!has_wildcard(pattern)) return itself;
  auto const named = find_path(reader, pattern, Follow::parents);
  if (named) return itself;
  if (!leads_nowhere(named.error())) return fail(named.error());
  std::vector<std::string> paths{""};
  for (auto const part : erofs_oci::tarindex::split(pattern)) {
    EROFS_OCI_TRY_ASSIGN(paths, descend(reader, paths, std::string(part)), pattern);
  }
  if (pattern.ends_with('/')) {
    for (auto& path : paths) path += '/';
  }
  std::erase_if(paths, [&](std::string const& path) {
    auto const found = find_path(reader, path, Follow::parents);
    return !found && leads_nowhere(found.error());
  });
  std::ranges::sort(paths);
  return paths.empty() ? itself : paths;
}

}  // namespace mount_oci
