// SPDX-License-Identifier: Apache-2.0
// doctor: finds out in three seconds why an image cannot be mounted, or is slow.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <iomanip>
#include <locale>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <erofs_oci/core/text.hpp>
#include <erofs_oci/host/choose_mount.hpp>
#include <erofs_oci/host/host_support.hpp>
#include <erofs_oci/http/registry.hpp>
#include <erofs_oci/image/image_name.hpp>

#include "find_image.hpp"
#include "finding.hpp"
#include "progress.hpp"
#include "reading.hpp"

namespace mount_oci {
namespace {

using erofs_oci::Descriptor;
using erofs_oci::HttpHead;
using erofs_oci::HttpRequest;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto doctor_time = 2800ms;  // for everything; the rest of 3 s is for the output
constexpr auto round_time = 300ms;    // for each number of connections
constexpr std::uint64_t probe_size = 256 * 1024;
constexpr std::uint64_t most_probes = 64;  // a round: 16 MiB

// ---------------------------------------------------------------- what was found

using Health = Finding::State;

/// What the checks have found so far, of one thread for another.
class Findings {
 public:
  void add(Finding finding) {
    std::lock_guard const lock(mutex_);
    list_.push_back(std::move(finding));
  }

  void finish() {
    std::lock_guard const lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }

  /// All findings once the checks have ended, or those that there are at the deadline.
  std::vector<Finding> wait_until(steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    auto const in_time = changed_.wait_until(lock, deadline, [this] { return finished_; });
    auto list = list_;
    if (!in_time) {
      list.push_back(
          {"time", Health::failed, "not all checks have ended within three seconds",
           "the last check above, or the one after it, waits: look up the registry's name "
           "with getent hosts, and try its credential helper by hand"});
    }
    return list;
  }

  [[nodiscard]] bool finished() {
    std::lock_guard const lock(mutex_);
    return finished_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Finding> list_;
  bool finished_ = false;
};

// ---------------------------------------------------------------- what the registry answers

struct Exchange {
  erofs_oci::Url url;
  std::optional<HttpHead> head;  ///< empty: none came
  milliseconds time{};           ///< until the head
};

/// What has been exchanged so far, of many threads.
class Exchanges {
 public:
  void add(Exchange one) {
    std::lock_guard const lock(mutex_);
    if (list_.size() < 64) list_.push_back(std::move(one));
  }

  [[nodiscard]] std::vector<Exchange> all() const {
    std::lock_guard const lock(mutex_);
    return list_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Exchange> list_;
};

/// HttplibTransport with a deadline for all, whose exchanges can be looked at.
class WatchedTransport {
 public:
  WatchedTransport(erofs_oci::HttplibTransport inner, steady_clock::time_point deadline,
                   std::shared_ptr<Exchanges> exchanges)
      : inner_(std::move(inner)), deadline_(deadline), exchanges_(std::move(exchanges)) {}

  [[nodiscard]] Result<void> exchange(HttpRequest const& request, erofs_oci::HttpHeadSink head,
                                      erofs_oci::ByteSink body) const {
    auto hurried = request;
    hurried.deadline = std::min(request.deadline, deadline_);
    auto const begin = steady_clock::now();
    Exchange one{request.url, std::nullopt, {}};
    auto const done = inner_.exchange(
        hurried,
        [&](HttpHead const& answer) {
          one.head = answer;
          one.time = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
          return head(answer);
        },
        body);
    exchanges_->add(std::move(one));
    return done;
  }

