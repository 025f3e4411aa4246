// SPDX-License-Identifier: Apache-2.0
// Other people's NBD clients against our server: what they see and what they read.
#include <erofs_oci/nbd/server.hpp>
#include <erofs_oci/nbd/socket_listen.hpp>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <mutex>
#include <string>
#include <vector>

#include <catch.hpp>
#include <scratch.hpp>
#include <sys/wait.h>

#include <erofs_oci/source/memory.hpp>
#include <erofs_oci/testing/flaky.hpp>
#include <erofs_oci/testing/generators.hpp>

namespace erofs_oci {
namespace clients_test {

constexpr std::size_t size = 20'000'003;  // no multiple of anything
constexpr std::uint64_t fill = 700;       // the last bytes are declared zeros

Bytes const& content() {
  static Bytes const bytes = [] {
    auto made = testing::patterned_bytes(size, 3);
    std::fill(made.end() - fill, made.end(), std::byte{0});
    return made;
  }();
  return bytes;
}

/// A server on a thread of its own.
template <class Source>
class Running {
 public:
  Running(Source source, SocketListen listen, NbdServerOptions options)
      : server_(std::move(source), std::move(listen), std::move(options)) {
    done_ = std::async(std::launch::async, [this] { return server_.run(stop_.get_token()); });
  }
  ~Running() {
    stop_.request_stop();
    done_.wait();
  }
  Running(Running const&) = delete;
  Running& operator=(Running const&) = delete;

  [[nodiscard]] std::string uri() { return server_.connect().uri(server_.served().name); }

