// SPDX-License-Identifier: Apache-2.0
#include "mount_report.hpp"

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
  out << cached << ' ' << reads << ' ' << bytes << ' ' << errors;
  return out.str();
}

WorkerCounts WorkerCounts::parse(std::string const& text) {
  WorkerCounts counts;
  std::istringstream in(text);
  in >> counts.cached >> counts.reads >> counts.bytes >> counts.errors;
  return in ? counts : WorkerCounts();
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
  value["complete"] = report.is_complete();
  value["requests"] = report.reads ? report.reads->requests : report.counts.reads;
  value["bytes"] = report.reads ? report.reads->bytes : report.counts.bytes;
  value["errors"] = report.reads ? report.reads->errors : report.counts.errors;
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
  add("device_bytes", "gauge", "Bytes of the device.", report.size);
  add("image_reads_total", "counter", "Reads of the image.", report.counts.reads);
  add("image_read_bytes_total", "counter", "Bytes that these reads got.", report.counts.bytes);
  add("image_read_errors_total", "counter", "Reads of the image that failed.",
      report.counts.errors);
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
