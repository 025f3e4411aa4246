// SPDX-License-Identifier: Apache-2.0
#include "mount_report.hpp"  // first: proves that the header stands alone

#include <string>
#include <vector>

#include <catch.hpp>
#include <erofs_oci/core/bytes.hpp>
#include <erofs_oci/oci/json.hpp>

#include "metrics.hpp"

namespace mount_oci {
namespace mount_report_test {

TEST_CASE("A metric's labels are quoted", "[tool][metrics]") {
  CHECK(metric_text("reads_total", "counter", "Reads.", {{"a", "b\"c\\d\ne"}, {"f", ""}}, 7) ==
        "# HELP erofs_oci_reads_total Reads.\n"
        "# TYPE erofs_oci_reads_total counter\n"
        "erofs_oci_reads_total{a=\"b\\\"c\\\\d\\ne\",f=\"\"} 7\n");
}

TEST_CASE("Metrics are served to this machine alone", "[tool][metrics]") {
  auto const address = GENERATE("0.0.0.0:9000", "192.168.1.1:9000", "[::]:9000", "example.com:80",
                                "9000", "relative/path");
  auto const socket = listen_metrics(address, [] { return std::string(); });
  REQUIRE_FALSE(socket);
  CHECK(socket.error().code == Errc::invalid_argument);
}

TEST_CASE("A report is the same in both forms", "[tool][report]") {
  MountReport report;
  report.way = erofs_oci::MountWay::netlink;
  report.target = "/mnt/\xff";  // no UTF-8
  report.device = "/dev/nbd3";
  report.restarts = 2;
  report.last_error = "offset 5: \xff";
  report.counts = {100, 20, 3000, 2};
  report.size = 300;
  report.metadata = 199;
  report.reads = erofs_oci::NbdRelayCounters{10, 2000, 1, 3};
  report.in_flight = 4;
  report.counts.seen = 7;
  report.counts.to_prove = 8;
  report.counts.mismatch = "blob: its bytes are others";
  report.counts.hedges = {60, 3, 2};
  report.counts.start = {5000, 4000};
  report.counts.memory = 1234;
  report.counts.layers = {{"sha256:a", LayerState::proved},
                          {"sha256:b", LayerState::pending, "away"},
                          {"sha256:c", LayerState::failed, "its index is wrong"}};
  report.counts.served = {{"/bin/sh", "/etc/x"}, 5};
  report.counts.read = {{0, 4096}, {8192, 9000}};
  CHECK_FALSE(report.is_complete());
  report.counts.disk = {1, 2, 3, 4, 5, 5};
  CHECK(report.is_complete());
  report.counts.disk.total = 6;
  CHECK(WorkerCounts::parse(report.counts.text()) == report.counts);
  CHECK_FALSE(report.is_complete());
  report.metadata = 200;
  CHECK(report.is_complete());

  auto const json = erofs_oci::json::parse(erofs_oci::as_bytes(report_json(report)), "report");
  REQUIRE(json);
  CHECK((*json)["way"] == "netlink");
  CHECK((*json)["restarts"] == 2);
  CHECK((*json)["requests"] == 10);
  CHECK((*json)["bytes"] == 2000);
  CHECK((*json)["errors"] == 1);
  CHECK((*json)["taken_over"] == 3);
  CHECK((*json)["in_flight"] == 4);
  CHECK((*json)["complete"] == true);
  CHECK((*json)["disk"]["hits"] == 1);
  CHECK((*json)["disk"]["miss_bytes"] == 4);
  CHECK((*json)["disk"]["complete"] == false);
  CHECK((*json)["proof"]["seen"] == 7);
  CHECK((*json)["proof"]["total"] == 8);
  CHECK((*json)["proof"]["proved"] == false);
  CHECK((*json)["mismatch"] == "blob: its bytes are others");
  CHECK((*json)["hedges"]["requests"] == 60);
  CHECK((*json)["hedges"]["sent"] == 3);
  CHECK((*json)["hedges"]["won"] == 2);
  CHECK((*json)["start_list"]["fetched"] == 5000);
  CHECK((*json)["start_list"]["used"] == 4000);
  CHECK((*json)["memory"] == 1234);
  CHECK((*json)["layers"].size() == 3);
  CHECK((*json)["layers"][0].dump() == R"({"digest":"sha256:a","state":"proved"})");
  CHECK((*json)["layers"][2]["problem"] == "its index is wrong");
  CHECK((*json)["read_before"].dump() == R"({"files":5,"names":["/bin/sh","/etc/x"]})");

  auto const text = report_metrics(report);
  CHECK(text.find("erofs_oci_read_errors_total{mount_point=\"/mnt/\xff\",device=\"/dev/nbd3\","
                  "way=\"netlink\"} 1\n") != std::string::npos);
  CHECK(text.find("erofs_oci_reads_in_flight{") != std::string::npos);
  CHECK(text.find("way=\"netlink\"} 1\n", text.find("erofs_oci_digest_mismatch{")) !=
        std::string::npos);

  for (auto const* const name : {"proved", "pending", "failed"}) {
    CHECK(text.find("way=\"netlink\"} 1\n",
                    text.find("erofs_oci_layers_" + std::string(name) + "{")) != std::string::npos);
  }
  CHECK(text.find("erofs_oci_image_read_bytes_total{") != std::string::npos);
  CHECK(text.find("way=\"netlink\"} 3\n", text.find("erofs_oci_hedged_requests_total{")) !=
        std::string::npos);
}

TEST_CASE("By FUSE the worker's own reads are told", "[tool][report]") {
  MountReport report;
  report.way = erofs_oci::MountWay::fuse_tree;
  report.counts = {100, 20, 3000, 2};

  CHECK(report_metrics(report).find("_reads_in_flight") == std::string::npos);
  CHECK(report_metrics(report).find(
            "erofs_oci_image_reads_total{mount_point=\"\",device=\"\",way=\"fuse-tree\"} 20\n") !=
        std::string::npos);
  auto const json = erofs_oci::json::parse(erofs_oci::as_bytes(report_json(report)), "report");
  REQUIRE(json);
  CHECK((*json)["requests"] == 20);
  CHECK((*json)["bytes"] == 3000);
  CHECK((*json)["errors"] == 2);
  CHECK_FALSE(json->contains("in_flight"));
  CHECK_FALSE(json->contains("proof"));
  CHECK((*json)["mismatch"] == "");
  CHECK(way_in_report(report_json(report)) == "fuse-tree");
  CHECK(way_in_report("{").empty());
}

TEST_CASE("What a worker has counted is told in a message", "[tool][report]") {
  WorkerCounts counts{1, 22, 333, 18446744073709551615u};
  CHECK(WorkerCounts::parse(counts.text()) == counts);
  counts.seen = 5;
  counts.to_prove = 6;
  counts.proved = true;
  counts.hedges = {9, 8, 7};
  counts.start = {6, 5};
  counts.memory = 1000;
  counts.mismatch = "blob: its bytes are others";
  CHECK(WorkerCounts::parse(counts.text()) == counts);
  // A worker reads what strangers send.
  counts.mismatch = "a\nb\x1b[2J" + std::string(2000, 'x');
  CHECK(WorkerCounts::parse(counts.text()).mismatch == "a?b?[2J" + std::string(993, 'x'));
  counts.mismatch.clear();
  counts.layers = {{"sha256:a", LayerState::failed, "a\nb" + std::string(2000, 'x')}};
  counts.served = {{"/a\x1b"}, 1};
  auto const told = WorkerCounts::parse(counts.text());
  REQUIRE(told.layers.size() == 1);
  CHECK(told.layers[0].problem == "a?b" + std::string(297, 'x'));
  CHECK(told.served.names == std::vector<std::string>{"/a?"});
  counts.layers.assign(1000, {"sha256:a"});
  CHECK(WorkerCounts::parse(counts.text()).layers.size() == 256);
  for (auto const* text : {"", "1 2 3", "1 2 x 4 0 0 0 0 0 0\n", "1 2 3 4 5 6 1\n",
                           "99999999999999999999 1 1 1 0 0 0 0 0 0\n", "1 2 3 4 5 6 2 0 0 0\n",
                           "1 2 3 4 5 6 1 0 0 0"}) {
    CHECK(WorkerCounts::parse(text) == WorkerCounts());
  }
  auto const numbers = WorkerCounts().text();
  auto const line = numbers.substr(0, numbers.find('\n') + 1);
  for (auto const* lists :
       {"", "{", "[]", "{\"layers\":1}", "{\"layers\":[[\"a\",\"lost\",\"\"]]}",
        "{\"layers\":[[\"a\",\"proved\"],[1,2,3]]}", "{\"read\":[[2,1],[1],[-1,2],\"x\"]}",
        "{\"names\":[1],\"files\":-1}"}) {
    INFO(lists);
    CHECK(WorkerCounts::parse(line + lists + "\n") == WorkerCounts());
  }
}

}  // namespace mount_report_test
}  // namespace mount_oci
