// SPDX-License-Identifier: Apache-2.0
#include "registry.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <variant>

#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <httplib.h>
#include <nlohmann/json.hpp>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/manifest.hpp>
#include <erofs_oci/posix/host_port.hpp>
#include <erofs_oci/source/local.hpp>

#include "layout_store.hpp"

namespace mount_oci {
namespace {

/// Compares in a time that tells nothing of the right text but its length.
bool is_same_secret(std::string_view given, std::string_view right) {
  auto different = given.size() ^ right.size();
  for (std::size_t i = 0; i < given.size() && !right.empty(); ++i) {
    different |= static_cast<unsigned char>(given[i] ^ right[i % right.size()]);
  }
  return different == 0;
}

using erofs_oci::fail;
using erofs_oci::fail_errno;
using erofs_oci::HostPort;
using erofs_oci::Local;
using Json = nlohmann::json;
using SteadyTime = std::chrono::steady_clock::time_point;

constexpr std::size_t threads = 1024;          // each connection that is kept alive holds one
constexpr std::size_t piece_size = 64 * 1024;  // bytes a write

// ---------------------------------------------------------------- sockets behind httplib's back

/// Calls `visit(fd)` for each TCP socket of this process.
template <class Visit>
void for_each_socket(Visit visit) {
  std::error_code none;
  for (auto const& entry : std::filesystem::directory_iterator("/proc/self/fd", none)) {
    auto const fd = std::stoi(entry.path().filename());
    int type = 0;
    socklen_t length = sizeof type;
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM) continue;
    visit(fd);
  }
}

/// The port of the peer of a socket, or -1.
int peer_port(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return -1;
  if (address.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<sockaddr_in const*>(&address)->sin_port);
  }
  if (address.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<sockaddr_in6 const*>(&address)->sin6_port);
  }
  return -1;
}

/// Sends a TCP reset to whom a request came from: connect(2) to "unspecified" does that.
void reset_connection(int remote_port) {
  for_each_socket([&](int fd) {
    if (peer_port(fd) != remote_port) return;
    sockaddr nowhere{};
    nowhere.sa_family = AF_UNSPEC;
    ::connect(fd, &nowhere, sizeof nowhere);
  });
}

/// httplib's backlog of 5 costs a client a second for the sixth connection at once.
void widen_backlogs() {
  for_each_socket([](int fd) {
    int listening = 0;
    socklen_t length = sizeof listening;
    ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length);
    if (listening != 0) ::listen(fd, 256);
  });
}

/// Ends all connections, so that no thread waits out an idle one.
void end_connections() {
  for_each_socket([](int fd) {
    if (peer_port(fd) >= 0) ::shutdown(fd, SHUT_RDWR);
  });
}

// ---------------------------------------------------------------- state

/// What clients did. Shown by GET /_stats.
struct Counters {
  std::atomic<std::uint64_t> requests{0};  ///< all but those to /_stats
  std::atomic<std::uint64_t> manifest_requests{0};
  std::atomic<std::uint64_t> token_requests{0};
  std::atomic<std::uint64_t> blob_requests{0};   ///< GETs that blob bytes were asked with
  std::atomic<std::uint64_t> range_requests{0};  ///< those of them with a Range
  std::atomic<std::uint64_t> redirects{0};
  std::atomic<std::uint64_t> faults{0};        ///< answers that were made wrong on purpose
  std::atomic<std::uint64_t> leaked{0};        ///< credentials sent to the redirected host
  std::atomic<std::uint64_t> bytes{0};         ///< blob bytes sent
  std::atomic<std::uint64_t> uploads{0};       ///< blobs that were pushed
  std::atomic<std::uint64_t> upload_parts{0};  ///< PATCHes
  std::atomic<std::uint64_t> mounts{0};        ///< blobs that were taken from another repository

