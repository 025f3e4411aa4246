// SPDX-License-Identifier: Apache-2.0
#include "mount_report.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/json.hpp>

#include "metrics.hpp"

namespace mount_oci {

namespace {

using erofs_oci::json::Value;

constexpr std::array<std::string_view, 3> state_names{"proved", "pending", "failed"};
constexpr std::size_t most_listed = 256;

/// At most so many characters, all printable.
std::string plain(std::string text, std::size_t most = 300) {
  text.resize(std::min(text.size(), most));
  std::ranges::replace_if(text, [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

/// The part of the counts that is in JSON, in one line.
std::string lists_text(WorkerCounts const& counts) {
  Value lists{{"layers", Value::array()},
              {"names", Value::array()},
              {"files", counts.served.count},
              {"read", Value::array()}};
  for (auto const& one : counts.layers) {
    if (lists["layers"].size() == most_listed) break;
    lists["layers"].push_back(
        {plain(one.layer), std::string(name_of(one.state)), plain(one.problem)});
  }
  for (auto const& name : counts.served.names) lists["names"].push_back(plain(name));
  for (auto const& range : counts.read) lists["read"].push_back({range.begin, range.end});
  return lists.dump();
}

std::optional<LayerProof> parse_layer(Value const& value) {
  if (!value.is_array() || value.size() != 3) return std::nullopt;
  if (!std::ranges::all_of(value, [](Value const& part) { return part.is_string(); })) {
    return std::nullopt;
  }
  auto const state = std::ranges::find(state_names, value[1].get<std::string>());
  if (state == state_names.end()) return std::nullopt;
  return LayerProof{plain(value[0].get<std::string>()),
                    static_cast<LayerState>(state - state_names.begin()),
                    plain(value[2].get<std::string>())};
}

/// Calls `take` for each of the elements of a list, at most `most`.
template <class Take>
void for_each_of(Value const& lists, char const* name, std::size_t most, Take const& take) {
  auto const* const list = erofs_oci::json::find(lists, name);
  if (list == nullptr || !list->is_array()) return;
  for (std::size_t i = 0; i < std::min(list->size(), most); ++i) take((*list)[i]);
}

/// The inverse of lists_text(); what is no such thing is left out.
void parse_lists(std::string const& text, WorkerCounts& counts) {
  auto const lists = erofs_oci::json::parse(erofs_oci::as_bytes(text), "counts");
  if (!lists || !lists->is_object()) return;
  for_each_of(*lists, "layers", most_listed, [&](Value const& value) {
    if (auto layer = parse_layer(value)) counts.layers.push_back(*std::move(layer));
  });
  for_each_of(*lists, "names", ServedFiles::most, [&](Value const& value) {
    if (value.is_string()) counts.served.names.push_back(plain(value.get<std::string>()));
  });
  for_each_of(*lists, "read", most_listed, [&](Value const& value) {
    auto const good = value.is_array() && value.size() == 2 && value[0].is_number_unsigned() &&
                      value[1].is_number_unsigned();
    if (!good) return;
    ByteRange const range{value[0].get<std::uint64_t>(), value[1].get<std::uint64_t>()};
    if (range.begin < range.end) counts.read.push_back(range);
  });
  auto const* const files = erofs_oci::json::find(*lists, "files");
  if (files != nullptr && files->is_number_unsigned()) {
    counts.served.count = files->get<std::uint64_t>();
  }
}

Value layers_json(std::vector<LayerProof> const& layers) {
  auto list = Value::array();
  for (auto const& one : layers) {
    Value value{{"digest", one.layer}, {"state", std::string(name_of(one.state))}};
    if (!one.problem.empty()) value["problem"] = one.problem;
    list.push_back(std::move(value));
  }
  return list;
}

}  // namespace

std::string_view name_of(LayerState state) {
  return state_names.at(static_cast<std::size_t>(state));
}

std::string WorkerCounts::text() const {
  std::ostringstream out;
  out << cached << ' ' << reads << ' ' << bytes << ' ' << errors << ' ' << seen << ' ' << to_prove
      << ' ' << proved << ' ' << disk.hits << ' ' << disk.hit_bytes << ' ' << disk.misses << ' '
      << disk.miss_bytes << ' ' << disk.kept << ' ' << disk.total << ' ' << hedges.requests << ' '
      << hedges.sent << ' ' << hedges.won << ' ' << start.fetched << ' ' << start.used << ' '
      << memory << '\n'
      << lists_text(*this) << '\n'
      << mismatch;
  return out.str();
}

WorkerCounts WorkerCounts::parse(std::string const& text) {
  WorkerCounts counts;
  std::istringstream in(text);
  in >> counts.cached >> counts.reads >> counts.bytes >> counts.errors >> counts.seen >>
      counts.to_prove >> counts.proved >> counts.disk.hits >> counts.disk.hit_bytes >>
      counts.disk.misses >> counts.disk.miss_bytes >> counts.disk.kept >> counts.disk.total >>
      counts.hedges.requests >> counts.hedges.sent >> counts.hedges.won >> counts.start.fetched >>
      counts.start.used >> counts.memory;
  std::string lists;
  if (!in || in.get() != '\n' || !std::getline(in, lists)) return {};
  parse_lists(lists, counts);
  std::getline(in, counts.mismatch, '\0');
  counts.mismatch = plain(std::move(counts.mismatch), 1000);
  return counts;
}

std::string report_json(MountReport const& report) {
  Value value;
  value["way"] = std::string(erofs_oci::name_of(report.way));
  value["supervisor"] = ::getpid();
  value["worker"] = report.worker;
  value["worker_alive"] = report.worker_alive;
  value["restarts"] = report.restarts;
  value["last_error"] = report.last_error;
  value["cached"] = report.counts.cached;
  value["memory"] = report.counts.memory;
  value["complete"] = report.is_complete();
  value["requests"] = report.reads ? report.reads->requests : report.counts.reads;
  value["bytes"] = report.reads ? report.reads->bytes : report.counts.bytes;
  value["errors"] = report.reads ? report.reads->errors : report.counts.errors;
  auto const& disk = report.counts.disk;
  if (disk.total != 0) {
    value["disk"] = {{"hits", disk.hits},
                     {"hit_bytes", disk.hit_bytes},
                     {"misses", disk.misses},
                     {"miss_bytes", disk.miss_bytes},
                     {"kept", disk.kept},
                     {"total", disk.total},
                     {"complete", disk.is_complete()}};
  }
  if (report.counts.to_prove != 0) {
    value["proof"] = {{"seen", report.counts.seen},
                      {"total", report.counts.to_prove},
                      {"proved", report.counts.proved}};
  }
  value["hedges"] = {{"requests", report.counts.hedges.requests},
                     {"sent", report.counts.hedges.sent},
                     {"won", report.counts.hedges.won}};
  value["start_list"] = {{"fetched", report.counts.start.fetched},
                         {"used", report.counts.start.used}};
  value["mismatch"] = report.counts.mismatch;
  value["layers"] = layers_json(report.counts.layers);
  if (report.counts.served.count != 0) {
    value["read_before"] = {{"files", report.counts.served.count},
                            {"names", report.counts.served.names}};
  }
  value["verity"] = report.verity;
  if (report.reads) {
    value["taken_over"] = report.reads->taken_over;
    value["in_flight"] = report.in_flight;
  }
  // A message of an error may hold a path, which may be no UTF-8.
  return value.dump(-1, ' ', false, Value::error_handler_t::replace);
}

std::string way_in_report(std::string_view json) {
  auto const value = erofs_oci::json::parse(erofs_oci::as_bytes(json), "status");
  if (!value) return {};
  return erofs_oci::json::text(*value, "way").value_or("");
}

std::string report_metrics(MountReport const& report) {
  std::vector<std::pair<std::string, std::string>> const labels{
      {"mount_point", report.target},
      {"device", report.device},
      {"way", std::string(erofs_oci::name_of(report.way))}};
  std::string text;
  auto const add = [&](char const* name, char const* kind, char const* help, std::uint64_t value) {
    text += metric_text(name, kind, help, labels, value);
  };
  add("worker_up", "gauge", "Whether a worker lives.", report.worker_alive ? 1 : 0);
  add("worker_restarts_total", "counter", "Workers that were replaced.", report.restarts);
  add("cached_bytes", "gauge", "Decoded bytes in the worker's memory.", report.counts.cached);
  add("memory_bytes", "gauge", "Bytes that the worker's caches take, with buffers for reuse.",
      report.counts.memory);
  add("device_bytes", "gauge", "Bytes of the device.", report.size);
  add("image_reads_total", "counter", "Reads of the image.", report.counts.reads);
  add("image_read_bytes_total", "counter", "Bytes that these reads got.", report.counts.bytes);
  add("image_read_errors_total", "counter", "Reads of the image that failed.",
      report.counts.errors);
  add("hedged_requests_total", "counter", "Requests that were sent a second time.",
      report.counts.hedges.sent);
  add("hedges_won_total", "counter", "Second requests that were answered first.",
      report.counts.hedges.won);
  add("start_list_fetched_bytes_total", "counter", "Bytes that were fetched ahead by a start list.",
      report.counts.start.fetched);
  add("start_list_used_bytes_total", "counter", "Of these, bytes that reads have needed.",
      report.counts.start.used);
  add("digest_mismatch", "gauge", "Whether bytes were read that have not the layer's digest.",
      report.counts.mismatch.empty() ? 0 : 1);
  auto const layers_that_are = [&](LayerState state) {
    return static_cast<std::uint64_t>(
        std::ranges::count(report.counts.layers, state, &LayerProof::state));
  };
  add("layers_proved", "gauge", "Layers whose index is what they hold.",
      layers_that_are(LayerState::proved));
  add("layers_pending", "gauge", "Layers whose index nobody has compared with them.",
      layers_that_are(LayerState::pending));
  add("layers_failed", "gauge", "Layers that were compared and are not what was said of them.",
      layers_that_are(LayerState::failed));
  auto const& disk = report.counts.disk;
  add("disk_hits_total", "counter", "Chunks of layers that came from disk.", disk.hits);
  add("disk_hit_bytes_total", "counter", "Bytes in these chunks.", disk.hit_bytes);
  add("disk_misses_total", "counter", "Chunks of layers that came from a registry.", disk.misses);
  add("disk_miss_bytes_total", "counter", "Bytes in these chunks.", disk.miss_bytes);
  add("disk_kept_bytes", "gauge", "Bytes of the layers that are on disk.", disk.kept);
  add("layer_bytes", "gauge", "Bytes of the layers that are kept on disk when they are read.",
      disk.total);
  if (!report.reads) return text;
  add("reads_total", "counter", "Reads of the device.", report.reads->requests);
  add("read_bytes_total", "counter", "Bytes that reads got.", report.reads->bytes);
  add("read_errors_total", "counter", "Reads that failed.", report.reads->errors);
  add("reads_taken_over_total", "counter", "Reads that a worker left to the next one.",
      report.reads->taken_over);
  add("reads_in_flight", "gauge", "Reads that have no answer yet.", report.in_flight);
  return text;
}

}  // namespace mount_oci
