// SPDX-License-Identifier: Apache-2.0
#include "pull_logins.hpp"

#include <algorithm>
#include <ranges>
#include <utility>

#include <erofs_oci/oci/reference.hpp>

namespace oci_snapshotter {

std::uint64_t PullLogins::begin(std::string_view image, Login login) {
  auto const parsed = erofs_oci::Reference::parse(image);
  if (!parsed) return 0;
  std::scoped_lock const lock(mutex_);
  if (pulls_.size() == most) pulls_.pop_front();
  pulls_.push_back({++last_, parsed->to_string(), parsed->repository_name(), {}, std::move(login)});
  return last_;
}

void PullLogins::keep(std::uint64_t pull, std::string id) {
  std::scoped_lock const lock(mutex_);
  auto const kept = std::ranges::find(pulls_, pull, &Pull::number);
  if (kept == pulls_.end()) return;
  kept->id = std::move(id);
  auto const image = kept->image;
  std::erase_if(pulls_, [&](Pull const& one) { return one.number < pull && one.image == image; });
}

void PullLogins::drop(std::uint64_t pull) {
  std::scoped_lock const lock(mutex_);
  std::erase_if(pulls_, [&](Pull const& one) { return one.number == pull; });
}

void PullLogins::forget(std::string_view image) {
  auto const parsed = erofs_oci::Reference::parse(image);
  auto const name = parsed ? parsed->to_string() : std::string();
  std::scoped_lock const lock(mutex_);
  std::erase_if(pulls_, [&](Pull const& one) {
    return one.image == name || (!one.id.empty() && one.id == image);
  });
}

std::optional<Login> PullLogins::find(std::string_view repository) const {
  std::scoped_lock const lock(mutex_);
  for (auto const& one : std::views::reverse(pulls_)) {
    if (one.repository == repository) return one.login;
  }
  return std::nullopt;
}

std::size_t PullLogins::size() const {
  std::scoped_lock const lock(mutex_);
  return pulls_.size();
}

}  // namespace oci_snapshotter