  [[nodiscard]] std::string json() const {
    Json const all = {
        {"requests", requests.load()},
        {"manifest_requests", manifest_requests.load()},
        {"token_requests", token_requests.load()},
        {"blob_requests", blob_requests.load()},
        {"range_requests", range_requests.load()},
        {"redirects", redirects.load()},
        {"faults", faults.load()},
        {"leaked_credentials", leaked.load()},
        {"bytes", bytes.load()},
        {"uploads", uploads.load()},
        {"upload_parts", upload_parts.load()},
        {"mounts", mounts.load()},
    };
    return all.dump() + "\n";
  }

  void reset() noexcept {
    for (auto* counter :
         {&requests, &manifest_requests, &token_requests, &blob_requests, &range_requests,
          &redirects, &faults, &leaked, &bytes, &uploads, &upload_parts, &mounts}) {
      counter->store(0);
    }
  }
};

/// Random texts that mean something until they expire.
class Tickets {
 public:
  /// A new one that stands for `meaning`.
  [[nodiscard]] std::string issue(std::string meaning, std::chrono::seconds life) {
    erofs_oci::Bytes raw(16);
    if (::getrandom(raw.data(), raw.size(), 0) != static_cast<ssize_t>(raw.size())) return {};
    auto ticket = erofs_oci::hex(raw);
    auto const now = std::chrono::steady_clock::now();
    std::lock_guard const lock(mutex_);
    std::erase_if(tickets_, [&](auto const& entry) { return entry.second.end < now; });
    tickets_[ticket] = {std::move(meaning), now + life};
    return ticket;
  }

  /// Whether it was issued for `meaning` and is still good.
  [[nodiscard]] bool is_good(std::string const& ticket, std::string const& meaning) const {
    std::lock_guard const lock(mutex_);
    auto const found = tickets_.find(ticket);
    return found != tickets_.end() && found->second.meaning == meaning &&
           std::chrono::steady_clock::now() < found->second.end;
  }

 private:
  struct Ticket {
    std::string meaning;
    SteadyTime end;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Ticket> tickets_;
};

/// The one range that a request asks for, cut at the blob's size.
struct Range {
  enum class Kind { whole, part, unsatisfiable };
  Kind kind = Kind::whole;
  std::uint64_t first = 0;
  std::uint64_t length = 0;

  /// Several ranges are answered with the whole blob, which every server may do.
  [[nodiscard]] static Range of(httplib::Request const& request, std::uint64_t size) {
    if (request.ranges.size() != 1) return {Kind::whole, 0, size};
    auto const [from, to] = request.ranges.front();
    if (from < 0) {  // the last `to` bytes
      auto const length = std::min(size, static_cast<std::uint64_t>(std::max<ssize_t>(to, 0)));
      return {length > 0 ? Kind::part : Kind::unsatisfiable, size - length, length};
    }
    auto const first = static_cast<std::uint64_t>(from);
    if (first >= size) return {Kind::unsatisfiable, 0, 0};
    auto const last = to < 0 ? size - 1 : std::min(size - 1, static_cast<std::uint64_t>(to));
    if (last < first) return {Kind::unsatisfiable, 0, 0};
    return {Kind::part, first, last - first + 1};
  }
};

/// A blob answer, as it is written out.
struct Body {
  std::shared_ptr<Local const> file;
  std::uint64_t next = 0;  ///< offset of the next byte
  std::uint64_t left = 0;  ///< bytes that will still be sent
  std::uint64_t flip = 0;  ///< offset of a byte to corrupt; 0 is none
  bool broken = false;     ///< the connection ends behind them
  bool reset = false;      ///< and with a TCP reset
};

// ---------------------------------------------------------------- the server

class Registry {
 public:
  Registry(RegistryOptions const& options, LayoutStore store, std::string password)
      : options_(options), store_(std::move(store)) {
    if (!options.username.empty()) {
      basic_ = httplib::make_basic_authentication_header(options.username, password).second;
    }
    main_ = make_server();
    add_routes(*main_);
    if (options_.redirect_ttl) {
      storage_ = make_server();
      storage_->Get(R"(/blobs/([a-z0-9:]+))", [this](auto const& request, auto& response) {
        begin();
        serve_presigned(request, response);
      });
    }
  }

