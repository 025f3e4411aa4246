// SPDX-License-Identifier: Apache-2.0
// oci-snapshotter: containerd's snapshots on a unix socket.
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <grpcpp/grpcpp.h>
#include <grpcpp/server_posix.h>

#include <erofs_oci/core/fd.hpp>
#include <erofs_oci/core/text.hpp>
#include <erofs_oci/posix/path.hpp>
#include <erofs_oci/posix/trusted_file.hpp>
#include <erofs_oci/posix/unix_socket.hpp>
#include <erofs_oci/recovery/service_notifier.hpp>

#include "config.hpp"
#include "doctor.hpp"
#include "grpc_service.hpp"
#include "image_proxy.hpp"
#include "kubelet_providers.hpp"
#include "login_service.hpp"
#include "metrics_server.hpp"
#include "pull_logins.hpp"
#include "snapshotter.hpp"

#ifndef OCI_SNAPSHOTTER_VERSION
#define OCI_SNAPSHOTTER_VERSION "unknown"
#endif

namespace oci_snapshotter {
namespace {

using erofs_oci::fail_errno;
using erofs_oci::UniqueFd;

/// Messages that containerd itself would take.
constexpr int most_bytes = 16 << 20;

void say(std::string const& text) {
  // One write, so that lines of several threads do not mix.
  auto const line = "oci-snapshotter: " + text + "\n";
  static_cast<void>(erofs_oci::write_full(STDERR_FILENO, erofs_oci::as_bytes(line)));
}

/// What SIGTERM and SIGINT are read from. They are blocked from here on, in every thread.
Result<UniqueFd> signal_fd() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (auto const error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr)) {
    return fail_errno(error, "sigmask");
  }
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return fail_errno(errno, "signalfd");
  return fd;
}

/// The socket that systemd listens at for us, if it does.
/// @spec{sd_listen_fds(3)}
std::optional<UniqueFd> inherited_socket() {
  constexpr int first = 3;
  auto const number = [](char const* name) {
    auto const* const text = std::getenv(name);
    auto const value = erofs_oci::whole_number<std::uint64_t>(text == nullptr ? "" : text);
    ::unsetenv(name);
    return value;
  };
  auto const pid = number("LISTEN_PID");
  auto const count = number("LISTEN_FDS");
  ::unsetenv("LISTEN_FDNAMES");
  if (pid != static_cast<std::uint64_t>(::getpid()) || count != 1U) return std::nullopt;
  ::fcntl(first, F_SETFD, FD_CLOEXEC);
  ::fcntl(first, F_SETFL, ::fcntl(first, F_GETFL) | O_NONBLOCK);
  return UniqueFd(first);
}

Result<UniqueFd> listen_at(std::string const& address) {
  std::error_code error;
  std::filesystem::create_directories(erofs_oci::folder_of(address), error);
  if (error) return erofs_oci::fail(error, address);
  return erofs_oci::listen_unix(address, SOCK_STREAM, 128);
}

