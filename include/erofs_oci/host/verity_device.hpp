// SPDX-License-Identifier: Apache-2.0
/// @file
/// VerityDevice: a device of dm-verity, by which the kernel checks what it reads. Where
/// EROFS_OCI_HAVE_CRYPTSETUP is defined, you link libcryptsetup; elsewhere there is no such device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#ifdef EROFS_OCI_HAVE_CRYPTSETUP
#include <libcryptsetup.h>
#endif

#include <erofs_oci/core/result.hpp>
#include <erofs_oci/digest/digest.hpp>

namespace erofs_oci {

/// What dm-verity is told of a device: `data_size` bytes of data, and right behind them the file of
/// their Merkle tree, as digest/verity_tree.hpp has it.
struct VerityTable {
  Digest root;                  ///< SHA-256
  std::uint64_t data_size = 0;  ///< bytes, a multiple of 4096
  bool required = false;        ///< without dm-verity nothing is mounted

  friend bool operator==(VerityTable const&, VerityTable const&) = default;
};

/// What the names of these devices begin with, in front of that of the device below.
inline constexpr std::string_view verity_prefix = "erofs_oci-";

/// Says of an error of a mount from such a device what may be behind it.
[[nodiscard]] inline Error explain_verity(Error error) {
  if (error.code != std::errc::io_error) return error;
  return make_error(std::move(error),
                    "what the device holds is not what its Merkle tree says, or "
                    "cannot be read (dmesg says which)");
}

/// Why this program cannot have the kernel check a device; empty: it can, if the kernel has
/// dm-verity.
[[nodiscard]] constexpr std::string_view verity_problem() noexcept {
#ifdef EROFS_OCI_HAVE_CRYPTSETUP
  return {};
#else
  return "this program was built without libcryptsetup";
#endif
}

/// A device of dm-verity over another one. Reads of it yield what its root hash says, or fail with
/// EIO. The kernel removes it with its last user: this object, or what was mounted from it.
///
/// @par Thread safety
/// None.
class VerityDevice {
 public:
  /// Sets it up, as /dev/mapper/erofs_oci-NAME for /dev/NAME, and reads a few bytes of `device`.
  /// Needs root. Blocks until those reads are answered.
  /// @error{Errc::unsupported, built without libcryptsetup}
  /// @error{an errno, as libcryptsetup: ENOTSUP or ENODEV if the kernel has no dm-verity}
  [[nodiscard]] static Result<VerityDevice> open(std::string const& device,
                                                 VerityTable const& table) {
#ifdef EROFS_OCI_HAVE_CRYPTSETUP
    auto name = std::string(verity_prefix) + device.substr(device.rfind('/') + 1);
    std::string said;
    auto const number = activate(device, table, name, said);
    if (number == 0) return VerityDevice(std::move(name));
    return fail_errno(-number, "dm-verity on " + device + (said.empty() ? "" : ": " + said));
#else
    static_cast<void>(table);
    return fail(Errc::unsupported, "dm-verity on " + device + ": " + std::string(verity_problem()));
#endif
  }

  VerityDevice(VerityDevice&& other) noexcept : name_(std::exchange(other.name_, {})) {}
  VerityDevice& operator=(VerityDevice&& other) noexcept {
    std::swap(name_, other.name_);
    return *this;
  }
  ~VerityDevice() {
#ifdef EROFS_OCI_HAVE_CRYPTSETUP
    if (name_.empty()) return;
    // What has it open keeps it until it closes it.
    crypt_set_log_callback(nullptr, [](int, char const*, void*) {}, nullptr);
    static_cast<void>(crypt_deactivate_by_name(nullptr, name_.c_str(), CRYPT_DEACTIVATE_DEFERRED));
#endif
  }

  /// "/dev/mapper/erofs_oci-nbd0".
  [[nodiscard]] std::string path() const { return "/dev/mapper/" + name_; }

 private:
  explicit VerityDevice(std::string name) noexcept : name_(std::move(name)) {}

#ifdef EROFS_OCI_HAVE_CRYPTSETUP
  /// @param said  gets the last line of an error
  /// @return 0 or a negative errno
  static int activate(std::string const& device, VerityTable const& table, std::string const& name,
                      std::string& said) {
    constexpr std::uint64_t data_block = 512;
    constexpr std::uint64_t hash_block = 4096;
    crypt_device* opened = nullptr;
    if (auto const number = crypt_init(&opened, device.c_str()); number < 0) return number;
    std::unique_ptr<crypt_device, void (*)(crypt_device*)> const context(opened, &crypt_free);
    crypt_set_log_callback(
        opened,
        [](int level, char const* line, void* text) {
          if (level != CRYPT_LOG_ERROR) return;
          auto& out = *static_cast<std::string*>(text);
          out = line;
          while (out.ends_with('\n') || out.ends_with('.')) out.pop_back();
        },
        &said);
    // The superblock is for people's tools; what it says is not asked, since it is not checked.
    crypt_params_verity params{};
    params.hash_name = "sha256";
    params.data_device = device.c_str();
    params.hash_type = 1;
    params.data_block_size = data_block;
    params.hash_block_size = hash_block;
    params.data_size = table.data_size / data_block;
    params.hash_area_offset = table.data_size + hash_block;
    params.flags = CRYPT_VERITY_NO_HEADER;
    if (auto const number =
            crypt_format(opened, CRYPT_VERITY, nullptr, nullptr, nullptr, nullptr, 0, &params);
        number < 0) {
      return number;
    }
    auto const root = table.root.bytes();
    auto const* const key = reinterpret_cast<char const*>(root.data());
    auto const number = crypt_activate_by_volume_key(opened, name.c_str(), key, root.size(),
                                                     CRYPT_ACTIVATE_READONLY);
    return number < 0 ? number : 0;
  }
#endif

  std::string name_;  // empty: moved from
};

}  // namespace erofs_oci
