// SPDX-License-Identifier: Apache-2.0
/// @file
/// NbdNetlink: the kernel's nbd client, controlled over generic netlink. Includes libnl.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/result.hpp>
#include <erofs_oci/nbd/connect.hpp>
#include <erofs_oci/nbd/device.hpp>

namespace erofs_oci {

/// A device as the STATUS reply lists it.
struct NbdDeviceStatus {
  std::uint32_t index = 0;
  bool connected = false;  ///< also while its server is gone and may come back

  bool operator==(NbdDeviceStatus const&) const = default;
};

/// What to change of a device that is connected.
struct NbdReconfigure {
  std::string backend{};       ///< must equal what CONNECT named, if it named anything
  std::vector<int> sockets{};  ///< each replaces one whose peer is gone; borrowed
  /// NBD_CFLAG_DISCONNECT_ON_CLOSE, NBD_CFLAG_DESTROY_ON_DISCONNECT. @spec{linux/nbd.h}
  std::optional<std::uint64_t> client_flags{};
  std::optional<std::chrono::seconds> dead_connection_timeout{};
};

namespace nbd::detail {

struct FreeMessage {
  void operator()(nl_msg* message) const noexcept { ::nlmsg_free(message); }
};
using Message = std::unique_ptr<nl_msg, FreeMessage>;

/// Builds one request; remembers whether anything did not fit.
class MessageBuilder {
 public:
  MessageBuilder(int family, std::uint8_t command) : message_(::nlmsg_alloc()) {
    ok_ = message_ != nullptr && ::genlmsg_put(message_.get(), NL_AUTO_PORT, NL_AUTO_SEQ, family, 0,
                                               0, command, 1) != nullptr;
  }

  MessageBuilder& u32(int attribute, std::uint32_t value) {
    ok_ = ok_ && ::nla_put_u32(message_.get(), attribute, value) == 0;
    return *this;
  }

  MessageBuilder& u64(int attribute, std::uint64_t value) {
    ok_ = ok_ && ::nla_put_u64(message_.get(), attribute, value) == 0;
    return *this;
  }

  MessageBuilder& seconds(int attribute, std::chrono::seconds value) {
    return u64(attribute, static_cast<std::uint64_t>(value.count()));
  }

  /// Nothing for an empty text.
  MessageBuilder& text(int attribute, std::string const& value) {
    ok_ = ok_ && (value.empty() || ::nla_put_string(message_.get(), attribute, value.c_str()) == 0);
    return *this;
  }

  /// Nothing for no sockets.
  MessageBuilder& sockets(std::span<int const> fds) {
    if (fds.empty()) return *this;
    auto* const list = nest(NBD_ATTR_SOCKETS);
    for (auto const fd : fds) {
      auto* const item = nest(NBD_SOCK_ITEM);
      u32(NBD_SOCK_FD, static_cast<std::uint32_t>(fd));
      if (ok_) ::nla_nest_end(message_.get(), item);
    }
    if (ok_) ::nla_nest_end(message_.get(), list);
    return *this;
  }

  /// @error{std::errc::not_enough_memory, an attribute did not fit}
  [[nodiscard]] Result<Message> finish() {
    if (!ok_) return fail(make_error_code(std::errc::not_enough_memory), "netlink message");
    return std::move(message_);
  }

 private:
  nlattr* nest(int attribute) {
    auto* const start = ok_ ? ::nla_nest_start(message_.get(), attribute) : nullptr;
    ok_ = start != nullptr;
    return start;
  }