  /// Takes the addresses; yields this registry's URL.
  Result<std::string> bind(HostPort address) {
    if (!main_->is_valid() || (storage_ && !storage_->is_valid())) {
      return fail(Errc::invalid_argument,
                  options_.certificate + ", " + options_.key + ": not a certificate and its key");
    }
    auto const port = bind_one(*main_, address.host, address.port);
    if (port < 0) return fail_errno(errno, address.text());
    address.port = static_cast<std::uint16_t>(port);
    if (storage_) {
      storage_port_ = bind_one(*storage_, address.host, 0);
      if (storage_port_ < 0) return fail_errno(errno, address.host);
    }
    widen_backlogs();
    return scheme() + address.text();
  }

  /// Answers until stop().
  void run() {
    std::jthread const storage([this] {
      if (storage_) storage_->listen_after_bind();
    });
    main_->listen_after_bind();
  }

  void stop() {
    stopping_ = true;
    main_->stop();
    if (storage_) storage_->stop();
    end_connections();
  }

  [[nodiscard]] Counters const& counters() const noexcept { return counters_; }

 private:
  using Request = httplib::Request;
  using Response = httplib::Response;

  [[nodiscard]] std::string scheme() const {
    return options_.certificate.empty() ? "http://" : "https://";
  }

  [[nodiscard]] std::unique_ptr<httplib::Server> make_server() const {
    auto server = options_.certificate.empty()
                      ? std::make_unique<httplib::Server>()
                      : std::make_unique<httplib::SSLServer>(options_.certificate.c_str(),
                                                             options_.key.c_str());
    // NOLINTNEXTLINE: httplib owns and deletes the queue
    server->new_task_queue = [] { return new httplib::ThreadPool(threads); };
    server->set_tcp_nodelay(true);
    server->set_keep_alive_max_count(1'000'000);
    server->set_keep_alive_timeout(60);
    return server;
  }

  static int bind_one(httplib::Server& server, std::string const& host, std::uint16_t port) {
    if (port == 0) return server.bind_to_any_port(host);
    return server.bind_to_port(host, port) ? port : -1;
  }

  void add_routes(httplib::Server& server) {
    using Handler = void (Registry::*)(Request const&, Response&);
    auto const route = [&](char const* pattern, Handler handler) {
      server.Get(pattern, [this, handler](Request const& request, Response& response) {
        begin();
        if (authorize(request, response)) (this->*handler)(request, response);
      });
    };
    route(R"(/v2/?)", &Registry::serve_base);
    route(R"(/v2/(.+)/manifests/([^/]+))", &Registry::serve_manifest);
    route(R"(/v2/(.+)/blobs/([^/]+))", &Registry::serve_blob);
    route(R"(/v2/(.+)/tags/list)", &Registry::serve_tags);
    if (options_.pushes && options_.referrers) {
      route(R"(/v2/(.+)/referrers/([^/]+))", &Registry::serve_referrers);
    }
    if (options_.pushes) add_push_routes(server);
    server.Get("/_token", [this](Request const& request, Response& response) {
      begin();
      serve_token(request, response);
    });
    server.Get("/_stats", [this](Request const&, Response& response) {
      answer(response, 200, "application/json", counters_.json());
    });
    server.Post("/_stats/reset", [this](Request const&, Response& response) {
      counters_.reset();
      answer(response, 200, "application/json", counters_.json());
    });
  }

  void add_push_routes(httplib::Server& server) {
    using Handler = void (Registry::*)(Request const&, Response&);
    auto const pushing = [this](Handler handler) {
      return [this, handler](Request const& request, Response& response) {
        begin();
        if (authorize(request, response, "push")) (this->*handler)(request, response);
      };
    };
    constexpr auto const* upload = R"(/v2/(.+)/blobs/uploads/([0-9a-f]+))";
    server.Post(R"(/v2/(.+)/blobs/uploads/?)", pushing(&Registry::begin_upload));
    server.Get(upload, pushing(&Registry::show_upload));
    server.Patch(upload, pushing(&Registry::go_on_upload));
    server.Put(upload, pushing(&Registry::end_upload));
    server.Put(R"(/v2/(.+)/manifests/([^/]+))", pushing(&Registry::take_manifest));
  }

