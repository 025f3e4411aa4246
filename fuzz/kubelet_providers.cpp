// SPDX-License-Identifier: Apache-2.0
// Any text is refused, or is a list of providers that have what kubelet demands; and any text is
// asked of patterns and durations without harm: a host matches itself, and no time is longer than
// ten years.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <kubelet_providers.hpp>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  using namespace oci_snapshotter;
  auto const text = std::string(reinterpret_cast<char const*>(data), size);
  auto const time = parse_go_duration(text);
  if (time && (time->count() < 0 || *time > std::chrono::hours(24 * 365 * 10))) std::abort();
  auto const is_plain =
      !text.empty() &&
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
  if (is_plain && !matches_image(text, text + "/a")) std::abort();
  static_cast<void>(matches_image(text, "host.example:5000/a/b"));
  static_cast<void>(matches_image("*.example:5000/a", text));
  auto const list = parse_provider_config(text, "name");
  if (!list) return 0;
  for (auto const& one : *list) {
    if (one.name.empty() || one.name.find('/') != one.name.npos || one.images.empty()) std::abort();
  }
  return 0;
}
