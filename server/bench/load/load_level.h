// What a level of a load measured. The samples are of requests that were meant to be sent in its
// window; tokens are those that came in it, whoever asked for them.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "server/bench/load/answer.h"
#include "server/bench/load/arrivals.h"
#include "server/bench/load/goal.h"
#include "server/bench/load/histogram.h"
#include "server/bench/load/timeline.h"

namespace sirocco {

struct LoadLevel {
  Load load;
  uint64_t requests = 0;                   // answered in full
  std::map<std::string, uint64_t> failed;  // requests, by the status's name
  absl::Status first_failure;              // of these
  uint64_t events = 0;
  uint64_t tokens = 0;
  double begin = 0;    // of the window, from the level's beginning: the warm-up before it
  double seconds = 0;  // the window
  int32_t most_under_way = 0;

  // Seconds, of requests that were answered in full.
  Histogram first_token;  // from the time meant
  // A token after the first, by the events that brought it: one with k tokens counts as k, each
  // with a k-th of the time since the event before. What comes with the first token was not waited
  // for.
  Histogram between_tokens;
  Histogram per_token;  // outputs of two tokens and more: first token to last, over their number
  Histogram total;      // from the time meant to the end
  Histogram late;       // how long after the time meant they were sent: the client's own delay

  Timeline timeline;  // from the level's beginning, all requests

  uint64_t Failed() const;
  double TokensPerSecond() const { return static_cast<double>(tokens) / seconds; }
  double RequestsPerSecond() const { return static_cast<double>(requests) / seconds; }
  // What `concurrency` streams get that are past their first token: as the engine's own rate is
  // measured. 0 in an open loop.
  double DecodeTokensPerSecond() const;
  const Histogram& Of(LoadMetric metric) const;
  // A failed request is one that nobody waited long enough for: infinite where the percentile falls
  // on one.
  double Value(const Goal& goal) const;
  bool Keeps(const Goal& goal) const { return Value(goal) <= goal.seconds; }
};

// Makes a level of its answers.
class LevelSamples {
 public:
  // `begin`: of the level, on the clock. Its window begins `warm_up` seconds later and lasts for
  // `seconds`; 0: to the last token, of a level that ends with its requests.
  LevelSamples(const Load& load, double begin, double warm_up, double seconds);

  void Sent(const LoadRequest& request, int32_t under_way);
  // Of all its requests, also those before the window.
  void Add(const Answer& answer);
  // Requests meant for the window: so far.
  uint64_t measured() const { return measured_; }
  const LoadLevel& level() const { return level_; }
  LoadLevel Finish();

 private:
  bool InWindow(double time) const { return time >= window_ && time < end_; }
  void AddLatencies(const Answer& answer);

  const double begin_, window_, end_;  // on the clock; the last may be infinite
  double last_token_;
  uint64_t measured_ = 0;
  LoadLevel level_;
};

}  // namespace sirocco