  void begin() {
    counters_.requests += 1;
    pause(options_.latency);
  }

  /// Sleeps, but not past stop().
  void pause(std::chrono::nanoseconds time) const {
    auto const end = std::chrono::steady_clock::now() + time;
    for (;;) {
      auto const left = end - std::chrono::steady_clock::now();
      if (left <= std::chrono::nanoseconds(0) || stopping_) return;
      std::this_thread::sleep_for(
          std::min<std::chrono::nanoseconds>(left, std::chrono::milliseconds(50)));
    }
  }

  /// A whole answer from memory. Written by hand, so that httplib neither compresses nor cuts it.
  static void answer(Response& response, int status, char const* type, std::string body) {
    response.status = status;
    response.set_header("Content-Length", std::to_string(body.size()));
    response.set_content_provider(type,
                                  [text = std::move(body)](std::size_t, httplib::DataSink& sink) {
                                    if (!sink.write(text.data(), text.size())) return false;
                                    sink.done();
                                    return true;
                                  });
  }

  static void answer_json(Response& response, int status, Json const& body) {
    answer(response, status, "application/json", body.dump());
  }

  static void refuse(Response& response, int status, char const* code, std::string const& message) {
    answer_json(response, status, {{"errors", {{{"code", code}, {"message", message}}}}});
  }

  // ---- who may ask

  [[nodiscard]] bool authorize(Request const& request, Response& response,
                               char const* what = "pull") {
    auto const given = request.get_header_value("Authorization");
    if (options_.token_ttl) {
      constexpr std::string_view bearer = "Bearer ";
      auto const pulls = std::string_view(what) == "pull";
      if (given.starts_with(bearer) &&
          (tokens_.is_good(given.substr(bearer.size()), "push") ||
           (pulls && tokens_.is_good(given.substr(bearer.size()), what)))) {
        return true;
      }
      auto const name = request.matches.size() > 1 ? request.matches[1].str() : std::string();
      response.set_header("WWW-Authenticate",
                          "Bearer realm=\"" + scheme() + request.get_header_value("Host") +
                              "/_token\",service=\"mount-oci\"" +
                              (name.empty() ? ""
                                            : ",scope=\"repository:" + name +
                                                  (pulls ? ":pull\"" : ":pull,push\"")) +
                              (given.empty() ? "" : ",error=\"invalid_token\""));
    } else {
      if (basic_.empty() || is_same_secret(given, basic_)) return true;
      response.set_header("WWW-Authenticate", "Basic realm=\"mount-oci\"");
    }
    refuse(response, 401, "UNAUTHORIZED", "authentication required");
    return false;
  }

  void serve_token(Request const& request, Response& response) {
    counters_.token_requests += 1;
    if (!options_.token_ttl) return refuse(response, 404, "UNSUPPORTED", "no tokens here");
    if (!basic_.empty() && !is_same_secret(request.get_header_value("Authorization"), basic_)) {
      return refuse(response, 401, "UNAUTHORIZED", "wrong user name or password");
    }
    auto pushes = false;
    for (std::size_t i = 0; i < request.get_param_value_count("scope"); ++i) {
      pushes = pushes || request.get_param_value("scope", i).ends_with(":pull,push");
    }
    auto const token = tokens_.issue(pushes ? "push" : "pull", *options_.token_ttl);
    answer_json(response, 200, {{"token", token}, {"expires_in", options_.token_ttl->count()}});
  }

  // ---- what there is

  void serve_base(Request const&, Response& response) {
    response.set_header("Docker-Distribution-API-Version", "registry/2.0");
    answer_json(response, 200, Json::object());
  }

  void serve_tags(Request const& request, Response& response) {
    answer_json(response, 200, {{"name", request.matches[1].str()}, {"tags", store_.tags()}});
  }

