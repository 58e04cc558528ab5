#include "server/commands/report.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "server/model/load.h"

namespace sirocco {

int Fail(const absl::Status& status) {
  std::string line(status.message());
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::fprintf(stderr, "sirocco: %s\n", line.c_str());
  return ExitStatusOf(status);
}

ProgressBar::ProgressBar() : terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() { EndLine(); }

void ProgressBar::Update(std::string_view phase, uint64_t done, uint64_t total,
                         std::string_view note) {
  if (!terminal_ || (total == 0 && note.empty())) return;
  const auto now = std::chrono::steady_clock::now();
  const bool begins = phase != phase_;
  if (begins) {
    EndLine();
    phase_ = std::string(phase);
  } else if ((done < total || total == 0) && now - last_ < std::chrono::milliseconds(100)) {
    return;
  }
  last_ = now;
  drawn_ = true;
  std::fprintf(stderr, "\r%-10s", phase_.c_str());
  if (total > 0) {
    constexpr int kWidth = 30;
    const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const int filled = static_cast<int>(share * kWidth);
    std::fprintf(stderr, " [%s%s] %3.0f%%", std::string(filled, '#').c_str(),
                 std::string(kWidth - filled, ' ').c_str(), share * 100);
  }
  // What a longer note left there is erased.
  std::fprintf(stderr, " %s\033[K", std::string(note).c_str());
  std::fflush(stderr);
}

void ProgressBar::EndLine() {
  if (drawn_) std::fputc('\n', stderr);
  drawn_ = false;
}

}  // namespace sirocco
