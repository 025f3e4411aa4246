// SPDX-License-Identifier: Apache-2.0
#include <erofs_oci/fuse/mount.hpp>  // first: proves that the header stands alone

#include <fstream>
#include <string>

#include <sys/stat.h>

#include <catch.hpp>
#include <scratch.hpp>

namespace erofs_oci {
namespace mount_test {

using Catch::Contains;

/// A program in place of fusermount3.
class Helper {
 public:
  explicit Helper(std::string const& script) {
    std::ofstream(path()) << "#!/bin/sh\n" << script << '\n';
    ::chmod(path().c_str(), 0700);
  }

  [[nodiscard]] std::string path() const { return folder_ / "helper"; }
  [[nodiscard]] std::string log() const {
    std::ifstream file(folder_ / "log");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  [[nodiscard]] FuseMountOptions options() const {
    FuseMountOptions options;
    options.helper = path();
    options.access = FuseAccess::owner;
    return options;
  }

 private:
  test::Scratch folder_;
};

TEST_CASE("Option values cannot end early", "[fuse][mount]") {
  FuseMountOptions options;
  options.source = "docker.io/a:b,suid\\";
  options.access = FuseAccess::owner;

  CHECK(detail::fuse_helper_options(options) ==
        "fsname=docker.io/a:b\\,suid\\\\,subtype=erofs_oci,ro,nosuid,nodev");
  options.access = FuseAccess::everyone;
  options.flags = MS_RDONLY | MS_NOEXEC | MS_NOATIME;
  CHECK_THAT(detail::fuse_helper_options(options),
             Catch::EndsWith(",ro,noexec,noatime,allow_other,default_permissions"));
}

TEST_CASE("The helper is called with what is to be mounted where", "[fuse][mount]") {
  Helper const helper(
      "printf '%s|' \"$@\" >$(dirname $0)/log; test -S /proc/self/fd/$_FUSE_COMMFD");

  auto const mounted = detail::mount_fuse_by_helper("/a directory", helper.options());

  CHECK(helper.log() == "-o|fsname=erofs_oci,subtype=erofs_oci,ro,nosuid,nodev|--|/a directory|");
  REQUIRE_FALSE(mounted.has_value());  // it has sent nothing
  CHECK(mounted.error().code == Errc::protocol);
}

TEST_CASE("What the helper complains of is the error", "[fuse][mount][error]") {
  Helper const helper("echo 'fusermount3: no write access to mountpoint' >&2; exit 1");

  auto const mounted = detail::mount_fuse_by_helper("/tmp", helper.options());

  REQUIRE_FALSE(mounted.has_value());
  CHECK(mounted.error().code == std::errc::io_error);
  CHECK_THAT(mounted.error().message(), Contains("fusermount3: no write access to mountpoint"));
}

TEST_CASE("A helper that does not exist is named, with its package", "[fuse][mount][error]") {
  FuseMountOptions options;
  options.helper = "no-such-fusermount";

  auto const mounted = detail::mount_fuse_by_helper("/tmp", options);

  REQUIRE_FALSE(mounted.has_value());
  CHECK(mounted.error().code == Errc::unsupported);
  CHECK_THAT(mounted.error().message(), Contains("no-such-fusermount") && Contains("fuse3"));
}

TEST_CASE("A place that is no directory is refused before anything is done",
          "[fuse][mount][error]") {
  CHECK(mount_fuse("/dev/null").error().code == std::errc::not_a_directory);
  CHECK(mount_fuse("/no/such/directory").error().code == std::errc::no_such_file_or_directory);
}

}  // namespace mount_test
}  // namespace erofs_oci