  Message message_;
  bool ok_;
};

/// CONNECT: any free device unless `index` names one.
[[nodiscard]] inline Result<Message> connect_message(int family, Export const& served,
                                                     NbdDeviceOptions const& options,
                                                     std::span<int const> sockets,
                                                     std::optional<std::uint32_t> index) {
  MessageBuilder builder(family, NBD_CMD_CONNECT);
  if (index) builder.u32(NBD_ATTR_INDEX, *index);
  return builder.u64(NBD_ATTR_SIZE_BYTES, served.size)
      .u64(NBD_ATTR_BLOCK_SIZE_BYTES, options.block_size)
      .u64(NBD_ATTR_SERVER_FLAGS, served.flags)
      .seconds(NBD_ATTR_TIMEOUT, options.request_timeout)
      .seconds(NBD_ATTR_DEAD_CONN_TIMEOUT, options.dead_connection_timeout)
      .text(NBD_ATTR_BACKEND_IDENTIFIER, options.backend)
      .sockets(sockets)
      .finish();
}

/// RECONFIGURE.
[[nodiscard]] inline Result<Message> reconfigure_message(int family, std::uint32_t index,
                                                         NbdReconfigure const& change) {
  MessageBuilder builder(family, NBD_CMD_RECONFIGURE);
  builder.u32(NBD_ATTR_INDEX, index).text(NBD_ATTR_BACKEND_IDENTIFIER, change.backend);
  if (change.client_flags) builder.u64(NBD_ATTR_CLIENT_FLAGS, *change.client_flags);
  if (change.dead_connection_timeout) {
    builder.seconds(NBD_ATTR_DEAD_CONN_TIMEOUT, *change.dead_connection_timeout);
  }
  return builder.sockets(change.sockets).finish();
}

/// What came back for one request.
struct Response {
  bool finished = false;
  int error = 0;  // an errno: libnl's own codes would not tell one cause from another
  std::optional<std::uint32_t> index{};
  std::vector<NbdDeviceStatus> devices{};
};

/// Adds what a reply holds.
inline void take_reply(nlmsghdr* header, Response& response) {
  auto* const generic = static_cast<genlmsghdr*>(::nlmsg_data(header));
  auto* const first = ::genlmsg_attrdata(generic, 0);
  auto const length = ::genlmsg_attrlen(generic, 0);
  if (auto* const index = ::nla_find(first, length, NBD_ATTR_INDEX);
      index != nullptr && ::nla_len(index) >= 4) {
    response.index = ::nla_get_u32(index);
  }
  auto* const list = ::nla_find(first, length, NBD_ATTR_DEVICE_LIST);
  if (list == nullptr) return;
  auto rest = ::nla_len(list);
  for (auto* item = static_cast<nlattr*>(::nla_data(list)); ::nla_ok(item, rest) != 0;
       item = ::nla_next(item, &rest)) {
    auto* const inside = static_cast<nlattr*>(::nla_data(item));
    auto* const index = ::nla_find(inside, ::nla_len(item), NBD_DEVICE_INDEX);
    auto* const connected = ::nla_find(inside, ::nla_len(item), NBD_DEVICE_CONNECTED);
    if (index == nullptr || connected == nullptr) continue;
    if (::nla_len(index) < 4 || ::nla_len(connected) < 1) continue;
    response.devices.push_back({::nla_get_u32(index), ::nla_get_u8(connected) != 0});
  }
}

/// An error code of libnl, where there is no message of the kernel.
[[nodiscard]] inline tl::unexpected<Error> fail_libnl(int code, std::string context) {
  switch (code < 0 ? -code : code) {
    case NLE_NOMEM: return fail_errno(ENOMEM, std::move(context));
    case NLE_PERM: return fail_errno(EPERM, std::move(context));
    case NLE_NOACCESS: return fail_errno(EACCES, std::move(context));
    case NLE_AF_NOSUPPORT:
    case NLE_PROTO_MISMATCH: return fail_errno(EPROTONOSUPPORT, std::move(context));
    default: return fail_errno(EIO, std::move(context) + ": " + ::nl_geterror(code));
  }
}

}  // namespace nbd::detail

/// One control connection to the kernel's nbd driver. Needs CAP_SYS_ADMIN in the initial user
/// namespace for all but status().
///
/// @par Thread safety
/// One thread at a time; any number of objects.
class NbdNetlink {
 public:
  /// @error{Errc::unsupported, the kernel has no nbd: its module is not loaded}
  [[nodiscard]] static Result<NbdNetlink> open() {
    Socket socket(::nl_socket_alloc(), &::nl_socket_free);
    if (!socket) return fail_errno(ENOMEM, "netlink socket");
    if (auto const code = ::genl_connect(socket.get()); code < 0) {
      return nbd::detail::fail_libnl(code, "generic netlink");
    }
    auto const family = ::genl_ctrl_resolve(socket.get(), NBD_GENL_FAMILY_NAME);
    if (family == -NLE_OBJ_NOTFOUND) {
      return fail(Errc::unsupported,
                  "the kernel has no nbd (load it: modprobe nbd; containers may not see it)");
    }
    if (family < 0) return nbd::detail::fail_libnl(family, "netlink family nbd");
    return NbdNetlink(std::move(socket), family);
  }