 private:
  erofs_oci::HttplibTransport inner_;
  steady_clock::time_point deadline_;
  std::shared_ptr<Exchanges> exchanges_;
};

using WatchedRegistry = erofs_oci::BasicRegistry<WatchedTransport>;

/// A date of HTTP.
/// @spec{RFC 9110 5.6.7, IMF-fixdate}
std::optional<std::time_t> parse_date(std::string_view text, char const* format) {
  std::tm parts{};
  std::istringstream in{std::string(text)};
  in.imbue(std::locale::classic());
  in >> std::get_time(&parts, format);
  if (in.fail()) return std::nullopt;
  return ::timegm(&parts);
}

std::optional<std::string> query_value(erofs_oci::Url const& url, std::string_view key) {
  auto const begin = std::min(url.target.find('?'), url.target.size());
  for (std::string_view rest(url.target.data() + begin, url.target.size() - begin);
       !rest.empty();) {
    rest.remove_prefix(1);
    auto const pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(pair.size());
    auto const equals = std::min(pair.find('='), pair.size());
    if (erofs_oci::equal_ignoring_case(pair.substr(0, equals), key)) {
      return std::string(pair.substr(std::min(equals + 1, pair.size())));
    }
  }
  return std::nullopt;
}

/// For how many seconds a signed URL is good, as far as its query tells: S3, Google, CloudFront and
/// Azure.
std::optional<std::int64_t> lifetime_of(erofs_oci::Url const& url, std::time_t now) {
  for (auto const* const key : {"X-Amz-Expires", "X-Goog-Expires"}) {
    if (auto const value = query_value(url, key)) {
      return erofs_oci::whole_number<std::int64_t>(*value);
    }
  }
  for (auto const* const key : {"Expires", "expires"}) {
    auto const value = query_value(url, key);
    auto const at = value ? erofs_oci::whole_number<std::int64_t>(*value) : std::nullopt;
    if (at) return *at - now;
  }
  auto until = query_value(url, "se");
  if (!until) return std::nullopt;
  for (auto at = until->find("%3A"); at != until->npos; at = until->find("%3A")) {
    until->replace(at, 3, ":");
  }
  auto const at = parse_date(*until, "%Y-%m-%dT%H:%M:%S");
  return at ? std::optional<std::int64_t>(*at - now) : std::nullopt;
}

// ---------------------------------------------------------------- the checks

class Doctor {
 public:
  Doctor(ImageOptions options, Findings& findings, steady_clock::time_point deadline)
      : options_(std::move(options)), findings_(findings), deadline_(deadline) {}

  void run(erofs_oci::HostSupport const& host, Log const& log) {
    machine(host);
    auto const name = erofs_oci::ImageName::parse(options_.image);
    if (name.place != erofs_oci::ImagePlace::registry) return local(log);
    auto reference = erofs_oci::Reference::parse(name.path);
    if (!reference) {
      return fails("name", reference.error(),
                   "write [REGISTRY/]REPOSITORY[:TAG], oci:DIRECTORY or file:PATH");
    }
    host_ = reference->registry;
    auto wide = options_;
    wide.connections = 8;  // kept, or throughput() would measure how they are set up
    auto const access = registry_access(host_, wide, log);
    if (!access) return fails("options", access.error(), "see `mount-oci mount --help`");
    auto settings = access->settings;
    settings.limits.total = doctor_time;
    settings.limits.connect = 1500ms;
    auto const transport_of = [&](erofs_oci::RegistryHost const& one) -> Result<WatchedTransport> {
      EROFS_OCI_TRY_ASSIGN(auto transport, access->transport_of(one));
      return WatchedTransport(std::move(transport), deadline_, exchanges_);
    };
    auto const registry =
        WatchedRegistry::make(*std::move(reference), std::move(settings), transport_of);
    if (!registry) return fails("options", registry.error(), "leave out oci.insecure");
    remote(*registry);
  }

 private:
  void add(std::string check, Health state, std::string text, std::string advice = {}) {
    findings_.add({std::move(check), state, std::move(text), std::move(advice)});
  }

  void fails(std::string check, Error const& error, std::string advice) {
    add(std::move(check), Health::failed, error.message(), std::move(advice));
  }

  void machine(erofs_oci::HostSupport const& host) {
    auto const choice = erofs_oci::choose_mount(host);
    auto text = choice.summary();
    for (auto const& line : choice.passed_over()) text += "; " + line;
    if (!choice.way) {
      auto const result = choice.result();
      return add("machine", Health::failed, result ? text : result.error().message(),
                 "run as root on Linux 6.4 or later with EROFS (modprobe erofs), or install fuse3");
    }
    auto const slow = choice.way == erofs_oci::MountWay::fuse_tree;
    add("machine", slow ? Health::warning : Health::ok, std::move(text),
        slow ? "the kernel's EROFS is faster: it needs root, modprobe erofs and Linux 6.4" : "");
  }

  void local(Log const& log) {
    auto const found = find_image(options_, log);
    if (!found) return fails("image", found.error(), "check the path and the tag");
    std::uint64_t bytes = 0;
    for (auto const& layer : found->layers) bytes += layer.blob.size();
    add("image", Health::ok,
        std::to_string(found->layers.size()) + " layers on this machine, " + size_text(bytes));
  }

