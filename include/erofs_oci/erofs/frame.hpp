// SPDX-License-Identifier: Apache-2.0
/// @file
/// Frame: an opened image without its files; where its blocks are, in which source.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <erofs_oci/core/any_source.hpp>
#include <erofs_oci/core/arithmetic.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/core/source.hpp>
#include <erofs_oci/erofs/format.hpp>

namespace erofs_oci::erofs {

/// A run of bytes on a device.
struct Place {
  std::uint32_t device = 0;  ///< 1 = first slot; 0 = the image itself
  std::uint64_t offset = 0;  ///< bytes from the device's start

  friend bool operator==(Place const&, Place const&) = default;
};

/// The superblock, the device table and the bytes of an image.
///
/// Trusts nothing in the image: checks sums, and allocates only the device table, which must lie
/// inside the image.
///
/// @par Thread safety
/// All const members, from any thread.
template <RandomAccessSource S>
class Frame {
 public:
  /// Reads and checks superblock and device table.
  /// @param image    the image; or the image with its devices' data behind it (flat)
  /// @param devices  none (flat), or one for each slot of the device table, in its order
  /// @error{Errc::corrupt, no EROFS image or a damaged one}
  /// @error{Errc::truncated, the image is shorter than it says}
  /// @error{Errc::unsupported, a feature or block size that we do not know}
  /// @error{Errc::mismatch, a number of devices that is neither 0 nor that of the table}
  [[nodiscard]] static Result<Frame> open(S image, std::vector<AnySource> devices) {
    Frame frame(std::move(image), std::move(devices));
    EROFS_OCI_TRY(frame.read_superblock(), "superblock at offset 1024");
    EROFS_OCI_TRY(frame.read_device_table(), "device table");
    return frame;
  }

  [[nodiscard]] Superblock const& superblock() const noexcept { return superblock_; }
  [[nodiscard]] std::vector<DeviceSlot> const& slots() const noexcept { return slots_; }
  [[nodiscard]] std::uint64_t block() const noexcept {
    return std::uint64_t{1} << superblock_.block_bits;
  }
  [[nodiscard]] std::uint64_t image_size() const noexcept { return image_.size(); }
  /// The image's own source.
  [[nodiscard]] S const& image() const noexcept { return image_; }

  /// Length of slot `i`, in blocks.
  [[nodiscard]] std::uint64_t slot_blocks(std::size_t i) const noexcept {
    return wide(slots_[i].blocks_low, slots_[i].blocks_high);
  }
  /// Where the flat space has slot `i`, in blocks; 0 = nowhere.
  [[nodiscard]] std::uint64_t slot_first(std::size_t i) const noexcept {
    return wide(slots_[i].first_block_low, slots_[i].first_block_high);
  }

  /// Whether [position, position + length) lies in the image.
  [[nodiscard]] bool contains(std::uint64_t position, std::uint64_t length) const noexcept {
    return position <= image_.size() && length <= image_.size() - position;
  }

  /// Fills `out` from the image.
  /// @error{Errc::corrupt, the range leaves the image}
  [[nodiscard]] Result<void> read(std::uint64_t position, std::span<std::byte> out) const {
    if (!contains(position, out.size())) {
      return fail(Errc::corrupt, "offset " + std::to_string(position) + ": leaves the image");
    }
    return read_exact(image_, position, out);
  }

  /// Turns a stored address into a place: [block `address` + `skip` bytes, + `length`) of `device`.
  ///
  /// Addresses on the primary device that fall into a slot's range become that slot's, so that all
  /// encodings of an image give the same places.
  /// @error{Errc::corrupt, no such device\, or a range that leaves it}
  [[nodiscard]] Result<Place> place(std::uint32_t device, std::uint64_t address, std::uint64_t skip,
                                    std::uint64_t length) const {
    if (device > slots_.size()) {
      return fail(Errc::corrupt, "device id " + std::to_string(device) + ", there are " +
                                     std::to_string(slots_.size()));
    }
    if (device == 0) std::tie(device, address) = find_slot(address);
    auto const start = checked_mul(address, block());
    auto const offset = start ? checked_add(*start, skip) : start;
    auto const end = offset ? checked_add(*offset, length) : offset;
    auto const most = device == 0 ? image_.size() : slot_blocks(device - 1) * block();
    if (!end || *end > most) {
      return fail(Errc::corrupt, "block " + std::to_string(address) + " and on: leaves device " +
                                     std::to_string(device));
    }
    return Place{device, *offset};
  }

  /// Fills `out` with data from a place.
  /// @error{Errc::truncated, the device's source ends first}
  [[nodiscard]] Result<void> read_data(Place place, std::span<std::byte> out) const {
    return with_source(place, [&](auto const& source, std::uint64_t offset) {
      return read_exact(source, offset, out);
    });
  }

  /// Streams data from a place, one request however long.
  /// @error{Errc::truncated, the device's source ends first}
  [[nodiscard]] Result<void> stream_data(Place place, std::uint64_t length, ByteSink sink) const {
    auto left = length;
    bool stopped = false;
    auto const count = [&](std::span<std::byte const> bytes) {
      left -= bytes.size();
      stopped = !sink(bytes);
      return !stopped;
    };
    EROFS_OCI_TRY(with_source(place, [&](auto const& source, std::uint64_t offset) {
      return stream(source, offset, length, count);
    }));
    if (left > 0 && !stopped) return fail(Errc::truncated, text(place));
    return {};
  }

