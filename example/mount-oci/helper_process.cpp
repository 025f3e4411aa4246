// SPDX-License-Identifier: Apache-2.0
#include "helper_process.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/posix/descriptor.hpp>
#include <erofs_oci/posix/memory_file.hpp>

#include "merkle_tree.hpp"

namespace mount_oci {
namespace {

using erofs_oci::Credentials;
using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::MountChannel;
using erofs_oci::MountMessage;
using Kind = MountMessage::Kind;

MountMessage refusal(Error error) {
  return {Kind::failed, {}, std::move(error), {}};
}

// ---------------------------------------------------------------- credentials

constexpr std::string Credentials::* fields[] = {&Credentials::username, &Credentials::password,
                                                 &Credentials::identity_token,
                                                 &Credentials::registry_token, &Credentials::place};

/// Each field as `LENGTH BYTES`.
std::string encode(Credentials const& credentials) {
  std::string text;
  for (auto const field : fields) {
    text += std::to_string((credentials.*field).size()) + " " + credentials.*field;
  }
  return text;
}

Result<Credentials> decode(std::string_view text) {
  Credentials credentials;
  for (auto const field : fields) {
    auto const size = erofs_oci::take_number<std::size_t>(text);
    if (!size || !erofs_oci::take_char(text, ' ') || *size > text.size()) {
      return fail(Errc::protocol, "credentials");
    }
    credentials.*field = text.substr(0, *size);
    text.remove_prefix(*size);
  }
  return credentials;
}

/// In a file without a name, since they may be longer than a message.
Result<MountMessage> to_message(std::optional<Credentials> const& credentials) {
  MountMessage message{Kind::settled, {}, {}, {}};
  if (!credentials) return message;
  EROFS_OCI_TRY_ASSIGN(auto file,
                       erofs_oci::to_memory_file(erofs_oci::as_bytes(encode(*credentials))));
  message.fds.push_back(std::move(file));
  return message;
}

}  // namespace

Result<HelperProcess> HelperProcess::start(std::function<Message(Message const&)> const& answer,
                                           std::function<void()> const& at_end) {
  EROFS_OCI_TRY_ASSIGN(auto ends, MountChannel::make());
  auto const child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child != 0) {
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    if (status != 0) return fail_errno(EAGAIN, "fork");
    return HelperProcess(std::move(ends.first));
  }
  // A grandchild, for somebody else to reap: it may end at any time.
  if (auto const again = ::fork(); again != 0) std::_Exit(again < 0 ? 1 : 0);
  erofs_oci::close_all_but({ends.second.fd()});
  // Who waits for the end of the caller's streams shall not wait for this process.
  UniqueFd const null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (auto const stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (null) ::dup2(null.get(), stream);
  }
  // A terminal's ^C is for the other process, which may ask for something at its end.
  for (auto const number : {SIGINT, SIGTERM}) std::signal(number, SIG_IGN);
  try {
    while (auto const question = ends.second.receive()) ends.second.tell(answer(*question));
    if (at_end) at_end();
  } catch (std::exception const&) {
    // Allocating failed: the other process sees the end.
  }
  std::_Exit(0);
}

Result<MountMessage> HelperProcess::ask(Message const& question,
                                        std::stop_token const& stop) const {
  constexpr auto patience = std::chrono::seconds(40);
  std::lock_guard const lock(state_->mutex);
  auto& channel = state_->channel;
  auto answer = [&]() -> Result<MountMessage> {
    std::stop_callback const end(stop, [&] { ::shutdown(channel.fd(), SHUT_RDWR); });
    EROFS_OCI_TRY(channel.send(question));
    return channel.receive_within(patience);
  }();
  // A late answer would be taken for that of the next question.
  if (!answer) channel.close();
  if (!answer && stop.stop_requested()) return fail(Errc::stopping, "the helper process");
  if (answer && answer->kind == Kind::failed) return fail(std::move(answer->error));
  return answer;
}

Result<erofs_oci::CredentialLookup> look_up_by_helper(erofs_oci::CredentialLookup lookup,
                                                      std::vector<std::string> registries,
                                                      std::string repository,
                                                      std::stop_token stop) {
  auto const answer = [&](MountMessage const& question) {
    auto const known = std::ranges::find(registries, question.text) != registries.end();
    if (!known) {
      return refusal({make_error_code(Errc::unauthorized), question.text + ": not asked for", {}});
    }
    auto message = lookup(question.text, repository).and_then(to_message);
    return message ? *std::move(message) : refusal(std::move(message).error());
  };
  EROFS_OCI_TRY_ASSIGN(auto helper, HelperProcess::start(answer));
  return erofs_oci::CredentialLookup([helper = std::move(helper), stop = std::move(stop)](
                                         std::string const& registry,
                                         std::string const&) -> Result<std::optional<Credentials>> {
    EROFS_OCI_TRY_ASSIGN(auto const message, helper.ask({Kind::device, registry, {}, {}}, stop));
    if (message.fds.empty()) return std::optional<Credentials>();
    EROFS_OCI_TRY_ASSIGN(auto const bytes, erofs_oci::from_memory_file(message.fds[0]));
    return decode(erofs_oci::as_text(bytes)).map([](Credentials found) {
      return std::optional(std::move(found));
    });
  });
}

Result<erofs_oci::FuseMounter> mount_by_helper(erofs_oci::FuseServing const& serving,
                                               ImageOptions const& image) {
  using Table = std::optional<erofs_oci::VerityTable>;
  std::optional<erofs_oci::FuseMounter> mounter;  // in the helper, while it lives
  auto const answer = [&](MountMessage const& question) -> MountMessage {
    if (question.kind == Kind::port && !mounter) {
      mounter = erofs_oci::fuse_mounter(serving);
      auto connection = mounter->connect();
      if (!connection) return refusal(std::move(connection).error());
      MountMessage message{Kind::connected, {}, {}, {}};
      message.fds.push_back(std::move(connection->device));
      return message;
    }
    auto text = std::string_view(question.text);
    auto const metadata = erofs_oci::take_number<std::uint64_t>(text);
    auto const table = text.starts_with(' ') ? parse_table(text.substr(1))
                                             : Result<Table>(fail(Errc::protocol, ""));
    if (question.kind != Kind::mounted || !mounter || !metadata || !table) {
      return refusal({make_error_code(Errc::protocol), "the process that mounts", {}});
    }
    if (auto const right = check_verity(*table, image); !right) return refusal(right.error());
    auto attached = mounter->attach(*metadata, *table);
    if (!attached) return refusal(std::move(attached).error());
    return {Kind::settled, *std::move(attached), {}, {}};
  };
  EROFS_OCI_TRY_ASSIGN(auto const helper, HelperProcess::start(answer, [&] { mounter.reset(); }));
  erofs_oci::FuseMounter asked;
  asked.connect = [helper]() -> Result<erofs_oci::FuseConnection> {
    EROFS_OCI_TRY_ASSIGN(auto message, helper.ask({Kind::port, {}, {}, {}}));
    if (message.fds.size() != 1) return fail(Errc::protocol, "the process that mounts");
    return erofs_oci::FuseConnection{std::move(message.fds[0])};
  };
  asked.attach = [helper](std::uint64_t metadata, Table const& table) -> Result<std::string> {
    auto const question = std::to_string(metadata) + ' ' + table_text(table);
    EROFS_OCI_TRY_ASSIGN(auto message, helper.ask({Kind::mounted, question, {}, {}}));
    return std::move(message.text);
  };
  return asked;
}

}  // namespace mount_oci
