// SPDX-License-Identifier: Apache-2.0
#include "kubelet_providers.hpp"

#include <algorithm>
#include <array>
#include <ranges>
#include <utility>

#include <fnmatch.h>
#include <yaml-cpp/yaml.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/oci/json.hpp>

#include "run_to_end.hpp"

namespace oci_snapshotter {

using erofs_oci::Errc;
using erofs_oci::fail;
using erofs_oci::Result;
using namespace std::chrono_literals;

namespace {

constexpr std::string_view request_group = "credentialprovider.kubelet.k8s.io/";

/// A member that is a text; empty if it is not there.
Result<std::string> text_of(YAML::Node const& node, char const* name) {
  auto const member = node[name];
  if (!member) return std::string();
  if (!member.IsScalar()) return fail(Errc::corrupt, std::string(name) + " is no text");
  return member.Scalar();
}

/// A member that is a list; an empty one if it is not there.
Result<YAML::Node> list_of(YAML::Node const& node, char const* name) {
  auto const member = node[name];
  if (!member || member.IsNull()) return YAML::Node(YAML::NodeType::Sequence);
  if (!member.IsSequence()) return fail(Errc::corrupt, std::string(name) + " is no list");
  return member;
}

Result<std::vector<std::string>> texts_of(YAML::Node const& node, char const* name) {
  EROFS_OCI_TRY_ASSIGN(auto const list, list_of(node, name));
  std::vector<std::string> out;
  for (auto const& one : list) {
    if (!one.IsScalar()) return fail(Errc::corrupt, std::string(name) + " is no list of texts");
    out.push_back(one.Scalar());
  }
  return out;
}

Result<ProviderOptions> provider_of(YAML::Node const& node) {
  if (!node.IsMap()) return fail(Errc::corrupt, "a provider is no map");
  ProviderOptions out;
  EROFS_OCI_TRY_ASSIGN(out.name, text_of(node, "name"));
  EROFS_OCI_TRY_ASSIGN(out.api_version, text_of(node, "apiVersion"), out.name);
  EROFS_OCI_TRY_ASSIGN(out.images, texts_of(node, "matchImages"), out.name);
  EROFS_OCI_TRY_ASSIGN(out.arguments, texts_of(node, "args"), out.name);
  EROFS_OCI_TRY_ASSIGN(auto const variables, list_of(node, "env"), out.name);
  for (auto const& one : variables) {
    if (!one.IsMap()) return fail(Errc::corrupt, out.name + ": env is no list of maps");
    EROFS_OCI_TRY_ASSIGN(auto const name, text_of(one, "name"));
    EROFS_OCI_TRY_ASSIGN(auto const value, text_of(one, "value"));
    out.variables.push_back(name + "=" + value);
  }
  EROFS_OCI_TRY_ASSIGN(auto const time, text_of(node, "defaultCacheDuration"), out.name);
  auto const parsed = time.empty() ? 0s : parse_go_duration(time);
  auto const is_name = !out.name.empty() && out.name.find('/') == out.name.npos &&
                       out.name != "." && out.name != "..";
  if (!is_name || !parsed || out.images.empty() || !out.api_version.starts_with(request_group)) {
    return fail(Errc::corrupt, "provider `" + out.name +
                                   "`: needs name, apiVersion, matchImages and a sound "
                                   "defaultCacheDuration");
  }
  if (node["tokenAttributes"]) {
    return fail(
        Errc::unsupported,
        "provider `" + out.name + "` wants tokens of service accounts, which only kubelet has");
  }
  out.remember = *parsed;
  return out;
}

}  // namespace

Result<std::vector<ProviderOptions>> parse_provider_config(std::string const& text,
                                                           std::string const& name) {
  auto parsed = [&]() -> Result<std::vector<ProviderOptions>> {
    try {
      auto const top = YAML::Load(text);
      if (!top.IsMap()) return fail(Errc::corrupt, "no CredentialProviderConfig");
      EROFS_OCI_TRY_ASSIGN(auto const kind, text_of(top, "kind"));
      if (kind != "CredentialProviderConfig")
        return fail(Errc::corrupt, "no CredentialProviderConfig");
      std::vector<ProviderOptions> out;
      EROFS_OCI_TRY_ASSIGN(auto const providers, list_of(top, "providers"));
      for (auto const& node : providers) {
        EROFS_OCI_TRY_ASSIGN(out.emplace_back(), provider_of(node));
      }
      return out;
    } catch (YAML::Exception const& error) {
      // Its line, but no text of it.
      return fail(Errc::corrupt, "line " + std::to_string(error.mark.line + 1) + ": no YAML");
    }
  }();
  if (!parsed) return fail(std::move(parsed).error(), name);
  return parsed;
}

bool matches_image(std::string_view pattern, std::string_view repository) {
  if (auto const scheme = pattern.find("://"); scheme != pattern.npos)
    pattern.remove_prefix(scheme + 3);
  auto const split = [](std::string_view text) {
    auto const slash = std::min(text.find('/'), text.size());
    auto host = text.substr(0, slash);
    auto const colon = std::min(host.rfind(':'), host.size());
    return std::array{host.substr(0, colon), host.substr(colon), text.substr(slash)};
  };
  auto const [host, port, path] = split(pattern);
  auto const [own_host, own_port, own_path] = split(repository);
  if (!port.empty() && port != own_port) return false;
  if (!own_path.starts_with(path)) return false;
  auto wanted = host;
  auto own = own_host;
  while (!wanted.empty() && !own.empty()) {
    auto const glob = std::string(erofs_oci::take_part(wanted, '.'));
    auto const part = std::string(erofs_oci::take_part(own, '.'));
    if (::fnmatch(glob.c_str(), part.c_str(), 0) != 0) return false;
  }
  return wanted.empty() && own.empty() && !host.empty();
}

std::optional<std::chrono::seconds> parse_go_duration(std::string_view text) {
  constexpr std::uint64_t most = 10ULL * 365 * 86'400;
  if (text == "0") return 0s;
  std::uint64_t total = 0;
  auto is_empty = true;
  while (!text.empty()) {
    auto const number = erofs_oci::take_number<std::uint32_t>(text);
    if (!number) return std::nullopt;
    if (erofs_oci::take_char(text, '.') && !erofs_oci::take_number<std::uint64_t>(text))
      return std::nullopt;
    auto const unit = text.substr(0, std::min(text.find_first_of("0123456789"), text.size()));
    text.remove_prefix(unit.size());
    if (unit == "h")
      total += std::uint64_t{*number} * 3600;
    else if (unit == "m")
      total += std::uint64_t{*number} * 60;
    else if (unit == "s")
      total += *number;
    else if (unit != "ms" && unit != "us" && unit != "ns")
      return std::nullopt;
    is_empty = false;
  }
  if (is_empty || total > most) return std::nullopt;
  return std::chrono::seconds(total);
}

// ---------------------------------------------------------------- running them

namespace {

/// What a plugin says.
struct ProviderResponse {
  std::string kind_of_key;
  std::optional<std::chrono::seconds> remember{};
  std::map<std::string, Login> logins{};
};

/// @spec{Kubernetes, credentialprovider.kubelet.k8s.io/v1, CredentialProviderResponse}
Result<ProviderResponse> parse_response(std::string_view text) {
  namespace json = erofs_oci::json;
  EROFS_OCI_TRY_ASSIGN(auto const value, json::parse(erofs_oci::as_bytes(text), "its answer"));
  ProviderResponse out;
  EROFS_OCI_TRY_ASSIGN(auto const kind, json::text(value, "kind"));
  EROFS_OCI_TRY_ASSIGN(out.kind_of_key, json::text(value, "cacheKeyType"));
  EROFS_OCI_TRY_ASSIGN(auto const time, json::text(value, "cacheDuration"));
  if (!time.empty()) out.remember = parse_go_duration(time);
  if (kind != "CredentialProviderResponse" || (!time.empty() && !out.remember)) {
    return fail(Errc::corrupt, "its answer is no CredentialProviderResponse");
  }
  auto const* const auth = json::find(value, "auth");
  if (auth == nullptr) return out;
  if (!auth->is_object()) return fail(Errc::corrupt, "its answer: auth");
  for (auto const& [pattern, login] : auth->items()) {
    EROFS_OCI_TRY_ASSIGN(auto username, json::text(login, "username"));
    EROFS_OCI_TRY_ASSIGN(auto password, json::text(login, "password"));
    out.logins[pattern] = {std::move(username), std::move(password)};
  }
  return out;
}

std::string host_of(std::string const& repository) {
  return repository.substr(0, repository.find('/'));
}

/// The one of the most special pattern, as kubelet takes it: the last one in order.
std::optional<Login> login_for(std::map<std::string, Login> const& logins,
                               std::string const& repository) {
  for (auto const& [pattern, login] : std::views::reverse(logins)) {
    if (matches_image(pattern, repository)) return login;
  }
  return std::nullopt;
}

}  // namespace

KubeletProviders::KubeletProviders(std::vector<ProviderOptions> providers, std::string directory,
                                   std::function<void(std::string const&)> say)
    : directory_(std::move(directory)), say_(std::move(say)) {
  for (auto& one : providers) {
    providers_.push_back(std::make_unique<Provider>(std::move(one)));
  }
}

std::optional<Login> KubeletProviders::find(std::string const& repository) {
  for (auto const& provider : providers_) {
    auto const is_for_it = std::ranges::any_of(provider->options.images, [&](auto const& pattern) {
      return matches_image(pattern, repository);
    });
    if (!is_for_it) continue;
    if (auto found = find_of(*provider, repository)) return found;
  }
  return std::nullopt;
}

std::optional<Login> KubeletProviders::find_of(Provider& provider, std::string const& repository) {
  std::scoped_lock const lock(provider.mutex);
  std::erase_if(provider.answers, [](auto const& one) { return one.second.until < Clock::now(); });
  for (auto const& key :
       {"image " + repository, "registry " + host_of(repository), std::string("all")}) {
    auto const known = provider.answers.find(key);
    if (known != provider.answers.end()) return login_for(known->second.logins, repository);
  }
  auto const answer = ask(provider, repository);
  if (!answer) {
    say_("credential provider " + provider.options.name + ": " + answer.error().message());
    return std::nullopt;
  }
  return login_for((*answer)->logins, repository);
}

Result<KubeletProviders::Answer const*> KubeletProviders::ask(Provider& provider,
                                                              std::string const& repository) const {
  auto const& options = provider.options;
  std::vector<std::string> words{directory_ + "/" + options.name};
  words.insert(words.end(), options.arguments.begin(), options.arguments.end());
  auto const request = erofs_oci::json::dump({{"apiVersion", options.api_version},
                                              {"kind", "CredentialProviderRequest"},
                                              {"image", repository}});
  EROFS_OCI_TRY_ASSIGN(
      auto const outcome,
      run_to_end(std::move(words),
                 {.text = request, .variables = options.variables, .deadline = Clock::now() + 9s},
                 {}));
  if (outcome.status != 0) {
    return fail(Errc::unauthorized, "exit status " + std::to_string(outcome.status));
  }
  EROFS_OCI_TRY_ASSIGN(auto response, parse_response(outcome.output));
  auto key = response.kind_of_key == "Registry" ? "registry " + host_of(repository)
             : response.kind_of_key == "Global" ? std::string("all")
                                                : "image " + repository;
  auto const until = Clock::now() + response.remember.value_or(options.remember);
  auto& answer = provider.answers[std::move(key)];
  answer = {std::move(response.logins), until};
  return &answer;
}

}  // namespace oci_snapshotter
