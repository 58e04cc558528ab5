#include "server/commands/report.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "server/model/load.h"

namespace sirocco {
namespace {

// Of the terminal that stderr is; one that does not say: the narrowest usual one.
size_t Columns() {
  winsize size{};
  constexpr size_t kUsual = 80;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

}  // namespace

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
  std::string line = absl::StrFormat("%-10s", phase_);
  if (total > 0) {
    constexpr int kWidth = 30;
    const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const int filled = static_cast<int>(share * kWidth);
    absl::StrAppendFormat(&line, " [%s%s] %3.0f%%", std::string(filled, '#'),
                          std::string(kWidth - filled, ' '), share * 100);
  }
  if (!note.empty()) line.append(" ").append(note);
  // One column stays free: a full line would begin the next.
  line.resize(std::min(line.size(), Columns() - 1));
  std::fprintf(stderr, "\r%s\033[K", line.c_str());  // and nothing of a longer one before
  std::fflush(stderr);
}

void ProgressBar::EndLine() {
  if (drawn_) std::fputc('\n', stderr);
  drawn_ = false;
}

}  // namespace sirocco
