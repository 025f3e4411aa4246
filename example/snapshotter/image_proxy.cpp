// SPDX-License-Identifier: Apache-2.0
#include "image_proxy.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <grpcpp/support/proto_buffer_reader.h>
#include <oci_snapshotter.pb.h>

#include <erofs_oci/oci/credentials.hpp>

namespace oci_snapshotter {

using grpc::ByteBuffer;
using grpc::Status;
using grpc::StatusCode;

namespace {

/// A message of a call that is handed on; empty fields if it is none.
template <class Message>
Message read_message(ByteBuffer const& bytes) {
  Message out;
  ByteBuffer shared(bytes);  // the reader wants one that it could change
  grpc::ProtoBufferReader reader(&shared);
  if (!out.ParseFromZeroCopyStream(&reader)) out.Clear();
  return out;
}

/// What a pull's AuthConfig says, as containerd understands it.
std::optional<Login> login_of(wire::AuthConfig const& auth) {
  if (!auth.username().empty()) return Login{auth.username(), auth.password()};
  if (!auth.identity_token().empty()) return Login{"<token>", auth.identity_token()};
  auto packed = erofs_oci::packed_login(auth.auth());
  if (!packed) return std::nullopt;
  return Login{std::move(packed->username), std::move(packed->password)};
}

/// What a call has to do with logins.
class LoginWatch {
 public:
  LoginWatch(std::string_view method, PullLogins& logins) : logins_(logins) {
    is_pull_ = method.ends_with(".ImageService/PullImage");
    is_removal_ = method.ends_with(".ImageService/RemoveImage");
  }

  void see_request(ByteBuffer const& bytes) {
    if (is_removal_) removed_ = read_message<wire::RemoveImageRequest>(bytes).image().image();
    if (!is_pull_ || pull_ != 0) return;
    auto const request = read_message<wire::PullImageRequest>(bytes);
    // Before containerd pulls: while it does, it asks this program for snapshots.
    if (auto login = login_of(request.auth())) {
      pull_ = logins_.begin(request.image().image(), *std::move(login));
    }
  }

  void see_response(ByteBuffer const& bytes) {
    if (pull_ != 0) id_ = read_message<wire::PullImageResponse>(bytes).image_ref();
  }

  void see_end(bool is_good) {
    if (pull_ != 0 && is_good) logins_.keep(pull_, id_);
    if (pull_ != 0 && !is_good) logins_.drop(pull_);
    if (is_removal_ && is_good) logins_.forget(removed_);
  }

 private:
  PullLogins& logins_;
  bool is_pull_ = false;
  bool is_removal_ = false;
  std::uint64_t pull_ = 0;
  std::string id_;
  std::string removed_;
};

/// Whether a piece of metadata is the call's own and not that of one of its two connections.
bool is_passed_on(std::string_view name) {
  return !name.starts_with("grpc-") && !name.starts_with(':') && name != "user-agent" &&
         name != "content-type" && name != "te";
}

/// One call: what comes from the client goes to containerd, and back. Each direction has one
/// message at a time. Ends itself.
class Relay final : public grpc::ServerGenericBidiReactor {
 public:
  Relay(grpc::GenericCallbackServerContext& context, grpc::GenericStub& stub, PullLogins& logins)
      : server_context_(context), watch_(context.method(), logins), upstream_(*this) {
    for (auto const& [name, value] : context.client_metadata()) {
      std::string const text(name.data(), name.size());
      if (is_passed_on(text)) context_.AddMetadata(text, std::string(value.data(), value.size()));
    }
    context_.set_deadline(context.deadline());
    stub.PrepareBidiStreamingCall(&context_, context.method(), {}, &upstream_);
    // Both directions start calls of `upstream_` from where gRPC does not expect them.
    upstream_.AddMultipleHolds(2);
    upstream_.StartCall();
    upstream_.StartRead(&response_);
    StartRead(&request_);
  }

  void OnReadDone(bool is_there) override {
    if (is_there) {
      watch_.see_request(request_);
      upstream_.StartWrite(&request_);
      return;
    }
    upstream_.StartWritesDone();
    upstream_.RemoveHold();
  }

  void OnWriteDone(bool is_done) override {
    if (is_done) return upstream_.StartRead(&response_);
    context_.TryCancel();
    upstream_.RemoveHold();
  }

  void OnCancel() override { context_.TryCancel(); }
  void OnDone() override { delete this; }

 private:
  /// The other end.
  class Upstream final : public grpc::ClientBidiReactor<ByteBuffer, ByteBuffer> {
   public:
    explicit Upstream(Relay& relay) : relay_(relay) {}

    void OnWriteDone(bool is_done) override {
      if (is_done) return relay_.StartRead(&relay_.request_);
      RemoveHold();
    }

    void OnReadDone(bool is_there) override {
      if (!is_there) return RemoveHold();
      relay_.watch_.see_response(relay_.response_);
      relay_.StartWrite(&relay_.response_);
    }

    void OnDone(Status const& status) override { relay_.end(status); }

   private:
    Relay& relay_;
  };

  void end(Status const& status) {
    watch_.see_end(status.ok());
    for (auto const& [name, value] : context_.GetServerTrailingMetadata()) {
      std::string const text(name.data(), name.size());
      if (is_passed_on(text)) {
        server_context_.AddTrailingMetadata(text, std::string(value.data(), value.size()));
      }
    }
    Finish(status);
  }

  grpc::GenericCallbackServerContext& server_context_;
  grpc::ClientContext context_;
  LoginWatch watch_;
  ByteBuffer request_;
  ByteBuffer response_;
  Upstream upstream_;
};

/// The answer to a method of nobody's.
class Unknown final : public grpc::ServerGenericBidiReactor {
 public:
  explicit Unknown(std::string const& method) {
    Finish(Status(StatusCode::UNIMPLEMENTED, "unknown method " + method));
  }
  void OnDone() override { delete this; }
};

std::shared_ptr<grpc::Channel> channel_to(std::string const& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
  // As containerd's own clients: kubelet asks again soon.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 3000);
  return grpc::CreateCustomChannel("unix:" + address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

}  // namespace

ImageProxy::ImageProxy(std::string const& address, PullLogins& logins)
    : stub_(channel_to(address)), logins_(logins) {}

grpc::ServerGenericBidiReactor* ImageProxy::CreateReactor(
    grpc::GenericCallbackServerContext* context) {
  if (!context->method().starts_with("/runtime.")) return new Unknown(context->method());
  return new Relay(*context, stub_, logins_);
}

}  // namespace oci_snapshotter
