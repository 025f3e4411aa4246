// SPDX-License-Identifier: Apache-2.0
/// @file
/// check(): checks an image as a whole, also for damage that reading it would not show.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/directory.hpp>
#include <erofs_oci/erofs/reader.hpp>
#include <erofs_oci/erofs/walk.hpp>
#include <erofs_oci/erofs/xattr.hpp>

namespace erofs_oci::erofs {

/// Something wrong with an image.
struct Finding {
  std::string path;                  ///< of the file concerned; empty for the image as a whole
  std::optional<std::uint64_t> nid;  ///< of its inode
  std::uint64_t offset = 0;          ///< in the image, in bytes: of the inode or structure
  std::string text;                  ///< what is wrong
  bool unknown = false;              ///< nothing is known to be wrong, but nothing to be right
};

/// The result of a check.
struct Findings {
  static constexpr std::size_t kept = 1000;  ///< findings stored at most

  std::vector<Finding> list;     ///< the first ones, in the order of the walk
  std::uint64_t count = 0;       ///< all
  std::uint64_t unknown = 0;     ///< of these, the unknown ones
  std::uint64_t inodes = 0;      ///< inodes reached
  std::uint64_t data_bytes = 0;  ///< data read, with CheckOptions::data

  /// Whether nothing is wrong.
  [[nodiscard]] bool sound() const noexcept { return count == 0; }
};

/// How much to check.
struct CheckOptions {
  bool data = false;  ///< also read every byte of file data, each once, in device order
};

namespace detail {

template <RandomAccessSource S>
class Checker {
 public:
  Checker(Reader<S> const& reader, CheckOptions options) : reader_(reader), options_(options) {}

  Result<Findings> run() {
    check_frame();
    auto const walked = walk(reader_, [&](Visit const& at) {
      visit(at);
      return Step::enter;
    });
    if (!walked) return tl::unexpected(walked.error());
    check_links();
    if (options_.data) read_data();
    return std::move(findings_);
  }

 private:
  struct Seen {
    std::string path;
    std::uint64_t position;
    std::uint32_t stored;       // link count in the inode
    std::uint64_t counted = 0;  // entries, or 2 and subdirectories
  };
  struct Data {
    Place place;
    std::uint64_t length;
    std::uint64_t nid;
  };

  void add(std::string path, std::optional<std::uint64_t> nid, std::uint64_t offset,
           std::string text, bool unknown = false) {
    ++findings_.count;
    findings_.unknown += unknown ? 1 : 0;
    if (findings_.list.size() < Findings::kept) {
      findings_.list.push_back({std::move(path), nid, offset, std::move(text), unknown});
    }
  }

  void add(Visit const& at, std::string text, bool unknown = false) {
    add(at.path, at.nid, at.inode != nullptr ? at.inode->position : 0, std::move(text), unknown);
  }