  void serve_manifest(Request const& request, Response& response) {
    counters_.manifest_requests += 1;
    auto const reference = request.matches[2].str();
    auto manifest = store_.manifest(reference);
    if (!manifest) return refuse(response, 404, "MANIFEST_UNKNOWN", reference);
    response.set_header("Docker-Content-Digest", manifest->digest);
    answer(response, 200, manifest->media_type.c_str(), std::move(manifest->body));
  }

  void serve_blob(Request const& request, Response& response) {
    auto const digest = request.matches[2].str();
    auto const path = store_.blob_path(digest);
    if (!path) return refuse(response, 404, "BLOB_UNKNOWN", digest);
    if (!storage_) return serve_bytes(request, response, *path, digest);
    counters_.redirects += 1;
    auto host = request.get_header_value("Host");
    host = host.substr(0, host.rfind(':'));
    auto const ticket = tickets_.issue(digest, *options_.redirect_ttl);
    response.set_header("Location",
                        scheme() + host + ":" + std::to_string(storage_port_) + "/blobs/" + digest +
                            "?X-Amz-Expires=" + std::to_string(options_.redirect_ttl->count()) +
                            "&signature=" + ticket);
    answer(response, 307, "text/plain", "");
  }

  /// The other host of a presigned URL: it knows no credentials and, as object stores do, refuses
  /// a request that carries some.
  void serve_presigned(Request const& request, Response& response) {
    auto const digest = request.matches[1].str();
    if (request.has_header("Authorization")) {
      counters_.leaked += 1;
      return refuse(response, 400, "DENIED", "only one way to authenticate is allowed");
    }
    if (!tickets_.is_good(request.get_param_value("signature"), digest)) {
      return refuse(response, 403, "DENIED", "the URL has expired");
    }
    auto const path = store_.blob_path(digest);
    if (!path) return refuse(response, 404, "BLOB_UNKNOWN", digest);
    serve_bytes(request, response, *path, digest);
  }

  void serve_referrers(Request const& request, Response& response) {
    auto const wanted = request.get_param_value("artifactType");
    auto found = store_.referrers(request.matches[2].str());
    if (!wanted.empty()) {
      std::erase_if(found, [&](auto const& at) { return at.artifact_type != wanted; });
      response.set_header("OCI-Filters-Applied", "artifactType");
    }
    erofs_oci::Index index;
    index.media_type = erofs_oci::media_type::oci_index;
    index.manifests = std::move(found);
    answer(response, 200, index.media_type.c_str(), erofs_oci::encode(index));
  }

  // ---- uploads @spec{OCI distribution-spec 1.1, pushing blobs}

  void begin_upload(Request const& request, Response& response) {
    if (auto const digest = request.get_param_value("mount"); !digest.empty()) {
      auto const from = request.get_param_value("from");
      if (!from.empty() && store_.blob_path(digest)) {
        counters_.mounts += 1;
        return answer(response, 201, "text/plain", "");
      }
    }
    auto const id = tokens_.issue("upload", std::chrono::hours(1));
    {
      std::lock_guard const lock(uploads_mutex_);
      uploads_[id] = {};
    }
    answer_upload(request, response, id, 202, 0);
  }

  void answer_upload(Request const& request, Response& response, std::string const& id, int status,
                     std::size_t size) {
    response.set_header("Location", "/v2/" + request.matches[1].str() + "/blobs/uploads/" + id);
    response.set_header("Range", "0-" + std::to_string(size == 0 ? 0 : size - 1));
    answer(response, status, "text/plain", "");
  }

  void show_upload(Request const& request, Response& response) {
    auto const id = request.matches[2].str();
    std::lock_guard const lock(uploads_mutex_);
    auto const found = uploads_.find(id);
    if (found == uploads_.end()) return refuse(response, 404, "BLOB_UPLOAD_UNKNOWN", id);
    answer_upload(request, response, id, 204, found->second.size());
  }

