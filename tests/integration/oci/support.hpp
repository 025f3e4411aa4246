// SPDX-License-Identifier: Apache-2.0
/// @file
/// A docker-registry of a test's own, and a directory for it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch.hpp>
#include <scratch.hpp>

#include <erofs_oci/core/fd.hpp>

namespace erofs_oci {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

/// Runs a command line of ours, quietly.
inline bool run(std::string const& command) {
  return std::system(("{ " + command + "; } >/dev/null 2>&1").c_str()) == 0;
}

inline bool tools_there() {
  auto const there = run("command -v docker-registry && command -v skopeo");
  if (!there) WARN("skipped: docker-registry or skopeo is missing");
  return there;
}

inline std::string read_text(fs::path const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Makes the directory of the file, too, if there is none.
inline void write_text(fs::path const& path, std::string const& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

inline std::uint16_t free_port() {
  UniqueFd const socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  auto address = loopback(0);
  socklen_t length = sizeof address;
  REQUIRE(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  return ntohs(address.sin_port);
}

/// A docker-registry that lives as long as this object.
class DockerRegistry {
 public:
  DockerRegistry(test::Scratch const& directory, std::string const& auth = "",
                 std::string const& tls = "")
      : port_(free_port()) {
    auto const config =
        "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: " +
        directory / "registry" + "}}\n" + auth + "http:\n  addr: " + host() + "\n" + tls;
    auto const path = directory / "registry.yml";
    write_text(path, config);
    std::string program = "docker-registry";
    std::string serve = "serve";
    std::string argument = path;
    std::array<char*, 4> argv{program.data(), serve.data(), argument.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    for (int fd : {1, 2}) {
      posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0);
    }
    REQUIRE(::posix_spawnp(&pid_, program.c_str(), &actions, nullptr, argv.data(), environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    wait_until_there();
  }
  DockerRegistry(DockerRegistry const&) = delete;
  DockerRegistry& operator=(DockerRegistry const&) = delete;
  ~DockerRegistry() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  std::string host() const { return "127.0.0.1:" + std::to_string(port_); }
  std::uint16_t port() const { return port_; }

 private:
  void wait_until_there() const {
    for (auto const end = Steady::now() + 10s; Steady::now() < end;
         std::this_thread::sleep_for(20ms)) {
      UniqueFd const socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      auto address = loopback(port_);
      if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0)
        return;
    }
    FAIL("docker-registry does not start");
  }

  std::uint16_t port_;
  pid_t pid_ = 0;
};

}  // namespace erofs_oci