  // Superblock and device table.
  void check_frame() {
    auto const& frame = reader_.frame();
    auto const& s = reader_.superblock();
    if ((s.feature_compat & compat::checksum) == 0) {
      add({}, {}, superblock_offset, "superblock has no checksum", true);
    }
    if (s.fixed_nsec >= 1'000'000'000) add({}, {}, superblock_offset, "nanoseconds out of range");
    auto expected = s.blocks();
    for (std::size_t i = 0; i < frame.slots().size(); ++i) {
      if (frame.slot_first(i) != expected) {
        add({}, {}, (s.device_table_slot + i) * DeviceSlot::on_disk_size,
            "device " + std::to_string(i + 1) + " starts at block " +
                std::to_string(frame.slot_first(i)) + ", not " + std::to_string(expected));
      }
      expected = frame.slot_first(i) + frame.slot_blocks(i);
    }
  }

  void visit(Visit const& at) {
    if (at.error != nullptr) return add(at, at.error->message());
    auto const& inode = *at.inode;
    parents_.resize(at.depth);
    auto const [seen, first] =
        seen_.try_emplace(at.nid, Seen{at.path, inode.position, inode.record.links, 0});
    seen->second.counted += inode.is_directory() ? 2u : 1u;
    if (at.depth > 0 && inode.is_directory()) ++seen_.at(parents_.back()).counted;
    if (at.entry_type != file_type(inode.mode()) && at.entry_type != FileType::unknown) {
      add(at, "its entry says file type " + std::to_string(static_cast<unsigned>(at.entry_type)) +
                  ", its mode " + std::to_string(inode.mode()));
    }
    if (inode.is_directory()) {
      if (first) check_directory(at);
      parents_.push_back(at.nid);
    }
    if (!first) return;
    ++findings_.inodes;
    check_place(at);
    check_xattrs(at);
    if (inode.is_symlink()) check_link(at);
    if (inode.is_regular()) check_data(at);
  }

  void check_place(Visit const& at) {
    auto const& s = reader_.superblock();
    auto const overlaps = [&](std::uint64_t begin, std::uint64_t length) {
      return at.inode->position < begin + length && begin < at.inode->tail_position();
    };
    auto const table = std::uint64_t{s.device_table_slot} * DeviceSlot::on_disk_size;
    auto const size = reader_.frame().slots().size() * DeviceSlot::on_disk_size;
    if (overlaps(superblock_offset, Superblock::on_disk_size + 16u * s.extension_slots)) {
      add(at, "inode overlaps the superblock");
    }
    if (size > 0 && overlaps(table, size)) add(at, "inode overlaps the device table");
    if (at.inode->mtime.nanoseconds >= 1'000'000'000) add(at, "nanoseconds out of range");
  }

  void check_directory(Visit const& at) {
    std::string previous;
    bool dot = false;
    bool dotdot = false;
    auto const parent = at.depth == 0 ? at.nid : parents_.back();
    auto const see = [&](DirEntry const& entry) {
      if (!previous.empty() && !(previous < entry.name)) {
        add(at, "names out of order: '" + previous + "' before '" + std::string(entry.name) + "'");
      }
      previous = entry.name;
      if (entry.is_dot()) {
        auto const self = entry.name == ".";
        (self ? dot : dotdot) = true;
        if (entry.nid != (self ? at.nid : parent) || entry.type != FileType::directory) {
          add(at, "'" + std::string(entry.name) + "' names inode " + std::to_string(entry.nid));
        }
      } else if (entry.type > FileType::symlink) {
        add(at, "entry '" + std::string(entry.name) + "' has an unknown file type");
      }
    };
    auto const ok = reader_.read_blocks(*at.inode, [&](DirBlock const& block) {
      for (std::size_t i = 0; i < block.count(); ++i) see(block[i]);
      if (!block.is_clean()) add(at, "bytes after the names of a directory block");
      return true;
    });
    if (!ok) return;  // the walk shows it
    auto const may_omit = at.inode->record.flag();
    if ((!dot && !may_omit) || !dotdot) add(at, "'.' or '..' is missing");
  }

  void check_link(Visit const& at) {
    auto const target = reader_.read_link(*at.inode);
    if (!target) return add(at, target.error().message());
    if (target->empty()) add(at, "link without a target");
    if (target->find('\0') != std::string::npos) add(at, "link with NUL in its target");
  }

  void check_xattrs(Visit const& at) {
    auto const size = at.inode->record.xattr_size();
    if (size == 0) return;
    // Areas of a sound image do not overlap; see the same bound in walk().
    if (size > reader_.frame().image_size() - xattr_bytes_) {
      return add(at, "xattrs are larger than the image together");
    }
    xattr_bytes_ += size;
    std::set<std::string> names;
    auto const most = reader_.frame().image_size() + max_shared_xattrs;
    auto const ok = reader_.visit_xattrs(*at.inode, [&](XattrView const& view) {
      shown_bytes_ += view.rest.size() + view.value.size();
      if (shown_bytes_ > most) {
        add(at, "shared xattrs are named so often that they are larger than the image together");
        return false;
      }
      // Other tools leave entries of zeros when they remove an xattr.
      if (view.prefix == internal_prefix && view.rest.empty() && view.value.empty()) return true;
      auto const prefix = reader_.prefix_text(view.prefix);
      if (!prefix && view.prefix != internal_prefix) {
        add(at, "xattr with unknown prefix " + std::to_string(view.prefix));
      }
      auto const name =
          std::to_string(prefix ? 1 : 0) + prefix.value_or("") + std::string(view.rest);
      if (!names.insert(name).second) add(at, "xattr '" + name.substr(1) + "' twice");
      return true;
    });
    if (!ok) add(at, ok.error().message());
  }

  void check_data(Visit const& at) {
    auto const& inode = *at.inode;
    auto const size = inode.layout() == DataLayout::chunks && inode.size() > 0
                          ? chunk_table(reader_.frame(), inode)
                          : Result<ChunkTable>(ChunkTable{});
    if (size) {
      auto const bytes = size->count * inode.chunk_format().entry_size();
      if (bytes > reader_.frame().image_size() - table_bytes_) {
        return add(at, "chunk tables are larger than the image together");
      }
      table_bytes_ += bytes;
    }
    auto const ok = reader_.runs(inode, 0, inode.size(), [&](Run const& run) -> Result<bool> {
      if (run.place && options_.data) data_.push_back({*run.place, run.length, inode.nid});
      return true;
    });
    if (!ok) add(at, ok.error().message(), ok.error().code == Errc::unsupported);
  }

  void check_links() {
    // In the order of the image: the map has none.
    std::vector<std::pair<std::uint64_t, Seen const*>> all;
    for (auto const& [nid, seen] : seen_) {
      if (seen.counted != seen.stored && !(seen.stored == 1 && seen.counted > 65535)) {
        all.emplace_back(nid, &seen);
      }
    }
    std::ranges::sort(all);
    for (auto const& [nid, seen] : all) {
      add(seen->path, nid, seen->position,
          "link count " + std::to_string(seen->stored) + ", there are " +
              std::to_string(seen->counted));
    }
  }

  // Reads each byte once, also if several files share it.
  void read_data() {
    std::ranges::sort(data_, {}, [](Data const& d) {
      return std::tuple(d.place.device, d.place.offset, d.length);
    });
    for (std::size_t i = 0; i < data_.size();) {
      auto const place = data_[i].place;
      auto end = place.offset + data_[i].length;
      auto next = i + 1;
      while (next < data_.size() && data_[next].place.device == place.device &&
             data_[next].place.offset <= end) {
        end = std::max(end, data_[next].place.offset + data_[next].length);
        ++next;
      }
      read_range(std::span(data_).subspan(i, next - i), end);
      i = next;
    }
  }

  void read_range(std::span<Data const> parts, std::uint64_t end) {
    auto const begin = parts.front().place;
    std::uint64_t done = 0;
    auto const ok = reader_.frame().stream_data(begin, end - begin.offset, [&](auto bytes) {
      done += bytes.size();
      return true;
    });
    findings_.data_bytes += done;
    if (ok) return;
    // The failing byte is at begin + done or later: search the files that contain it.
    for (auto const& part : parts) {
      if (part.place.offset + part.length <= begin.offset + done) continue;
      auto const again =
          reader_.frame().stream_data(part.place, part.length, [](auto) { return true; });
      if (!again) {
        auto const& seen = seen_.at(part.nid);
        add(seen.path, part.nid, seen.position, "data: " + again.error().message());
      }
    }
  }

  Reader<S> const& reader_;
  CheckOptions options_;
  Findings findings_;
  std::unordered_map<std::uint64_t, Seen> seen_;
  std::vector<std::uint64_t> parents_;  // nids from the root to where the walk is
  std::vector<Data> data_;
  std::uint64_t xattr_bytes_ = 0;
  std::uint64_t shown_bytes_ = 0;  // of xattrs, shared ones as often as they are named
  std::uint64_t table_bytes_ = 0;
};

}  // namespace detail

/// Checks an opened image as a whole: everything that Reader checks, and beyond that the order and
/// uniqueness of names, "." and "..", file types, link counts, xattrs, overlaps with the superblock
/// and the device table, and where devices start. With `data`, also that all file data can be read.
///
/// Time and memory are linear in the image (and, with `data`, in the devices), also for hostile
/// images. A missing superblock checksum is a finding; a wrong one is an error of Reader::open().
/// Compressed data are not read, which is a finding, too; both are unknown, not wrong.
///
/// @error{any, the root directory cannot be read}
template <RandomAccessSource S>
[[nodiscard]] Result<Findings> check(Reader<S> const& reader, CheckOptions options = {}) {
  return detail::Checker<S>(reader, options).run();
}

}  // namespace erofs_oci::erofs
