// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/mount/mount_supervisor.hpp>  // first: proves that the header stands alone

#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <catch.hpp>

namespace erofs_oci {
namespace mount_supervisor_test {

/// What becomes of a mount whose worker sends these messages, and then nothing more.
Result<MountEnd> run(std::vector<std::string> const& messages) {
  MountHooks hooks;
  hooks.work = [&](WorkerSeat seat) {
    for (auto const& text : messages) {
      MountMessage message{MountMessage::Kind::connected, {}, {}, {}};
      if (text == "opened") {
        message = WorkerImage{.size = 4096, .zeros_from = 4096}.to_message().value();
      } else {
        FuseConnection connection;
        connection.device = UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
        connection.inflight = FuseInflight::make(1).value().share().value();
        message = to_message(MountMessage::Kind::connected, connection).value();
      }
      if (!seat.channel.send(message)) return 1;
    }
    ::pause();
    return 0;
  };
  hooks.announce = [](std::string const&) {};
  MountSupervisor supervisor({.way = MountWay::fuse_tree}, std::move(hooks));
  return supervisor.run();
}

TEST_CASE("A worker opens the image once, and serves a connection only then",
          "[mount][supervisor][error]") {
  using List = std::vector<std::string>;
  for (auto const& messages : {List{"opened", "opened"}, List{"connected"}}) {
    auto const end = run(messages);
    REQUIRE_FALSE(end.has_value());
    CHECK(end.error().code == Errc::protocol);
  }
}

}  // namespace mount_supervisor_test
}  // namespace erofs_oci