 private:
  std::stop_source stop_;
  NbdServer<Source, SocketListen> server_;
  std::future<Result<void>> done_;
};

struct Outcome {
  int status;
  std::string output;
};

/// Runs a shell command, for at most a minute.
Outcome run(std::string const& command) {
  INFO(command);
  auto* const pipe = ::popen(("timeout 60 sh -c '" + command + "' 2>&1 </dev/null").c_str(), "re");
  REQUIRE(pipe != nullptr);
  std::string output;
  std::array<char, 4096> buffer;
  while (auto const n = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.append(buffer.data(), n);
  }
  auto const status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

bool has(std::string const& program) {
  if (run("command -v " + program).status == 0) return true;
  WARN("skipped: there is no " << program);
  return false;
}

Bytes file(std::filesystem::path const& path) {
  std::ifstream in(path, std::ios::binary);
  return to_bytes(std::string(std::istreambuf_iterator<char>(in), {}));
}

NbdServerOptions named(std::string name) {
  NbdServerOptions options;
  options.name = std::move(name);
  options.description = "a test";
  options.zeros_from = size - fill;
  return options;
}

/// The same export on a unix socket or on TCP.
Running<Memory> serve(test::Scratch const& folder, std::string const& where,
                      std::string name = {}) {
  auto listen = where == "unix" ? SocketListen::open_unix(folder / "nbd.sock")
                                : SocketListen::open_tcp(where);
  REQUIRE(listen.has_value());
  return Running<Memory>(Memory(content()), *std::move(listen), named(std::move(name)));
}

TEST_CASE("nbdinfo sees the export as it is", "[nbd][integration]") {
  if (!has("nbdinfo")) return;
  test::Scratch const folder;
  auto const where = GENERATE("unix", "127.0.0.1:0");
  auto server = serve(folder, where, "layers");

  auto const json = run("nbdinfo --json \"" + server.uri() + "\"");
  INFO(json.output);
  CHECK(json.status == 0);
  for (auto const* part :
       {"\"export-name\": \"layers\"", "\"description\": \"a test\"", "\"export-size\": 20000003",
        "\"is_read_only\": true", "\"can_multi_conn\": true", "\"can_cache\": false",
        "\"can_df\": true", "\"can_trim\": false", "\"base:allocation\"",
        "\"protocol\": \"newstyle-fixed\"", "\"structured\": true", "\"block_size_minimum\": 1",
        "\"block_size_preferred\": 4096", "\"block_size_maximum\": 33554432"}) {
    INFO(part);
    CHECK(json.output.find(part) != std::string::npos);
  }

  auto const map = run("nbdinfo --map \"" + server.uri() + "\"");
  INFO(map.output);
  CHECK(map.status == 0);
  CHECK(map.output.find("19999303") != std::string::npos);
  CHECK(map.output.find("hole,zero") != std::string::npos);
}

TEST_CASE("nbdinfo lists the export", "[nbd][integration]") {
  if (!has("nbdinfo")) return;
  test::Scratch const folder;
  auto server = serve(folder, "127.0.0.1:0", "layers");
  auto const root = server.uri().substr(0, server.uri().rfind('/'));

  auto const list = run("nbdinfo --list " + root);
  INFO(list.output);
  CHECK(list.status == 0);
  CHECK(list.output.find("export=\"layers\"") != std::string::npos);
  CHECK(run("nbdinfo --size " + root).output == "20000003\n");
  CHECK(run("nbdinfo --size " + root + "/other").status != 0);
}

TEST_CASE("nbdcopy reads every byte", "[nbd][integration]") {
  if (!has("nbdcopy")) return;
  test::Scratch const folder;
  auto const where = GENERATE("unix", "127.0.0.1:0");
  auto const connections = GENERATE("1", "4");
  auto server = serve(folder, where);
  auto const copy = folder / "copy";

  auto const result =
      run(std::string("nbdcopy -C ") + connections + " \"" + server.uri() + "\" " + copy);

  INFO(result.output);
  CHECK(result.status == 0);
  CHECK((file(copy) == content()));
}

TEST_CASE("nbdkit reads through its nbd plugin", "[nbd][integration]") {
  if (!has("nbdcopy") || !has("nbdkit")) return;
  test::Scratch const folder;
  auto server = serve(folder, "unix");
  auto const copy = folder / "copy";

  // nbdkit's nbd plugin talks to us; nbdcopy talks to nbdkit.
  auto const result =
      run("nbdkit -U - --run \"nbdcopy \\$uri " + copy + "\" nbd uri=\"" + server.uri() + "\"");

  INFO(result.output);
  CHECK(result.status == 0);
  CHECK((file(copy) == content()));
}

TEST_CASE("qemu-img converts the export", "[nbd][integration]") {
  if (!has("qemu-img")) return;
  test::Scratch const folder;
  auto const where = GENERATE("unix", "127.0.0.1:0");
  auto server = serve(folder, where, "disk");
  auto const copy = folder / "copy";

  auto const info = run("qemu-img info \"" + server.uri() + "\"");
  auto const result = run("qemu-img convert -f raw -O raw \"" + server.uri() + "\" " + copy);

  INFO(info.output << result.output);
  CHECK(info.status == 0);
  CHECK(result.status == 0);
  auto copied = file(copy);
  CHECK(copied.size() >= size);  // qemu rounds up to sectors
  CHECK(copied.size() - size < 512);
  copied.resize(size);
  CHECK((copied == content()));
}

TEST_CASE("A failing source is an error to a client, and is served again after",
          "[nbd][integration][error]") {
  if (!has("nbdcopy")) return;
  test::Scratch const folder;
  std::mutex mutex;
  std::vector<std::string> log;
  auto options = named({});
  options.on_read_error = [&](std::uint64_t, std::uint32_t, Error const& error) {
    std::lock_guard const lock(mutex);
    log.push_back(error.message());
  };
  testing::FlakyPlan plan;
  plan.first = 5;
  plan.error = {make_error_code(Errc::digest_mismatch), "span 9"};
  Running server(testing::Flaky(Memory(content()), plan),
                 *SocketListen::open_unix(folder / "nbd.sock"), std::move(options));
  auto const copy = folder / "copy";
  auto const command = "nbdcopy \"" + server.uri() + "\" " + copy;

  auto const first = run(command);
  auto const second = run(command);

  INFO(first.output << second.output);
  CHECK(first.status != 0);
  CHECK(second.status == 0);
  CHECK((file(copy) == content()));
  std::lock_guard const lock(mutex);
  CHECK(log == std::vector<std::string>{"span 9: digest mismatch"});
}

}  // namespace clients_test
}  // namespace erofs_oci
