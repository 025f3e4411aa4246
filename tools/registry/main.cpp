// SPDX-License-Identifier: Apache-2.0
// oci-registry: the command line of the registry for tests, benches and demonstrations.
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <erofs_oci/core/text.hpp>

#include "parsing.hpp"
#include "registry.hpp"

namespace mount_oci {
namespace {

constexpr std::string_view manual_page =
    R"(oci-registry - a registry over an OCI image layout

SYNOPSIS
  oci-registry [OPTION]... DIR

DESCRIPTION
  Serves the image layout DIR (as `skopeo copy ... oci:DIR:TAG` makes it) under every repository name.
  Prints its URL on standard output when clients can connect. Ends on SIGTERM or SIGINT.
  Made for tests: it can require credentials, redirect, answer slowly and answer wrongly.

OPTIONS
  --listen HOST:PORT     default 127.0.0.1:0, which takes a free port
  --cert PATH --key PATH serve https with this certificate
  --username NAME --password-file PATH
                         require these credentials: Basic, or at the token endpoint
  --token-ttl SECONDS    require a bearer token, which expires after so long
  --redirect-blobs       redirect blobs to URLs on another port that expire and refuse an
                         Authorization header
  --redirect-ttl SECONDS after so long, 60
  --latency MS           wait before each answer
  --bandwidth SIZE       bytes a second of each blob answer
  --fail-every N[:STATUS]
                         answer every N-th blob request with STATUS, 503
  --fault KIND[:N]       make every N-th answer to a range of a blob wrong, N = 1:
                           ignore-range  200 and the whole blob
                           short         half of the body, then the end of the connection
                           wrong-range   a Content-Range one byte later
                           wrong-total   a Content-Range with another size
                           corrupt       one byte of the body flipped
                           encoded       Content-Encoding: gzip
                           reset         half of the body, then a TCP reset
                           hang          no answer
  --accept-pushes        take blobs and manifests: files of DIR/blobs; tags last as long as this program
  --no-referrers         do not have the referrers API
  --count FILE           write the counters to FILE at the end

ENDPOINTS
  /v2/, manifests by tag and digest, blobs with ranges, tags/list
  GET /_stats            counters as JSON: requests, blob_requests, range_requests, bytes, ...
  POST /_stats/reset     set them to 0

EXIT STATUS
  0 ended by a signal, 1 wrong command line, 2 failed
)";

struct FaultName {
  std::string_view name;
  Fault fault;
};

constexpr std::array fault_names{
    FaultName{"ignore-range", Fault::ignore_range},
    FaultName{"short", Fault::short_body},
    FaultName{"wrong-range", Fault::wrong_range},
    FaultName{"wrong-total", Fault::wrong_total},
    FaultName{"corrupt", Fault::corrupt},
    FaultName{"encoded", Fault::encoded},
    FaultName{"reset", Fault::reset},
    FaultName{"hang", Fault::hang},
};

/// `KIND[:N]`, or nothing
Checked set_fault(std::string const& text, RegistryOptions& registry) {
  if (text.empty()) return {};
  auto const colon = text.find(':');
  auto const known =
      std::ranges::find(fault_names, std::string_view(text).substr(0, colon), &FaultName::name);
  auto const every = colon == std::string::npos
                         ? 1u
                         : erofs_oci::whole_number<unsigned>(text.substr(colon + 1)).value_or(0);
  if (known == fault_names.end() || every == 0) {
    std::string names;
    for (auto const& fault : fault_names) names += " " + std::string(fault.name);
    return usage("--fault " + text + ": not KIND or KIND:N, with KIND one of" + names);
  }
  registry.fault = known->fault;
  registry.fault_every = every;
  return {};
}

/// `N[:STATUS]`, or nothing
Checked set_fail_every(std::string const& text, RegistryOptions& registry) {
  if (text.empty()) return {};
  auto const colon = text.find(':');
  auto const every = erofs_oci::whole_number<unsigned>(text.substr(0, colon)).value_or(0);
  auto const status = colon == std::string::npos
                          ? 503
                          : erofs_oci::whole_number<int>(text.substr(colon + 1)).value_or(0);
  if (every == 0 || status < 400 || status > 599) {
    return usage("--fail-every " + text + ": not N or N:STATUS, with STATUS from 400 to 599");
  }
  registry.fail_every = every;
  registry.fail_status = status;
  return {};
}

/// The texts of options that need a closer look.
struct RegistryTexts {
  std::string bandwidth;
  std::string fail_every;
  std::string fault;
  std::string latency;
  std::string token_ttl;
  std::string redirect_ttl = "60";
  bool redirect = false;

