// SPDX-License-Identifier: Apache-2.0
#include "mount_report.hpp"

#include <algorithm>
#include <sstream>
#include <utility>
#include <vector>

#include <unistd.h>

#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/json.hpp>

#include "metrics.hpp"

namespace mount_oci {

std::string WorkerCounts::text() const {
  std::ostringstream out;
  out << cached << ' ' << reads << ' ' << bytes << ' ' << errors << ' ' << seen << ' ' << to_prove
      << ' ' << proved << ' ' << disk.hits << ' ' << disk.hit_bytes << ' ' << disk.misses << ' '
      << disk.miss_bytes << ' ' << disk.kept << ' ' << disk.total << ' ' << hedges.requests << ' '
      << hedges.sent << ' ' << hedges.won << ' ' << start.fetched << ' ' << start.used << ' '
      << memory << '\n'
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
  if (!in || in.get() != '\n') return {};
  std::getline(in, counts.mismatch, '\0');
  counts.mismatch.resize(std::min<std::size_t>(counts.mismatch.size(), 1000));
  std::ranges::replace_if(counts.mismatch, [](char c) { return c < ' ' || c > '~'; }, '?');
  return counts;
}

std::string report_json(MountReport const& report) {
  using erofs_oci::json::Value;
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
