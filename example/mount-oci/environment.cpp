// SPDX-License-Identifier: Apache-2.0
#include "environment.hpp"

#include <array>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

namespace mount_oci {
namespace {

constexpr auto usual_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that name files or directories.
constexpr std::array place_variables{
    "HOME",           "DOCKER_CONFIG",   "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",      "SSL_CERT_FILE",
    "SSL_CERT_DIR",   "TMPDIR"};

/// What shells, interpreters and the C library read code or its place from.
constexpr std::array<std::string_view, 13> code_variables{
    "LD_",    "GCONV_PATH", "GLIBC_TUNABLES", "BASH_", "ENV=",     "IFS=",   "SHELLOPTS",
    "PYTHON", "PERL",       "RUBY",           "NODE_", "OPENSSL_", "LOCPATH"};

/// Whether another user than root decides what is at a path. One that is not there does no harm.
bool is_of_others(std::string const& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && status.st_uid != 0;
}

std::string trusted_path(char const* given) {
  std::istringstream folders(given != nullptr ? given : "");
  std::string kept;
  for (std::string folder; std::getline(folders, folder, ':');) {
    struct stat status{};
    if (!folder.starts_with('/') || ::stat(folder.c_str(), &status) != 0) continue;
    if (status.st_uid != 0 || (status.st_mode & S_IWOTH) != 0) continue;
    kept += (kept.empty() ? "" : ":") + folder;
  }
  return kept.empty() ? usual_path : kept;
}

}  // namespace

void clean_environment() {
  if (::getauxval(AT_SECURE) != 0) ::clearenv();
  if (::geteuid() != 0) return;
  ::setenv("PATH", trusted_path(std::getenv("PATH")).c_str(), 1);
  for (auto const* const name : place_variables) {
    auto const* const value = std::getenv(name);
    if (value != nullptr && is_of_others(value)) ::unsetenv(name);
  }
  std::vector<std::string> gone;
  for (auto** one = ::environ; one != nullptr && *one != nullptr; ++one) {
    std::string_view const text(*one);
    for (auto const prefix : code_variables) {
      if (text.starts_with(prefix)) gone.emplace_back(text.substr(0, text.find('=')));
    }
  }
  for (auto const& name : gone) ::unsetenv(name.c_str());
  if (std::getenv("HOME") == nullptr) ::setenv("HOME", "/root", 1);
}

}  // namespace mount_oci
