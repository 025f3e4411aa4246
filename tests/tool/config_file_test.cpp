// SPDX-License-Identifier: Apache-2.0
#include "config_file.hpp"  // first: proves that the header stands alone

#include <fstream>
#include <string>
#include <vector>

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch.hpp>

#include <erofs_oci/posix/temporary_directory.hpp>

namespace mount_oci {
namespace config_file_test {

using Arguments = std::vector<std::string>;

/// `mount-oci WORDS... IMAGE /m` with a configuration file.
tl::expected<Options, UsageError> with(std::string const& text, Arguments words = {},
                                       std::string const& image = "r.x:5000/a") {
  words.insert(words.begin(), "mount-oci");
  words.insert(words.end(), {image, "/m"});
  return parse_options(words, [&](std::string const&) { return parse_config(text, "conf"); });
}

std::string error_of(std::string const& text, Arguments words = {}) {
  auto const options = with(text, std::move(words));
  return options ? "no error" : options.error().text;
}

constexpr auto example = R"(
oci.timeout = 10
oci.username = "all"
oci.password_file = "/all"
nodev = true
suid = true
oci.cache = "64M"
oci.mirror = ["one", "two;resolve"]
[registry."R.x:5000"]
oci.username = "me"
oci.password = "s3cret"
oci.mirror = "three"
noexec = true
[registry."docker.io".oci]
insecure = false
retry = "off"
)";

TEST_CASE("A configuration file says what -o can say", "[tool][config]") {
  auto const options = with(example, {}, "other.x/a");

  REQUIRE(options.has_value());
  auto const& image = options->image;
  CHECK(image.timeout == std::chrono::seconds(10));
  CHECK(image.cache == 64u << 20);
  CHECK(image.mirrors == Arguments{"one", "two;resolve"});
  CHECK(image.username == "all");
  CHECK(image.password_file == "/all");
  CHECK_FALSE(image.retry.has_value());
  CHECK(options->mount.flags == (MS_RDONLY | MS_NODEV));
  CHECK_FALSE(static_cast<bool>(options->config_reader));
}

TEST_CASE("A registry's table counts more than the rest of the file, and -o more than both",
          "[tool][config]") {
  auto const own = with(example);
  REQUIRE(own.has_value());
  CHECK(own->image.username == "me");
  CHECK(own->image.password == "s3cret");
  CHECK(own->image.password_file.empty());
  CHECK(own->image.mirrors == Arguments{"three"});
  CHECK(own->image.timeout == std::chrono::seconds(10));
  CHECK(own->mount.flags == (MS_RDONLY | MS_NODEV | MS_NOEXEC));

  auto const hub = with(example, {}, "nginx");
  REQUIRE(hub.has_value());
  CHECK(hub->image.retry == std::chrono::seconds(0));

  auto const said = with(example, {"-o", "oci.username=u,oci.password_file=p", "-o",
                                   "oci.mirror=m,oci.timeout=3,exec"});
  REQUIRE(said.has_value());
  CHECK(said->image.username == "u");
  CHECK(said->image.password.empty());
  CHECK(said->image.password_file == "p");
  CHECK(said->image.mirrors == Arguments{"m"});
  CHECK(said->image.timeout == std::chrono::seconds(3));
  CHECK(said->mount.flags == (MS_RDONLY | MS_NODEV));
}

TEST_CASE("What is wrong in a configuration file is named by file and line, without secrets",
          "[tool][config][error]") {
  CHECK(error_of("oci.timeout = ") == "conf:1: not TOML");
  CHECK(error_of("\noci.timeut = 1") ==
        "conf:2: oci.timeut: unknown word; did you mean `oci.timeout`?");
  CHECK(error_of("[oci]\n\npasword = \"s3cret\"") ==
        "conf:3: oci.pasword: unknown word; did you mean `oci.password`?");
  CHECK(error_of("oci.timeout = 0") ==
        "conf:1: oci.timeout=0: not a number of seconds from 1 to 86400");
  CHECK(error_of("oci.timeout = 1.5") ==
        "conf:1: oci.timeout: neither a text, a number, true nor false");
  CHECK(error_of("oci.mirror = [[\"a\"]]") == "conf:1: oci.mirror: an array in an array");
  CHECK(error_of("dax = true") == "conf:1: dax: unknown word");
  CHECK(error_of("nosuid = false") == "conf:1: nosuid: may only be true");
  CHECK(error_of("[registry.\"a b\"]") == "conf:1: registry: not HOST or HOST:PORT");
  CHECK(error_of("[registry.\"other.x\"]\noci.timeut = 1") ==
        "conf:2: oci.timeut: unknown word; did you mean `oci.timeout`?");
  CHECK(error_of("oci.username = \"u\"") ==
        "-o: oci.username is set, but neither oci.password_file nor oci.password");
}

TEST_CASE("A configuration file can make mounts writable", "[tool][config]") {
  CHECK(with("oci.writable = true")->mount.writable);
  auto const named = with("oci.writable = '/upper'");
  REQUIRE(named.has_value());
  CHECK(named->mount.writable_directory == "/upper");
  CHECK_FALSE(with("oci.writable = false").has_value());
}

TEST_CASE("Words of a mount mean nothing to other commands", "[tool][config]") {
  auto const options =
      parse_options({"mount-oci", "ls", "--config", "mine", "a"}, [](std::string const& chosen) {
        CHECK(chosen == "mine");
        return parse_config("nosuid = true\noci.writable = true\noci.timeout = 7", "conf");
      });

  REQUIRE(options.has_value());
  CHECK(options->image.timeout == std::chrono::seconds(7));
}

TEST_CASE("A configuration file is read if it is there, and kept from others if it has a password",
          "[tool][config]") {
  auto const directory = erofs_oci::TemporaryDirectory::make("/tmp/mount-oci-config-").value();
  auto const path = directory.path() + "/conf";
  CHECK(read_config("none").value().empty());
  CHECK_FALSE(read_config(path).has_value());
  std::ofstream(path) << "oci.username = \"u\"\noci.password = \"s3cret\"\n";
  REQUIRE(::chmod(path.c_str(), 0600) == 0);

  CHECK(read_config(path).value().size() == 2);
  REQUIRE(::chmod(path.c_str(), 0640) == 0);
  auto const open = read_config(path);
  REQUIRE_FALSE(open.has_value());
  CHECK_THAT(open.error().text,
             Catch::StartsWith(path + ":2: oci.password: ") && !Catch::Contains("s3cret"));
  REQUIRE(::chmod(path.c_str(), 0620) == 0);
  if (::geteuid() == 0) {
    CHECK_THAT(read_config(path).error().text, Catch::Contains("not used by root"));
  }
  ::unlink(path.c_str());
}

}  // namespace config_file_test
}  // namespace mount_oci
