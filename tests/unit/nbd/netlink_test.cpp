// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/nbd/netlink.hpp>  // first: proves that the header stands alone

#include <array>
#include <bit>
#include <cstring>
#include <string>

#include <catch.hpp>

#include <erofs_oci/core/bytes.hpp>

namespace erofs_oci {
namespace netlink_test {

/// Netlink attributes written by hand: length with header, type, data, padding to 4.
class Attributes {
 public:
  Attributes& add(std::uint16_t type, std::span<std::byte const> data) {
    number(static_cast<std::uint16_t>(4 + data.size()));
    number(type);
    bytes_.insert(bytes_.end(), data.begin(), data.end());
    bytes_.resize((bytes_.size() + 3) / 4 * 4);
    return *this;
  }
  template <class T>
  Attributes& add(std::uint16_t type, T value) {
    return add(type, std::as_bytes(std::span(&value, 1)));
  }
  Attributes& add(std::uint16_t type, Attributes const& nested) {
    return add(type, std::span<std::byte const>(nested.bytes_));
  }
  Attributes& text(std::uint16_t type, std::string const& value) {  // with its NUL
    return add(type, as_bytes(std::string_view(value.c_str(), value.size() + 1)));
  }
  [[nodiscard]] Bytes const& bytes() const { return bytes_; }

 private:
  void number(std::uint16_t value) {
    auto const raw = std::as_bytes(std::span(&value, 1));
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
  }
  Bytes bytes_;
};

/// Command and attributes of a message, behind its 16 bytes of netlink header.
std::pair<unsigned, Bytes> taken_apart(nl_msg* message) {
  auto const* header = ::nlmsg_hdr(message);
  auto const all = std::span(reinterpret_cast<std::byte const*>(header), header->nlmsg_len);
  CHECK(header->nlmsg_type == 27);
  CHECK(std::to_integer<unsigned>(all[17]) == 1);  // version
  return {std::to_integer<unsigned>(all[16]), to_bytes(all.subspan(20))};
}

/// Without the flag that says "nested", which kernels ignore.
Bytes without_nested_flag(Bytes bytes) {
  if constexpr (std::endian::native == std::endian::little) {
    for (std::size_t at = 0; at + 4 <= bytes.size();) {
      auto const length = std::to_integer<std::size_t>(bytes[at]) |
                          std::to_integer<std::size_t>(bytes[at + 1]) << 8;
      bytes[at + 3] &= std::byte{0x7f};
      auto const type = std::to_integer<unsigned>(bytes[at + 2]);
      at += type == 7 || (type == 1 && length > 8) ? 4 : (length + 3) / 4 * 4;
    }
  }
  return bytes;
}

TEST_CASE("CONNECT says all that the kernel must know", "[nbd][netlink]") {
  Export const served{.size = 455'526'400};
  NbdDeviceOptions const options{
      .sockets = 2, .request_timeout = std::chrono::seconds(90), .backend = "/run/x"};
  std::array const sockets{5, 300};

  auto const message = nbd::detail::connect_message(27, served, options, sockets, std::nullopt);

  REQUIRE(message.has_value());
  auto const [command, attributes] = taken_apart(message->get());
  Attributes list;
  list.add(1, Attributes().add(1, std::uint32_t{5}));
  list.add(1, Attributes().add(1, std::uint32_t{300}));
  Attributes wanted;
  wanted.add(2, std::uint64_t{455'526'400})
      .add(3, std::uint64_t{512})
      .add(5, std::uint64_t{0x0103})
      .add(4, std::uint64_t{90})
      .add(8, std::uint64_t{300})
      .text(10, "/run/x")
      .add(7, list);
  CHECK(command == 1);
  CHECK(hex(without_nested_flag(attributes)) == hex(wanted.bytes()));
}

TEST_CASE("RECONFIGURE says only what changes", "[nbd][netlink]") {
  auto const message = nbd::detail::reconfigure_message(
      27, 3, {.backend = "b", .client_flags = NBD_CFLAG_DISCONNECT_ON_CLOSE});

  REQUIRE(message.has_value());
  auto const [command, attributes] = taken_apart(message->get());
  Attributes wanted;
  wanted.add(1, std::uint32_t{3}).text(10, "b").add(6, std::uint64_t{2});
  CHECK(command == 3);
  CHECK(hex(attributes) == hex(wanted.bytes()));
}

/// A reply of the kernel's with these attributes.
nbd::detail::Response take(Attributes const& attributes) {
  nbd::detail::Message const message(::nlmsg_alloc());
  auto* const data = ::genlmsg_put(message.get(), 0, 0, 27, 0, 0, 1, 1);
  REQUIRE(data != nullptr);
  auto const& bytes = attributes.bytes();
  if (!bytes.empty()) {
    auto* const room = ::nlmsg_reserve(message.get(), bytes.size(), 4);
    std::memcpy(room, bytes.data(), bytes.size());
  }
  nbd::detail::Response response;
  nbd::detail::take_reply(::nlmsg_hdr(message.get()), response);
  return response;
}

TEST_CASE("The device's number is read from the reply", "[nbd][netlink]") {
  CHECK(take(Attributes().add(1, std::uint32_t{17})).index == 17);
  CHECK_FALSE(take({}).index.has_value());
  CHECK_FALSE(take(Attributes().add(1, std::uint8_t{17})).index.has_value());
}

TEST_CASE("A status lists each device", "[nbd][netlink]") {
  Attributes list;
  list.add(1, Attributes().add(1, std::uint32_t{0}).add(2, std::uint8_t{1}));
  list.add(1, Attributes().add(1, std::uint32_t{7}).add(2, std::uint8_t{0}));
  list.add(1, Attributes().add(1, std::uint32_t{9}));  // not whole: left out

  CHECK(take(Attributes().add(9, list)).devices ==
        std::vector<NbdDeviceStatus>{{0, true}, {7, false}});
}

TEST_CASE("libnl's codes are not taken for errno", "[nbd][netlink][error]") {
  CHECK(nbd::detail::fail_libnl(-NLE_NOMEM, "x").value().code == std::errc::not_enough_memory);
  CHECK(nbd::detail::fail_libnl(-NLE_PERM, "x").value().code == std::errc::operation_not_permitted);
  CHECK(nbd::detail::fail_libnl(-NLE_MSG_TRUNC, "x").value().code == std::errc::io_error);
}

TEST_CASE("Without the module the error says what to load", "[nbd][netlink][error]") {
  auto netlink = NbdNetlink::open();
  if (netlink) {  // a machine with nbd: it answers
    CHECK(netlink->status().has_value());
    return;
  }

  CHECK(netlink.error().code == Errc::unsupported);
  CHECK(netlink.error().message().find("modprobe nbd") != std::string::npos);
}

}  // namespace netlink_test
}  // namespace erofs_oci
