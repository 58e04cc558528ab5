#include "server/bench/load/arrivals.h"

#include <queue>

#include "server/bench/load/draws.h"

namespace sirocco {
namespace {

// A user who asks again as soon as the answer is there.
class ClosedLoop final : public Arrivals {
 public:
  ClosedLoop(int32_t concurrency, double begin) {
    for (int32_t i = 0; i < concurrency; ++i) free_since_.push(begin);
  }
  std::optional<double> Next() const override {
    if (free_since_.empty()) return std::nullopt;
    return free_since_.front();
  }
  void Take() override { free_since_.pop(); }
  void Ended(double time) override { free_since_.push(time); }

 private:
  std::queue<double> free_since_;
};

// Gaps of exponential length: users who know nothing of each other.
class Poisson final : public Arrivals {
 public:
  Poisson(double rate, uint64_t seed, double begin)
      : rate_(rate), draws_(seed, Draws::kArrivals, 0), next_(begin) {
    Take();
  }
  std::optional<double> Next() const override { return next_; }
  void Take() override { next_ += draws_.Exponential() / rate_; }
  void Ended(double /*time*/) override {}

 private:
  const double rate_;
  Draws draws_;
  double next_;
};

}  // namespace

std::unique_ptr<Arrivals> MakeArrivals(const Load& load, uint64_t seed, double begin) {
  if (load.open()) return std::make_unique<Poisson>(load.rate, seed, begin);
  return std::make_unique<ClosedLoop>(load.concurrency, begin);
}

}  // namespace sirocco
