// SPDX-License-Identifier: Apache-2.0
#include "finding.hpp"

#include <algorithm>
#include <string_view>

#include <erofs_oci/core/text.hpp>

namespace mount_oci {
namespace {

std::string_view word_of(Finding::State state) {
  switch (state) {
    case Finding::State::ok: return "ok";
    case Finding::State::skipped: return "skipped";
    case Finding::State::warning: return "warning";
    case Finding::State::failed: return "failed";
  }
  return "";
}

}  // namespace

bool has_failed(std::vector<Finding> const& findings) {
  return std::ranges::find(findings, Finding::State::failed, &Finding::state) != findings.end();
}

std::string finding_text(Finding const& finding) {
  auto out = std::string(word_of(finding.state));
  out.resize(9, ' ');
  out += finding.check + ": " + finding.text + "\n";
  auto rest = std::string_view(finding.advice);
  for (auto const* mark = "         -> "; !rest.empty(); mark = "            ") {
    out += mark + std::string(erofs_oci::take_part(rest, '\n')) + "\n";
  }
  return out;
}

erofs_oci::json::Value findings_value(std::vector<Finding> const& findings) {
  auto list = erofs_oci::json::Value::array();
  for (auto const& [check, state, text, advice] : findings) {
    list.push_back({{"check", check}, {"state", word_of(state)}, {"text", text}});
    if (!advice.empty()) list.back()["advice"] = advice;
  }
  return list;
}

}  // namespace mount_oci
