// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/mount_channel.hpp>  // first: proves that the header stands alone

#include <array>
#include <csignal>
#include <cstring>
#include <optional>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <catch.hpp>

namespace erofs_oci {
namespace mount_channel_test {

using namespace std::chrono_literals;

MountMessage with_fds(std::size_t count) {
  MountMessage message{MountMessage::Kind::port, "text", {}, {}};
  for (std::size_t i = 0; i < count; ++i) {
    message.fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  return message;
}

TEST_CASE("A message and its descriptors arrive", "[mount][channel]") {
  auto const [a, b] = MountChannel::make().value();

  REQUIRE(a.send(with_fds(MountMessage::most_fds)).has_value());
  auto const message = b.receive_within(10s);

  REQUIRE(message.has_value());
  CHECK(message->kind == MountMessage::Kind::port);
  CHECK(message->text == "text");
  CHECK(message->fds.size() == MountMessage::most_fds);
}

TEST_CASE("More descriptors than fit are not sent", "[mount][channel][error]") {
  auto const [a, b] = MountChannel::make().value();

  auto const sent = a.send(with_fds(MountMessage::most_fds + 1));

  REQUIRE_FALSE(sent.has_value());
  CHECK(sent.error().code == std::errc::argument_list_too_long);
  CHECK(b.receive_within(0ms).error().code == Errc::timed_out);
}

TEST_CASE("A message that has lost descriptors is refused", "[mount][channel][error]") {
  auto const [a, b] = MountChannel::make().value();
  std::array<char, 3> text{'P', 'E', '0'};
  iovec bytes{text.data(), text.size()};
  std::array<int, 40> fds{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof fds)> control{};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  auto* const part = CMSG_FIRSTHDR(&header);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof fds);
  std::memcpy(CMSG_DATA(part), fds.data(), sizeof fds);
  REQUIRE(::sendmsg(a.fd(), &header, 0) == 3);

  CHECK(b.receive().error().code == Errc::protocol);
}

TEST_CASE("The descriptors of an empty packet are closed", "[mount][channel][error]") {
  auto const [a, b] = MountChannel::make().value();
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  UniqueFd const reader(ends[0]);
  UniqueFd writer(ends[1]);
  msghdr header{};
  detail::ControlBuffer control{};
  header.msg_control = &control;
  header.msg_controllen = CMSG_SPACE(sizeof(int));
  auto* const part = CMSG_FIRSTHDR(&header);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(part), &ends[1], sizeof(int));
  REQUIRE(::sendmsg(a.fd(), &header, 0) == 0);
  writer.reset();

  CHECK(b.receive().error().code == Errc::unavailable);

  pollfd hung_up{reader.get(), 0, 0};
  CHECK(::poll(&hung_up, 1, 0) == 1);  // nobody has the other end
}

TEST_CASE("A process that does not listen makes nobody wait", "[mount][channel][error]") {
  auto const [a, b] = MountChannel::make().value();
  Result<void> sent;
  for (int i = 0; i < 1'000'000 && sent; ++i)
    sent = a.send({MountMessage::Kind::counts, {}, {}, {}});
  REQUIRE_FALSE(sent.has_value());
  CHECK(sent.error().code == std::errc::resource_unavailable_try_again);
}

TEST_CASE("A process that has ended is told from one that is silent", "[mount][channel][error]") {
  auto links = MountChannel::make().value();
  CHECK(links.first.receive_within(0ms).error().code == Errc::timed_out);
  links.second.close();
  CHECK(links.first.receive_within(10s).error().code == Errc::unavailable);
  CHECK(links.first.send({MountMessage::Kind::taken, {}, {}, {}}).error().code ==
        std::errc::broken_pipe);
}

/// Interrupts system calls of this process again and again.
class Interruptions {
 public:
  Interruptions() {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, &before_);
    itimerval const often{{0, 1000}, {0, 1000}};
    ::setitimer(ITIMER_REAL, &often, nullptr);
  }
  Interruptions(Interruptions const&) = delete;
  Interruptions& operator=(Interruptions const&) = delete;
  ~Interruptions() {
    itimerval const never{};
    ::setitimer(ITIMER_REAL, &never, nullptr);
    ::sigaction(SIGALRM, &before_, nullptr);
  }

 private:
  struct sigaction before_{};
};

TEST_CASE("Signals do not make a wait endless", "[mount][channel]") {
  auto const [a, b] = MountChannel::make().value();
  Interruptions const interruptions;
  CHECK(b.receive_within(50ms).error().code == Errc::timed_out);
}

}  // namespace mount_channel_test
}  // namespace erofs_oci