  [[nodiscard]] Checked apply(RegistryOptions& registry) const {
    if (!latency.empty()) {
      auto const value = erofs_oci::whole_number<std::uint32_t>(latency);
      if (!value) return usage("--latency " + latency + ": not a number of milliseconds");
      registry.latency = std::chrono::milliseconds(*value);
    }
    if (!bandwidth.empty()) {
      registry.bandwidth = parse_size(bandwidth).value_or(0);
      if (registry.bandwidth == 0) return usage("--bandwidth " + bandwidth + ": not a size");
    }
    if (auto ok = set_fail_every(fail_every, registry); !ok) return ok;
    if (auto ok = set_fault(fault, registry); !ok) return ok;
    if (!token_ttl.empty()) registry.token_ttl = parse_seconds(token_ttl, 1);
    if (!token_ttl.empty() && !registry.token_ttl) {
      return usage("--token-ttl " + token_ttl + ": not a number of seconds");
    }
    if (redirect) registry.redirect_ttl = parse_seconds(redirect_ttl, 1);
    if (redirect && !registry.redirect_ttl) {
      return usage("--redirect-ttl " + redirect_ttl + ": not a number of seconds");
    }
    return {};
  }
};

Checked parse(std::vector<std::string> words, RegistryOptions& registry, bool& help) {
  CLI::App app;
  prepare(app);
  RegistryTexts texts;
  app.add_flag("-h,--help", help);
  app.add_option("--listen", registry.listen);
  app.add_option("--latency", texts.latency);
  app.add_option("--bandwidth", texts.bandwidth);
  app.add_option("--fail-every", texts.fail_every);
  app.add_option("--fault", texts.fault);
  app.add_option("--username", registry.username);
  app.add_option("--password-file", registry.password_file);
  app.add_option("--token-ttl", texts.token_ttl);
  app.add_flag("--redirect-blobs", texts.redirect);
  app.add_option("--redirect-ttl", texts.redirect_ttl);
  app.add_option("--cert", registry.certificate);
  app.add_option("--key", registry.key);
  app.add_option("--count", registry.count);
  app.add_flag("--accept-pushes", registry.pushes);
  app.add_flag("!--no-referrers", registry.referrers);
  app.add_option("directory", registry.directory);
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (help) return {};
  if (auto ok = texts.apply(registry); !ok) return ok;
  if (registry.username.empty() != registry.password_file.empty()) {
    return usage("--username and --password-file belong together");
  }
  if (registry.certificate.empty() != registry.key.empty()) {
    return usage("--cert and --key belong together");
  }
  if (registry.directory.empty()) return usage("missing argument: DIR");
  return {};
}

int main_of(std::vector<std::string> words) {
  RegistryOptions options;
  bool help = false;
  if (auto const ok = parse(std::move(words), options, help); !ok) {
    std::fprintf(stderr, "oci-registry: %s\nTry 'oci-registry --help' for more information.\n",
                 ok.error().text.c_str());
    return 1;
  }
  if (help) {
    std::fwrite(manual_page.data(), 1, manual_page.size(), stdout);
    return 0;
  }
  auto const done = run_registry(options);
  if (done) return 0;
  std::fprintf(stderr, "oci-registry: %s\n", done.error().message().c_str());
  return exit_status(done.error(), 2);
}

}  // namespace
}  // namespace mount_oci

int main(int argc, char** argv) {
  try {
    return mount_oci::main_of(std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
  } catch (std::exception const& error) {
    std::fprintf(stderr, "oci-registry: %s\n", error.what());
    return 2;
  }
}
