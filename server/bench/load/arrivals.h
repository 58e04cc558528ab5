// When the requests of a load are meant to be sent. Latency is counted from that time, not from the
// one they were sent at: neither a slow client nor a slow server hides what a user waits.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

namespace sirocco {

// One of the two is above 0.
struct Load {
  int32_t concurrency = 0;  // closed loop: so many are always under way
  double rate = 0;          // open loop: so many a second begin, whatever the answers do (Poisson)

  bool open() const { return rate > 0; }
};

class Arrivals {
 public:
  virtual ~Arrivals() = default;
  // The next request's time, on the clock that `begin` was of; nullopt: only the end of one that is
  // under way will tell.
  virtual std::optional<double> Next() const = 0;
  // The next request was taken.
  virtual void Take() = 0;
  // A request has ended.
  virtual void Ended(double time) = 0;
};

// The first request's time is `begin` in a closed loop, and after it in an open one. The same seed
// gives the same gaps in the same order; rates only scale them.
std::unique_ptr<Arrivals> MakeArrivals(const Load& load, uint64_t seed, double begin);

}  // namespace sirocco