  void remote(WatchedRegistry const& registry) {
    auto const platform = options_.platform.empty()
                              ? Result<erofs_oci::Platform>(erofs_oci::Platform::host())
                              : erofs_oci::Platform::parse(options_.platform);
    if (!platform) return fails("options", platform.error(), "write oci.platform=OS/ARCH");
    auto const image = registry.resolve(*platform);
    auto const error = image ? Error() : image.error();
    if (!connection(error) || !login(error)) return;
    clock();
    if (!image) {
      auto const missing = error.code == Errc::not_found;
      return fails("image", error,
                   missing ? "check the repository, the tag and oci.platform"
                           : "the registry's manifest is not one; try another tag or a digest");
    }
    add("image", Health::ok,
        "manifest " + image->digest.to_string() + ", " +
            std::to_string(image->manifest.layers.size()) + " layers");
    auto const largest = std::ranges::max_element(image->manifest.layers, {}, &Descriptor::size);
    if (largest == image->manifest.layers.end() || largest->size == 0) return;
    auto const blob = registry.blob(*largest);
    if (ranges(blob)) throughput(blob);
  }

  /// Whether the registry is there, and is who it should be.
  bool connection(Error const& error) {
    auto const seen = exchanges_->all();
    auto const heard =
        std::ranges::find_if(seen, [](auto const& one) { return one.head.has_value(); });
    if (heard == seen.end()) {
      auto const is_tls = error.code == Errc::protocol && !options_.insecure;
      fails(is_tls ? "TLS" : "reachable", error,
            is_tls ? "give the authority that has signed its certificate by oci.ca=FILE, or, if it "
                     "speaks plain http, oci.insecure=1"
                   : "check the name, the port, the firewall and the variables https_proxy and "
                     "no_proxy");
      return false;
    }
    add("reachable", Health::ok,
        heard->url.host + " answers after " + std::to_string(heard->time.count()) + " ms");
    if (heard->url.is_secure()) {
      add("TLS", Health::ok, "the certificate is trusted");
    } else {
      add("TLS", Health::warning, "plain http: anybody on the way can read and change what comes",
          "leave out oci.insecure if the registry speaks https");
    }
    return true;
  }

  bool login(Error const& error) {
    auto const seen = exchanges_->all();
    auto const asked = std::ranges::any_of(
        seen, [](auto const& one) { return one.head && one.head->status == 401; });
    if (error.code == Errc::unauthorized) {
      fails(
          "login", error,
          "log in: docker login " + host_ +
              ", or oci.username=NAME,oci.password_file=FILE. A registry may also answer so for a "
              "repository that does not exist");
      return false;
    }
    add("login", Health::ok,
        asked ? "the registry asks for a login and accepts it" : "none needed");
    return true;
  }

  void clock() {
    for (auto const& one : exchanges_->all()) {
      auto const text = one.head ? one.head->find("Date") : std::nullopt;
      auto const date = text ? parse_date(*text, "%a, %d %b %Y %H:%M:%S") : std::nullopt;
      if (!date) continue;
      auto const ahead = static_cast<std::int64_t>(std::time(nullptr) - *date);
      auto const much = ahead > 60 || ahead < -60;
      return add("clock", much ? Health::warning : Health::ok,
                 much ? "this machine's clock is " + std::to_string(ahead < 0 ? -ahead : ahead) +
                            " s " + (ahead < 0 ? "behind" : "ahead of") + " the registry's"
                      : "agrees with the registry's",
                 much ? "set the clock (timedatectl set-ntp true): certificates, logins and signed "
                        "URLs have a time"
                      : "");
    }
  }

  /// Whether a part of a blob can be had by itself.
  template <class Blob>
  bool ranges(Blob const& blob) {
    auto const before = exchanges_->all().size();
    erofs_oci::Bytes bytes(static_cast<std::size_t>(std::min<std::uint64_t>(blob.size(), 4096)));
    auto const n = blob.read_at((blob.size() - bytes.size()) / 2, bytes);
    auto const seen = exchanges_->all();
    redirect(seen, before);
    auto const status = seen.size() > before && seen.back().head ? seen.back().head->status : 0;
    if (n && status == 206) {
      add("ranges", Health::ok, "parts of a layer come by themselves (206)");
      return true;
    }
    if (status == 200) {
      add("ranges", Health::failed, "the server ignores ranges (200) and sends whole layers",
          "each read costs all that lies before it: use another registry or a mirror (oci.mirror), "
          "or have the proxy in between pass the Range header on");
      return false;
    }
    auto const answer = n ? Error{make_error_code(Errc::protocol), "HTTP status", {}} : n.error();
    fails("ranges", answer,
          status == 416
              ? "the layer on the server is shorter than the manifest says (416): push the "
                "image again"
              : "the registry has the manifest and does not give the layer: try again, then "
                "push the image again or use a mirror (oci.mirror)");
    return false;
  }

