// SPDX-License-Identifier: Apache-2.0
// argv -> Options.
#include "options.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "parsing.hpp"

namespace mount_oci {
namespace {

Checked parse_serve(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  std::vector<std::string> lists;
  add_lists(app, lists);
  app.add_option("--socket", options.serve.socket);
  app.add_option("--listen", options.serve.listen);
  app.add_option("image", options.image.image);
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;
  if (auto ok = apply_lists(lists, options); !ok) return ok;
  if (options.serve.socket.empty() == options.serve.listen.empty()) {
    return usage("serve: one of --socket PATH and --listen HOST:PORT is needed");
  }
  if (options.image.image.empty()) return usage("missing argument: IMAGE");
  return {};
}

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

/// `KIND[:N]`
Checked set_fault(std::string const& text, RegistryOptions& registry) {
  auto const colon = text.find(':');
  auto const known =
      std::ranges::find(fault_names, std::string_view(text).substr(0, colon), &FaultName::name);
  auto const every =
      colon == std::string::npos ? 1u : parse_number<unsigned>(text.substr(colon + 1)).value_or(0);
  if (known == fault_names.end() || every == 0) {
    std::string names;
    for (auto const& fault : fault_names) names += " " + std::string(fault.name);
    return usage("--fault " + text + ": not KIND or KIND:N, with KIND one of" + names);
  }
  registry.fault = known->fault;
  registry.fault_every = every;
  return {};
}

/// `N[:STATUS]`
Checked set_fail_every(std::string const& text, RegistryOptions& registry) {
  auto const colon = text.find(':');
  auto const every = parse_number<unsigned>(text.substr(0, colon)).value_or(0);
  auto const status =
      colon == std::string::npos ? 503 : parse_number<int>(text.substr(colon + 1)).value_or(0);
  if (every == 0 || status < 400 || status > 599) {
    return usage("--fail-every " + text + ": not N or N:STATUS, with STATUS from 400 to 599");
  }
  registry.fail_every = every;
  registry.fail_status = status;
  return {};
}

/// The texts of `registry`'s options that need a closer look.
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
      auto const value = parse_number<std::uint32_t>(latency);
      if (!value) return usage("--latency " + latency + ": not a number of milliseconds");
      registry.latency = std::chrono::milliseconds(*value);
    }
    if (!bandwidth.empty()) {
      registry.bandwidth = parse_size(bandwidth).value_or(0);
      if (registry.bandwidth == 0) return usage("--bandwidth " + bandwidth + ": not a size");
    }
    if (!fail_every.empty()) {
      if (auto ok = set_fail_every(fail_every, registry); !ok) return ok;
    }
    if (!fault.empty()) {
      if (auto ok = set_fault(fault, registry); !ok) return ok;
    }
    if (!token_ttl.empty()) {
      registry.token_ttl = parse_seconds(token_ttl, 1);
      if (!registry.token_ttl)
        return usage("--token-ttl " + token_ttl + ": not a number of seconds");
    }
    if (redirect) {
      registry.redirect_ttl = parse_seconds(redirect_ttl, 1);
      if (!registry.redirect_ttl) {
        return usage("--redirect-ttl " + redirect_ttl + ": not a number of seconds");
      }
    }
    return {};
  }
};

Checked parse_registry(std::vector<std::string> words, Options& options) {
  CLI::App app;
  prepare(app);
  Common const common(app);
  auto& registry = options.registry;
  RegistryTexts texts;
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
  app.add_option("directory", registry.directory);
  if (auto ok = run_parser(app, std::move(words)); !ok) return ok;
  if (common.ends(options)) return {};
  if (auto ok = common.apply(options); !ok) return ok;
  if (auto ok = texts.apply(registry); !ok) return ok;
  if (registry.username.empty() != registry.password_file.empty()) {
    return usage("registry: --username and --password-file belong together");
  }
  if (registry.certificate.empty() != registry.key.empty()) {
    return usage("registry: --cert and --key belong together");
  }
  if (registry.directory.empty()) return usage("missing argument: DIR");
  return {};
}

struct Entry {
  std::string_view name;
  Command command;
  Checked (*parse)(std::vector<std::string>, Options&);
};

constexpr std::array entries{
    Entry{"mount", Command::mount, parse_mount},
    Entry{"umount", Command::umount, parse_umount},
    Entry{"disconnect", Command::disconnect, parse_disconnect},
    Entry{"reattach", Command::reattach, parse_reattach},
    Entry{"status", Command::status, parse_records},
    Entry{"gc", Command::gc, parse_records},
    Entry{"serve", Command::serve, parse_serve},
    Entry{"registry", Command::registry, parse_registry},
    Entry{"index", Command::index, parse_reading},
    Entry{"ls", Command::ls, parse_reading},
    Entry{"cat", Command::cat, parse_reading},
    Entry{"stat", Command::stat, parse_reading},
    Entry{"find", Command::find, parse_reading},
    Entry{"extract", Command::extract, parse_reading},
    Entry{"fsck", Command::fsck, parse_reading},
    Entry{"image", Command::image, parse_reading},
};

/// Whether mount(8) runs us as a helper: then the first word is a source, whatever it is called.
bool is_helper(std::string_view program) {
  auto const name = program.substr(program.find_last_of('/') + 1);
  return name == "mount.erofs" || name.starts_with("mount.erofs.");
}

}  // namespace

tl::expected<Options, UsageError> parse_options(std::vector<std::string> const& arguments) {
  Options options;
  options.program = arguments.empty() ? "mount-oci" : arguments.front();
  auto words =
      std::vector<std::string>(arguments.begin() + (arguments.empty() ? 0 : 1), arguments.end());
  if (words.empty() && !is_helper(options.program)) return usage("missing argument: IMAGE");

  auto const* entry = &entries.front();
  if (!is_helper(options.program)) {
    if (words.front() == "-h" || words.front() == "--help" || words.front() == "help") {
      options.command = Command::help;
      return options;
    }
    auto const named = std::ranges::find(entries, words.front(), &Entry::name);
    if (named != entries.end()) {
      entry = &*named;
      words.erase(words.begin());
    }
  }
  options.command = entry->command;
  if (auto ok = entry->parse(std::move(words), options); !ok) {
    return tl::unexpected(std::move(ok).error());
  }
  return options;
}

}  // namespace mount_oci
