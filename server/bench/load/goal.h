// A latency goal: a percentile of a metric and what it may be at most.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sirocco {

enum class LoadMetric : uint8_t {
  kFirstToken,     // ttft: from the time a request was meant to be sent at to its first token
  kBetweenTokens,  // itl: from token to token
  kPerToken,       // tpot: a request's time from its first token to its last, over their number
  kTotal,          // e2e: from the time a request was meant to be sent at to its end
};

struct Goal {
  LoadMetric metric = LoadMetric::kFirstToken;
  double part = 0;  // 0.99: the 99th percentile
  double seconds = 0;

  // Samples below which the percentile would only be the worst of them.
  uint64_t LeastSamples() const;
};

// "ttft_p99=500ms,itl_p50=30ms": every one is to be kept. INVALID_ARGUMENT says what is allowed.
absl::StatusOr<std::vector<Goal>> ParseGoals(const std::string& text);

}  // namespace sirocco
