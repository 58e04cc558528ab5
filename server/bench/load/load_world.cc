#include "server/bench/load/load_world.h"

#include <chrono>

namespace sirocco {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

}  // namespace

double SteadyClock::Now() { return Seconds(Clock::now().time_since_epoch()).count(); }

void SteadyClock::SleepUntil(double time) {
  const auto left = std::chrono::duration_cast<Clock::duration>(Seconds(time - Now()));
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, left, [this] { return woken_; });
  woken_ = false;
}

void SteadyClock::Wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  changed_.notify_one();
}

}  // namespace sirocco