 private:
  Frame(S image, std::vector<AnySource> devices) noexcept
      : image_(std::move(image)), devices_(std::move(devices)) {}

  [[nodiscard]] std::uint64_t wide(std::uint32_t low, std::uint16_t high) const noexcept {
    return low | (superblock_.has(incompat::wide_addresses) ? std::uint64_t{high} << 32 : 0);
  }

  [[nodiscard]] static std::string text(Place place) {
    return "device " + std::to_string(place.device) + " offset " + std::to_string(place.offset);
  }

  /// Calls `use` with the source that holds a place, and the offset there.
  [[nodiscard]] Result<void> with_source(Place place, auto const& use) const {
    auto const done = [&]() -> Result<void> {
      if (place.device == 0) return use(image_, place.offset);
      if (!devices_.empty()) return use(devices_[place.device - 1], place.offset);
      auto const first = slot_first(place.device - 1);
      if (first == 0) return fail(Errc::mismatch, "this device needs a source of its own");
      // read_device_table() checked the slot's end
      return use(image_, first * block() + place.offset);
    }();
    EROFS_OCI_TRY(done, text(place));
    return {};
  }

  [[nodiscard]] std::pair<std::uint32_t, std::uint64_t> find_slot(std::uint64_t address) const {
    auto const after = std::ranges::upper_bound(by_first_, address, {},
                                                [](auto const& entry) { return entry.first; });
    if (after == by_first_.begin()) return {0, address};
    auto const [first, index] = *std::prev(after);
    if (address - first >= slot_blocks(index)) return {0, address};
    return {static_cast<std::uint32_t>(index + 1), address - first};
  }

  [[nodiscard]] Result<void> read_superblock() {
    std::array<std::byte, Superblock::on_disk_size> raw{};
    if (!contains(superblock_offset, raw.size())) return fail(Errc::truncated, "image too short");
    EROFS_OCI_TRY(read(superblock_offset, raw));
    superblock_ = Superblock::decode(raw);
    auto const& s = superblock_;
    if (s.magic != magic) return fail(Errc::corrupt, "no EROFS magic");
    if (s.block_bits < 9 || s.block_bits > 16) {
      return fail(Errc::unsupported, "blocks of 2^" + std::to_string(s.block_bits) + " bytes");
    }
    if ((s.feature_compat & compat::checksum) != 0) {
      EROFS_OCI_TRY(verify_checksum());
    }
    if (s.dir_block_bits != 0) return fail(Errc::unsupported, "directory blocks of several blocks");
    if (auto const unknown = s.feature_incompat & ~incompat::known; unknown != 0) {
      return fail(Errc::unsupported, "incompatible features " + std::to_string(unknown));
    }
    auto const end = superblock_offset + raw.size() + 16 * std::uint64_t{s.extension_slots};
    if (end > 4096 || end > image_.size()) {
      return fail(Errc::corrupt, std::to_string(s.extension_slots) + " extension slots");
    }
    auto const length = checked_mul(s.blocks(), block());
    if (!length || *length > image_.size()) {
      return fail(Errc::truncated, "says " + std::to_string(s.blocks()) + " blocks, there are " +
                                       std::to_string(image_.size()) + " bytes");
    }
    return {};
  }

  [[nodiscard]] Result<void> verify_checksum() const {
    auto const length = superblock_.checksum_length();
    if (!contains(superblock_offset, length)) return fail(Errc::truncated, "checksummed bytes");
    Bytes bytes(static_cast<std::size_t>(length));
    EROFS_OCI_TRY(read(superblock_offset, bytes));
    std::ranges::fill(std::span(bytes).subspan(4, 4), std::byte{0});
    if (crc32c(bytes) != superblock_.checksum) return fail(Errc::corrupt, "wrong checksum");
    return {};
  }

  [[nodiscard]] Result<void> read_device_table() {
    auto const count = superblock_.extra_devices;
    if (!devices_.empty() && devices_.size() != count) {
      return fail(Errc::mismatch, std::to_string(devices_.size()) +
                                      " devices given, the image has " + std::to_string(count));
    }
    if (count == 0) return {};
    auto const size = DeviceSlot::on_disk_size;
    auto const start = std::uint64_t{superblock_.device_table_slot} * size;
    if (!contains(start, std::uint64_t{count} * size)) {
      return fail(Errc::corrupt, std::to_string(count) + " slots at offset " +
                                     std::to_string(start) + " leave the image");
    }
    Bytes raw(count * size);
    EROFS_OCI_TRY(read(start, raw));
    slots_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      slots_.push_back(DeviceSlot::decode(std::span<std::byte const>(raw)
                                              .subspan(i * size)
                                              .template first<DeviceSlot::on_disk_size>()));
      auto const end = checked_add(slot_first(i), slot_blocks(i));
      if (!end || !checked_mul(*end, block())) {
        return fail(Errc::corrupt, "slot " + std::to_string(i) + " ends past 2^64 bytes");
      }
      if (slot_first(i) != 0) by_first_.emplace_back(slot_first(i), i);
    }
    std::ranges::sort(by_first_);
    return {};
  }

  S image_;
  std::vector<AnySource> devices_;
  Superblock superblock_;
  std::vector<DeviceSlot> slots_;
  std::vector<std::pair<std::uint64_t, std::size_t>> by_first_;  // ascending first block, slot
};

}  // namespace erofs_oci::erofs
