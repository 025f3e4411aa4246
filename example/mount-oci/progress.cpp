// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <array>
#include <cstdio>
#include <string_view>

#include <unistd.h>

namespace mount_oci {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::string clock_text(std::uint64_t seconds) {
  auto const two = [](std::uint64_t n) { return (n < 10 ? "0" : "") + std::to_string(n); };
  auto const hours = seconds / 3600;
  auto const minutes = seconds / 60 % 60;
  if (hours > 0) return std::to_string(hours) + ":" + two(minutes) + ":" + two(seconds % 60);
  return std::to_string(minutes) + ":" + two(seconds % 60);
}

}  // namespace

std::string size_text(std::uint64_t bytes) {
  constexpr std::array units{"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  std::size_t unit = 0;
  auto tenths = bytes * 10;
  if (bytes > ~std::uint64_t{0} / 10) {
    unit = 1;
    tenths = bytes / 100;
  }
  for (; tenths >= 10'000 && unit + 1 < units.size(); ++unit) tenths /= 1000;
  auto text = std::to_string(tenths / 10);
  if (unit > 0 && tenths < 1000) text += "." + std::to_string(tenths % 10);
  return text + " " + units[unit];
}

std::string counted(std::uint64_t count, std::string_view thing) {
  return std::to_string(count).append(" ").append(thing).append(count == 1 ? "" : "s");
}

std::string progress_text(Advance const& advance) {
  auto text = "indexing: " + std::to_string(advance.layers_done) + " of " +
              counted(advance.layers, "layer") + ", " + size_text(advance.done) + " of " +
              size_text(advance.total);
  auto const ms = static_cast<std::uint64_t>(advance.elapsed.count());
  if (ms == 0 || advance.done == 0) return text;
  auto const rate = static_cast<double>(advance.done) * 1000 / static_cast<double>(ms);
  text += ", " + size_text(static_cast<std::uint64_t>(rate)) + "/s";
  if (ms < 500 || advance.done >= advance.total) return text;  // nothing to tell from yet, or left
  auto const left = static_cast<double>(advance.total - advance.done) / rate;
  return text + ", " + clock_text(static_cast<std::uint64_t>(left + 0.5)) + " left";
}

Progress::Progress(Log const& log, std::size_t layers, std::uint64_t bytes)
    : log_(log), terminal_(log.says(Level::warning) && ::isatty(STDERR_FILENO) == 1) {
  advance_.layers = layers;
  advance_.total = bytes;
}

Progress::~Progress() {
  erase();
}

void Progress::update(erofs_oci::LayerProgress const& layer) {
  std::lock_guard const lock(mutex_);
  auto& done = layers_[layer.layer];
  advance_.done += layer.done - done;
  done = layer.done;
  auto const now = steady_clock::now();
  advance_.elapsed = std::chrono::duration_cast<milliseconds>(now - start_);
  auto const finished = layer.done == layer.total;
  if (finished) {
    ++advance_.layers_done;
    if (!terminal_) {
      log_.say(Level::info, "layer " + std::to_string(layer.layer) + " is read, " +
                                size_text(layer.total) + "; " + progress_text(advance_));
    }
  }
  if (terminal_ && (finished || now - drawn_ >= milliseconds(100))) {
    drawn_ = now;
    auto const line = "\r" + progress_text(advance_) + "\x1b[K";
    std::fwrite(line.data(), 1, line.size(), stderr);
    shown_ = true;
  }
}

void Progress::warn(std::string const& text) {
  std::lock_guard const lock(mutex_);
  erase();
  log_.say(Level::warning, text);
}

void Progress::erase() {
  constexpr std::string_view nothing = "\r\x1b[K";
  if (shown_) std::fwrite(nothing.data(), 1, nothing.size(), stderr);
  shown_ = false;
}

}  // namespace mount_oci