  void redirect(std::vector<Exchange> const& seen, std::size_t from) {
    for (auto i = from; i < seen.size(); ++i) {
      auto const location = seen[i].head ? seen[i].head->find("Location") : std::nullopt;
      if (!location || seen[i].head->status / 100 != 3) continue;
      auto const url = seen[i].url.resolve(*location);
      if (!url) return fails("redirect", url.error(), "the registry's Location is not a URL");
      auto const life = lifetime_of(*url, std::time(nullptr));
      auto text = "layers come from " + url->authority();
      if (life) text += ", whose URLs live " + std::to_string(*life) + " s";
      auto const is_short = life && *life < 60;
      return add("redirect", is_short ? Health::warning : Health::ok, std::move(text),
                 is_short
                     ? "each of them is asked for again so often, which costs a request: a time of "
                       "ten minutes and more is usual"
                     : "");
    }
    add("redirect", Health::ok, "none: layers come from the registry itself");
  }

  /// Bytes a second with that many reads at once.
  template <class Blob>
  std::optional<std::uint64_t> speed(Blob const& blob, std::size_t connections) const {
    auto const end = std::min(steady_clock::now() + round_time, deadline_);
    std::atomic<std::uint64_t> next{0};
    std::atomic<std::uint64_t> bytes{0};
    auto const probes = std::max<std::uint64_t>(blob.size() / probe_size, 1);
    auto const begin = steady_clock::now();
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < connections; ++i) {
        threads.emplace_back([&] {
          erofs_oci::Bytes buffer(probe_size);
          while (steady_clock::now() < end) {
            auto const turn = next++;
            if (turn >= most_probes) return;
            auto const n = blob.read_at(turn % probes * probe_size, buffer);
            if (!n) return;
            bytes += *n;
          }
        });
      }
    }
    auto const took = std::chrono::duration<double>(steady_clock::now() - begin).count();
    if (bytes == 0 || took <= 0) return std::nullopt;
    return static_cast<std::uint64_t>(static_cast<double>(bytes) / took);
  }

  template <class Blob>
  void throughput(Blob const& blob) {
    constexpr std::array<std::size_t, 3> numbers{1, 4, 8};
    std::array<std::uint64_t, numbers.size()> speeds{};
    std::string text;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (steady_clock::now() + round_time > deadline_) break;
      auto const found = speed(blob, numbers[i]);
      if (!found) break;
      speeds[i] = *found;
      text += (text.empty() ? "" : ", ") + size_text(*found) + "/s with " +
              std::to_string(numbers[i]) + (numbers[i] == 1 ? " connection" : "");
    }
    if (text.empty()) {
      return add("throughput", Health::warning, "no part of a layer has come in time",
                 "the registry is slow or limits requests: use a mirror (oci.mirror) nearby");
    }
    auto const more = speeds[2] > speeds[1] + speeds[1] / 4 && options_.connections < 8;
    auto const crawls = *std::ranges::max_element(speeds) < 1'000'000;
    add("throughput", crawls ? Health::warning : Health::ok, std::move(text),
        crawls ? "less than 1 MB/s: use a mirror (oci.mirror) nearby"
        : more ? "more connections are faster: -o oci.connections=8"
               : "");
  }

  ImageOptions options_;
  Findings& findings_;
  steady_clock::time_point deadline_;
  std::string host_;
  std::shared_ptr<Exchanges> exchanges_ = std::make_shared<Exchanges>();
};

// ---------------------------------------------------------------- the report

Result<void> put(Reading const& reading, std::vector<Finding> const& findings) {
  auto& output = reading.output;
  if (reading.options.read.json) {
    return output.put_json(
        {{"image", reading.options.image.image}, {"checks", findings_value(findings)}});
  }
  for (auto const& [check, state, text, advice] : findings) {
    EROFS_OCI_TRY(
        output.put(finding_text({check, state, output.shown(text), output.shown(advice)})));
  }
  return {};
}

}  // namespace

Result<Status> run_doctor(Reading const& reading) {
  auto const deadline = steady_clock::now() + doctor_time;
  // Shared with the thread, which may wait for a resolver or a credential helper after the
  // deadline.
  auto const findings = std::make_shared<Findings>();
  std::thread([findings, deadline, options = reading.options.image, host = reading.host,
               verbosity = 0] {
    Log const log(verbosity);
    auto const done = erofs_oci::without_throwing([&]() -> Result<void> {
      Doctor(options, *findings, deadline).run(host, log);
      return {};
    });
    if (!done) findings->add({"memory", Health::failed, done.error().message(), {}});
    findings->finish();
  }).detach();
  auto const list = findings->wait_until(deadline + 100ms);
  EROFS_OCI_TRY(put(reading, list));
  if (findings->finished()) return has_failed(list) ? 1 : 0;
  EROFS_OCI_TRY(reading.output.flush());
  std::_Exit(1);  // not through destructors, which the thread still uses
}

}  // namespace mount_oci