  /// Sets a device up and yields its number. The kernel keeps `sockets` by itself.
  /// @param index  the device to take; empty: any free one, or a new one
  /// @error{an errno, as the kernel answers: EPERM\, EBUSY (the named device is in use)\, EINVAL}
  [[nodiscard]] Result<std::uint32_t> connect(Export const& served, NbdDeviceOptions const& options,
                                              std::span<int const> sockets,
                                              std::optional<std::uint32_t> index = {}) {
    EROFS_OCI_TRY_ASSIGN(auto const response,
                         ask(nbd::detail::connect_message(family_, served, options, sockets, index),
                             "connect an nbd device"));
    if (!response.index) return fail(Errc::protocol, "the kernel did not name the nbd device");
    return *response.index;
  }

  /// Changes a device that is set up.
  /// @error{an errno, as the kernel answers: EPERM\, EINVAL (no such device\, not connected\,
  ///        another backend)}
  [[nodiscard]] Result<void> reconfigure(std::uint32_t index, NbdReconfigure const& change) {
    auto const response = ask(nbd::detail::reconfigure_message(family_, index, change),
                              "reconfigure " + nbd_device_path(index));
    if (response) return {};
    if (response.error().code != std::errc::invalid_argument) return fail(response.error());
    return fail(response.error().code, response.error().context +
                                           " (it is not connected, or for another backend than '" +
                                           change.backend + "')");
  }

  /// Disconnects a device; also succeeds if it was not connected. Requests in flight fail.
  /// @error{an errno, as the kernel answers}
  [[nodiscard]] Result<void> disconnect(std::uint32_t index) {
    EROFS_OCI_TRY(ask(nbd::detail::MessageBuilder(family_, NBD_CMD_DISCONNECT)
                          .u32(NBD_ATTR_INDEX, index)
                          .finish(),
                      "disconnect " + nbd_device_path(index)));
    return {};
  }

  /// All devices.
  /// @error{an errno, as the kernel answers}
  [[nodiscard]] Result<std::vector<NbdDeviceStatus>> status() {
    EROFS_OCI_TRY_ASSIGN(auto response,
                         ask(nbd::detail::MessageBuilder(family_, NBD_CMD_STATUS).finish(),
                             "status of nbd devices"));
    return std::move(response.devices);
  }

 private:
  using Response = nbd::detail::Response;

  using Socket = std::unique_ptr<nl_sock, decltype(&::nl_socket_free)>;

  NbdNetlink(Socket socket, int family) noexcept : socket_(std::move(socket)), family_(family) {}

  /// Sends a request and receives all replies up to the kernel's acknowledgement.
  Result<Response> ask(Result<nbd::detail::Message> message, std::string const& what) {
    if (!message) return fail(std::move(message).error(), what);
    std::unique_ptr<nl_cb, decltype(&::nl_cb_put)> const callbacks(::nl_cb_alloc(NL_CB_DEFAULT),
                                                                   &::nl_cb_put);
    if (!callbacks) return fail_errno(ENOMEM, what);
    Response response;
    ::nl_cb_set(callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM, on_reply, &response);
    ::nl_cb_set(callbacks.get(), NL_CB_ACK, NL_CB_CUSTOM, on_ack, &response);
    ::nl_cb_err(callbacks.get(), NL_CB_CUSTOM, on_error, &response);

    if (auto const code = ::nl_send_auto(socket_.get(), message->get()); code < 0) {
      return nbd::detail::fail_libnl(code, what);
    }
    while (!response.finished) {
      auto const code = ::nl_recvmsgs(socket_.get(), callbacks.get());
      if (code < 0 && !response.finished) return nbd::detail::fail_libnl(code, what);
    }
    if (response.error == EPERM) {
      return fail_errno(EPERM, what + " (this needs CAP_SYS_ADMIN in the initial user namespace)");
    }
    if (response.error != 0) return fail_errno(response.error, what);
    return response;
  }

  static int on_reply(nl_msg* message, void* response) noexcept {
    nbd::detail::take_reply(::nlmsg_hdr(message), *static_cast<Response*>(response));
    return NL_OK;
  }

  static int on_ack(nl_msg*, void* response) noexcept {
    static_cast<Response*>(response)->finished = true;
    return NL_STOP;
  }

  static int on_error(sockaddr_nl*, nlmsgerr* error, void* response) noexcept {
    static_cast<Response*>(response)->error = error->error < 0 ? -error->error : EIO;
    return on_ack(nullptr, response);
  }

  Socket socket_;
  int family_;
};

}  // namespace erofs_oci