/// Hands clients to the server until a signal comes.
Result<void> serve_clients(grpc::Server& server, UniqueFd const& listener,
                           UniqueFd const& signals) {
  for (;;) {
    std::array<pollfd, 2> fds{{{listener.get(), POLLIN, 0}, {signals.get(), POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (fds[1].revents != 0) return {};
    UniqueFd client(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (client) {
      grpc::AddInsecureChannelFromFd(&server, client.release());
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      say("accept: " + std::error_code(errno, std::system_category()).message());
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
}

/// Where logins come from, in the order in which they are asked.
struct LoginSources {
  PullLogins pulls{};
  std::unique_ptr<KubeletProviders> providers{};
  std::unique_ptr<ImageProxy> proxy{};
  LoginService service{[this](std::string const& repository) {
    auto found = pulls.find(repository);
    return found || !providers ? found : providers->find(repository);
  }};

  [[nodiscard]] static bool are_wanted(Config const& config) {
    return !config.image_service.empty() || !config.kubelet_config.empty();
  }

  [[nodiscard]] Result<void> open(Config const& config) {
    if (!config.image_service.empty()) {
      proxy = std::make_unique<ImageProxy>(config.image_service, pulls);
    }
    if (config.kubelet_config.empty()) return {};
    EROFS_OCI_TRY_ASSIGN(auto const file, erofs_oci::read_trusted_file(config.kubelet_config));
    EROFS_OCI_TRY_ASSIGN(auto list, parse_provider_config(file.text, config.kubelet_config));
    providers = std::make_unique<KubeletProviders>(std::move(list), config.kubelet_plugins, say);
    return {};
  }

  void add_to(grpc::ServerBuilder& builder) {
    builder.RegisterService(&service);
    if (proxy) builder.RegisterCallbackGenericService(proxy.get());
  }
};

Result<void> serve(Config config) {
  LoginSources logins;
  EROFS_OCI_TRY(logins.open(config));
  if (LoginSources::are_wanted(config)) {
    config.tool.login_address = config.address;
    if (std::getenv("REGISTRY_AUTH_FILE") != nullptr) {
      say("REGISTRY_AUTH_FILE is not used, since there are [credentials]; set DOCKER_CONFIG in its "
          "place");
    }
  }
  EROFS_OCI_TRY_ASSIGN(auto const notifier, erofs_oci::ServiceNotifier::from_environment());
  auto inherited = inherited_socket();
  EROFS_OCI_TRY_ASSIGN(auto const signals, signal_fd());
  EROFS_OCI_TRY_ASSIGN(auto const snapshotter, Snapshotter::open(config, say));
  std::optional<erofs_oci::SocketPath> own_path;
  if (!inherited) {
    EROFS_OCI_TRY_ASSIGN(inherited, listen_at(config.address));
    own_path.emplace(config.address);
  }
  std::optional<MetricsServer> metrics;
  if (!config.metrics.empty()) {
    EROFS_OCI_TRY_ASSIGN(
        metrics, MetricsServer::start(config.metrics, [&] { return snapshotter->metrics(); }),
        "metrics.address");
  }
  GrpcService service(*snapshotter, config.mount_timeout);
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  logins.add_to(builder);
  builder.SetMaxReceiveMessageSize(most_bytes);
  builder.SetMaxSendMessageSize(most_bytes);
  auto const server = builder.BuildAndStart();
  if (!server) {
    return erofs_oci::fail(make_error_code(std::errc::io_error), "the gRPC server does not start");
  }
  EROFS_OCI_TRY(notifier.ready());
  say("serves " + config.root + " at " + config.address);
  auto const done = serve_clients(*server, *inherited, signals);
  EROFS_OCI_TRY(notifier.stopping());
  // Calls that wait for a mount would wait for long.
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  server->Wait();
  return done;
}

/// Whether the snapshotter answers at its socket within five seconds: a call for a snapshot that is
/// not there.
Result<void> ask(std::string const& address) {
  namespace api = containerd::services::snapshots::v1;
  auto const stub = api::Snapshots::NewStub(
      grpc::CreateChannel("unix:" + address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  api::StatSnapshotRequest request;
  request.set_key("\x01 doctor");
  api::StatSnapshotResponse response;
  auto const status = stub->Stat(&context, request, &response);
  if (status.ok() || status.error_code() == grpc::StatusCode::NOT_FOUND) return {};
  return tl::unexpected(erofs_oci::explain(erofs_oci::Errc::unavailable, status.error_message()));
}

/// @return  the exit status: 1 if something has failed
int run_doctor(Config const& config, DoctorOptions const& options, bool as_json) {
  auto const findings = diagnose(config, options);
  auto const text = as_json ? findings_json(findings) : findings_text(findings);
  std::fputs(text.c_str(), stdout);
  return mount_oci::has_failed(findings) ? 1 : 0;
}

int report(Result<void> const& done) {
  if (done) return 0;
  say(done.error().message());
  return 1;
}

int main_of(int argc, char** argv) {
  CLI::App app("Snapshots for containerd: images that are mounted and not unpacked.",
               "oci-snapshotter");
  std::string path;
  std::optional<std::string> root;
  std::optional<std::string> address;
  app.set_version_flag("--version", "oci-snapshotter (erofs_oci) " OCI_SNAPSHOTTER_VERSION);
  app.add_option(
      "--config", path,
      std::string("configuration file; default: ") + default_config + ", if it is there");
  app.add_option("--root", root, "directory of all that is kept, in place of `root`");
  app.add_option("--address", address, "unix socket to serve at, in place of `address`");
  auto* const config_command = app.add_subcommand("config", "looks at the configuration file");
  config_command->add_subcommand("check", "says what is wrong with it");
  config_command->require_subcommand(1);
  DoctorOptions doctor;
  auto as_json = false;
  auto* const doctor_command = app.add_subcommand(
      "doctor",
      "says what is wrong around it, and what to do; exit status 1 if anything has failed");
  doctor_command->add_flag("--json", as_json,
                           "one JSON object: checks, a list of check, state, text, advice");
  doctor_command->add_option("--containerd", doctor.program, "containerd's program");
  doctor_command->add_option("--containerd-config", doctor.containerd_config,
                             "containerd's configuration file");
  app.require_subcommand(0, 1);
  CLI11_PARSE(app, argc, argv);

  auto config = read_config(path);
  if (!config) return report(erofs_oci::fail(std::move(config).error()));
  if (root) config->root = *root;
  if (address) config->address = *address;
  if (auto const sound = check_config(*config); !sound) return report(sound);
  if (doctor_command->parsed()) {
    doctor.ask = [&] { return ask(config->address); };
    return run_doctor(*config, doctor, as_json);
  }
  if (!config_command->parsed()) return report(serve(*config));
  if (auto const files = LoginSources().open(*config); !files) return report(files);
  std::printf("%s: nothing is wrong with it\n", path.empty() ? default_config : path.c_str());
  return 0;
}

}  // namespace
}  // namespace oci_snapshotter

int main(int argc, char** argv) {
  try {
    auto const name = std::filesystem::path(argc > 0 ? argv[0] : "").filename();
    if (name == oci_snapshotter::login_helper_program) {
      return oci_snapshotter::run_credential_helper(argc == 2 ? argv[1] : "");
    }
    return oci_snapshotter::main_of(argc, argv);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "oci-snapshotter: %s\n", error.what());
  }
  return 1;
}
