// SPDX-License-Identifier: Apache-2.0
#include "mount_table.hpp"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <ranges>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/host/verity_device.hpp>
#include <erofs_oci/posix/text_file.hpp>

namespace mount_oci {
namespace {

using erofs_oci::fail_errno;

/// Takes the first field of a line away.
std::string_view next_field(std::string_view& line) {
  auto const field = line.substr(0, line.find(' '));
  line.remove_prefix(std::min(field.size() + 1, line.size()));
  return field;
}

/// `36 35 98:0 /root /target options [optional fields] - type source options`
std::optional<MountEntry> parse_line(std::string_view line) {
  auto const id = erofs_oci::whole_number<std::uint64_t>(next_field(line));
  next_field(line);
  auto const device = next_field(line);
  auto const colon = std::min(device.find(':'), device.size());
  auto const major = erofs_oci::whole_number<unsigned>(device.substr(0, colon));
  auto const minor =
      erofs_oci::whole_number<unsigned>(device.substr(std::min(colon + 1, device.size())));
  MountEntry entry;
  entry.root = decode_octal(next_field(line));
  entry.target = decode_octal(next_field(line));
  auto const dash = line.find(" - ");
  if (!id || !major || !minor || entry.target.empty() || dash == std::string_view::npos) {
    return std::nullopt;
  }
  line.remove_prefix(dash + 3);
  entry.device = makedev(*major, *minor);
  entry.id = *id;
  entry.type = next_field(line);
  entry.source = decode_octal(next_field(line));
  return entry;
}

}  // namespace

std::string decode_octal(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto const digits = text.substr(i + 1, 3);
    auto const octal = digits.size() == 3 && digits.find_first_not_of("01234567") == digits.npos;
    if (text[i] != '\\' || !octal) {
      out += text[i];
      continue;
    }
    out += static_cast<char>((digits[0] - '0') * 64 + (digits[1] - '0') * 8 + (digits[2] - '0'));
    i += 3;
  }
  return out;
}

std::vector<MountEntry> parse_mount_table(std::string_view text) {
  std::vector<MountEntry> table;
  for (auto const line : std::views::split(text, '\n')) {
    if (auto entry = parse_line({line.begin(), line.end()})) table.push_back(*std::move(entry));
  }
  return table;
}

Result<std::vector<MountEntry>> read_mount_table() {
  EROFS_OCI_TRY_ASSIGN(auto const text, erofs_oci::read_text_file("/proc/self/mountinfo"));
  return parse_mount_table(text);
}

std::optional<MountEntry> find_target(std::vector<MountEntry> const& table, std::string_view path) {
  for (auto const& entry : table | std::views::reverse) {
    if (entry.target == path) return entry;
  }
  return std::nullopt;
}

std::vector<MountEntry> mounts_of(std::vector<MountEntry> const& table, dev_t device) {
  std::vector<MountEntry> found;
  std::ranges::copy_if(table, std::back_inserter(found), [device](MountEntry const& entry) {
    return entry.device == device && entry.root == "/";
  });
  return found;
}

bool is_ours(MountEntry const& entry) {
  auto const& source = entry.source;
  if (entry.type == "erofs") {
    return source.starts_with("/dev/nbd") || source.starts_with("/dev/loop") ||
           source.find("/erofs_oci-") != std::string::npos ||
           nbd_index_of(entry.device).has_value();
  }
  return entry.type == "fuse.erofs_oci" || entry.type == "fuse.fuse-overlayfs" ||
         (entry.type == "overlay" && source == "mount-oci");
}

bool is_source(std::vector<MountEntry> const& table, std::string_view device) {
  return std::ranges::any_of(table, [&](auto const& entry) { return entry.source == device; });
}

namespace {

/// Of a device's directory in sysfs; empty: it is not there.
std::string device_text(dev_t device, std::string const& root, char const* name) {
  auto const path =
      root + "/" + std::to_string(major(device)) + ":" + std::to_string(minor(device)) + "/" + name;
  return erofs_oci::read_text_file(path).value_or("");
}

}  // namespace

bool is_verity_source(std::string_view source) {
  constexpr std::string_view folder = "/dev/mapper/";
  return source.starts_with(folder) &&
         source.substr(folder.size()).starts_with(erofs_oci::verity_prefix);
}

bool is_verity_device(dev_t device, std::string const& root) {
  return device_text(device, root, "dm/name").starts_with(erofs_oci::verity_prefix);
}

std::optional<std::uint32_t> nbd_index_of(dev_t device, std::string const& root) {
  auto const mapped = device_text(device, root, "dm/name");  // erofs_oci-nbd0
  if (mapped.starts_with(std::string(erofs_oci::verity_prefix) + "nbd")) {
    auto number = std::string_view(mapped).substr(erofs_oci::verity_prefix.size() + 3);
    return erofs_oci::whole_number<std::uint32_t>(number.substr(0, number.find('\n')));
  }
  auto const text = device_text(device, root, "uevent");
  constexpr std::string_view key = "DEVNAME=nbd";
  auto const at = text.find(key);
  if (at == std::string::npos) return std::nullopt;
  auto name = std::string_view(text).substr(at + key.size());
  name = name.substr(0, name.find('\n'));
  name = name.substr(0, name.find('p'));  // nbd0p1 is a partition of nbd0
  return erofs_oci::whole_number<std::uint32_t>(name);
}

}  // namespace mount_oci