  void go_on_upload(Request const& request, Response& response) {
    auto const id = request.matches[2].str();
    counters_.upload_parts += 1;
    std::lock_guard const lock(uploads_mutex_);
    auto const found = uploads_.find(id);
    if (found == uploads_.end()) return refuse(response, 404, "BLOB_UPLOAD_UNKNOWN", id);
    auto const range = request.get_header_value("Content-Range");
    if (!range.starts_with(std::to_string(found->second.size()) + "-")) {
      return refuse(response, 416, "BLOB_UPLOAD_INVALID", "out of order");
    }
    found->second += request.body;
    answer_upload(request, response, id, 202, found->second.size());
  }

  void end_upload(Request const& request, Response& response) {
    auto const id = request.matches[2].str();
    auto const digest = request.get_param_value("digest");
    std::string bytes;
    {
      std::lock_guard const lock(uploads_mutex_);
      auto const found = uploads_.find(id);
      if (found == uploads_.end()) return refuse(response, 404, "BLOB_UPLOAD_UNKNOWN", id);
      bytes = std::move(found->second) + request.body;
      uploads_.erase(found);
    }
    auto const kept = store_.add_blob(digest, bytes);
    if (!kept) return refuse(response, 500, "UNKNOWN", kept.error().message());
    if (!*kept) return refuse(response, 400, "DIGEST_INVALID", digest);
    counters_.uploads += 1;
    response.set_header("Docker-Content-Digest", digest);
    answer(response, 201, "text/plain", "");
  }

  void take_manifest(Request const& request, Response& response) {
    auto const kept = store_.add_manifest(request.matches[2].str(), request.body);
    if (!kept) return refuse(response, 400, "MANIFEST_INVALID", kept.error().message());
    auto const document = erofs_oci::parse_document(erofs_oci::as_bytes(request.body));
    auto const* const manifest = document ? std::get_if<erofs_oci::Manifest>(&*document) : nullptr;
    if (manifest != nullptr && manifest->subject && options_.referrers) {
      response.set_header("OCI-Subject", manifest->subject->digest.to_string());
    }
    response.set_header("Docker-Content-Digest", *kept);
    answer(response, 201, "text/plain", "");
  }

  // ---- blob bytes

  void serve_bytes(Request const& request, Response& response, std::string const& path,
                   std::string const& digest) {
    auto file = Local::open(path);
    if (!file) return refuse(response, 500, "UNKNOWN", file.error().message());
    auto const size = file->size();
    auto range = Range::of(request, size);
    auto const is_get = request.method == "GET";
    auto fault = Fault::none;
    if (is_get) {
      auto const number = counters_.blob_requests += 1;
      if (options_.fail_every > 0 && number % options_.fail_every == 0) {
        counters_.faults += 1;
        return refuse(response, options_.fail_status, "UNAVAILABLE", "failed on purpose");
      }
      if (range.kind != Range::Kind::whole) {
        auto const ranged = counters_.range_requests += 1;
        if (ranged % options_.fault_every == 0) fault = options_.fault;
      }
    }
    if (range.kind == Range::Kind::unsatisfiable) {
      response.set_header("Content-Range", "bytes */" + std::to_string(size));
      return refuse(response, 416, "RANGE_INVALID", "outside the blob");
    }
    if (fault != Fault::none) counters_.faults += 1;
    if (fault == Fault::hang) return pause(std::chrono::hours(24));
    if (fault == Fault::ignore_range) range = {Range::Kind::whole, 0, size};
    set_blob_headers(response, range, size, digest, fault);
    send(request, response, body_of(std::make_shared<Local const>(*std::move(file)), range, fault));
  }

  static void set_blob_headers(Response& response, Range const& range, std::uint64_t size,
                               std::string const& digest, Fault fault) {
    response.status = 200;
    if (range.kind == Range::Kind::part) {
      response.status = 206;
      auto const shift = fault == Fault::wrong_range ? 1u : 0u;
      auto const total = fault == Fault::wrong_total ? size + 1 : size;
      response.set_header("Content-Range",
                          "bytes " + std::to_string(range.first + shift) + "-" +
                              std::to_string(range.first + range.length - 1 + shift) + "/" +
                              std::to_string(total));
    }
    response.set_header("Accept-Ranges", "bytes");
    response.set_header("Content-Length", std::to_string(range.length));
    response.set_header("Docker-Content-Digest", digest);
    if (fault == Fault::encoded) response.set_header("Content-Encoding", "gzip");
  }

