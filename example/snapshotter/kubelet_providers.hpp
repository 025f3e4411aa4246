// SPDX-License-Identifier: Apache-2.0
/// @file
/// KubeletProviders: the programs by which kubelet gets logins.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/result.hpp>

#include "pull_logins.hpp"

namespace oci_snapshotter {

/// An entry of kubelet's CredentialProviderConfig.
struct ProviderOptions {
  std::string name;                   ///< of the program, in the plugins' directory
  std::string api_version;            ///< of what it is asked by
  std::vector<std::string> images{};  ///< patterns
  std::vector<std::string> arguments{};
  std::vector<std::string> variables{};  ///< "NAME=VALUE"
  std::chrono::seconds remember{};       ///< unless the program says for how long

  friend bool operator==(ProviderOptions const&, ProviderOptions const&) = default;
};

/// Reads a CredentialProviderConfig, as YAML or JSON.
/// @param name  of the text, for messages
/// @error{Errc::corrupt, it is none}
/// @error{Errc::unsupported, a provider that wants service account tokens, which only kubelet has}
/// @spec{Kubernetes, kubelet.config.k8s.io/v1, CredentialProviderConfig}
[[nodiscard]] erofs_oci::Result<std::vector<ProviderOptions>> parse_provider_config(
    std::string const& text, std::string const& name);

/// Whether a pattern is of a repository: as many parts of the host's name, each with its glob, the
/// same port if the pattern has one, and the beginning of the path.
/// @spec{Kubernetes, kubelet.config.k8s.io/v1, CredentialProvider.matchImages}
[[nodiscard]] bool matches_image(std::string_view pattern, std::string_view repository);

/// A time as Go writes it: "1h30m", "0s". Empty if it is none.
[[nodiscard]] std::optional<std::chrono::seconds> parse_go_duration(std::string_view text);

/// Runs the plugins, and keeps what they say for as long as they say, in memory alone.
///
/// @par Thread safety
/// find(), from any thread; it blocks for nine seconds a plugin at most.
class KubeletProviders {
 public:
  /// @param directory  of the programs
  /// @param say        is told of plugins that fail, without what they say
  KubeletProviders(std::vector<ProviderOptions> providers, std::string directory,
                   std::function<void(std::string const&)> say);

  /// The login for a repository, from the first plugin that has one.
  [[nodiscard]] std::optional<Login> find(std::string const& repository);

 private:
  using Clock = std::chrono::steady_clock;
  struct Answer {
    std::map<std::string, Login> logins{};  ///< by pattern
    Clock::time_point until{};
  };
  struct Provider {
    explicit Provider(ProviderOptions given) : options(std::move(given)) {}
    ProviderOptions options;
    std::mutex mutex{};                       // while the program runs
    std::map<std::string, Answer> answers{};  // by what they are for
  };

  [[nodiscard]] std::optional<Login> find_of(Provider& provider, std::string const& repository);
  [[nodiscard]] erofs_oci::Result<Answer const*> ask(Provider& provider,
                                                     std::string const& repository) const;

  std::vector<std::unique_ptr<Provider>> providers_;
  std::string directory_;
  std::function<void(std::string const&)> say_;
};

}  // namespace oci_snapshotter
