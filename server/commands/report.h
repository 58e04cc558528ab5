// How a command tells people what happens: one-line errors, and progress on a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace sirocco {

// Prints "sirocco: MESSAGE" on stderr as one line, and returns the exit status that fits.
int Fail(const absl::Status& status);

// A bar on stderr while something long goes on; nothing where stderr is no terminal.
class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar();
  // Draws at most ten times a second; a new phase begins a new line. `note` stands behind the bar,
  // as much of it as the terminal is wide, and alone where the total is not known (0).
  void Update(std::string_view phase, uint64_t done, uint64_t total, std::string_view note = {});

 private:
  void EndLine();

  const bool terminal_;
  std::string phase_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace sirocco