  static Body body_of(std::shared_ptr<Local const> file, Range const& range, Fault fault) {
    Body body{std::move(file), range.first, range.length};
    if (fault == Fault::short_body || fault == Fault::reset) {
      body.left /= 2;
      body.broken = true;
      body.reset = fault == Fault::reset;
    }
    if (fault == Fault::corrupt) body.flip = range.first + range.length / 2;
    return body;
  }

  void send(Request const& request, Response& response, Body body) {
    auto const provide = [this, port = request.remote_port, body](std::size_t,
                                                                  httplib::DataSink& sink) mutable {
      if (body.left > 0) return send_piece(body, sink);
      if (body.reset) reset_connection(port);
      if (!body.broken) sink.done();
      return !body.broken;
    };
    response.set_content_provider("application/octet-stream", provide);
  }

  bool send_piece(Body& body, httplib::DataSink& sink) {
    std::array<std::byte, piece_size> buffer;
    auto const piece = std::span(buffer).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(body.left, piece_size)));
    if (options_.bandwidth > 0) {
      pause(std::chrono::nanoseconds(piece.size() * 1'000'000'000u / options_.bandwidth));
    }
    if (stopping_ || !erofs_oci::read_exact(*body.file, body.next, piece)) return false;
    if (body.flip >= body.next && body.flip - body.next < piece.size() && body.flip > 0) {
      piece[static_cast<std::size_t>(body.flip - body.next)] ^= std::byte{0x20};
    }
    auto const text = erofs_oci::as_text(piece);
    counters_.bytes += piece.size();  // before anybody can have them and ask for the count
    if (!sink.write(text.data(), text.size())) return false;
    body.next += piece.size();
    body.left -= piece.size();
    return true;
  }

  RegistryOptions const& options_;
  LayoutStore store_;
  std::string basic_;  ///< the Authorization that is asked for, or empty
  Tickets tokens_;
  Tickets tickets_;
  Counters counters_;
  std::atomic<bool> stopping_{false};
  std::mutex uploads_mutex_;
  std::map<std::string, std::string> uploads_;  ///< what has come of each, by its id
  std::unique_ptr<httplib::Server> main_;
  std::unique_ptr<httplib::Server> storage_;  ///< where blobs are redirected to, or empty
  int storage_port_ = -1;
};

Result<void> write_text(std::string const& path, std::string const& text) {
  UniqueFd const fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, path);
  return erofs_oci::write_full(fd.get(), erofs_oci::as_bytes(text));
}

}  // namespace

Result<void> run_registry(RegistryOptions const& options) {
  EROFS_OCI_TRY_ASSIGN(auto const signals, Signals::take());
  EROFS_OCI_TRY_ASSIGN(auto address, HostPort::parse(options.listen, "127.0.0.1"), "--listen");
  std::string password;
  if (!options.password_file.empty()) {
    EROFS_OCI_TRY_ASSIGN(password, erofs_oci::read_password_file(options.password_file),
                         "--password-file");
    hide_memory();
  }
  EROFS_OCI_TRY_ASSIGN(auto store, LayoutStore::open(options.directory));

  Registry registry(options, std::move(store), std::move(password));
  EROFS_OCI_TRY_ASSIGN(auto const url, registry.bind(std::move(address)), "registry");
  std::printf("%s\n", url.c_str());
  std::fflush(stdout);
  {
    std::jthread const server([&] { registry.run(); });
    static_cast<void>(signals.wait());
    registry.stop();
  }
  if (options.count.empty()) return {};
  return write_text(options.count, registry.counters().json());
}

}  // namespace mount_oci
