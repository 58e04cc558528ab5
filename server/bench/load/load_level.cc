#include "server/bench/load/load_level.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace sirocco {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

}  // namespace

uint64_t LoadLevel::Failed() const {
  uint64_t all = 0;
  for (const auto& [name, count] : failed) all += count;
  return all;
}

double LoadLevel::DecodeTokensPerSecond() const {
  const double seconds_per_token = per_token.Percentile(0.5);
  return load.open() || seconds_per_token == 0 ? 0 : load.concurrency / seconds_per_token;
}

const Histogram& LoadLevel::Of(LoadMetric metric) const {
  switch (metric) {
    case LoadMetric::kFirstToken:
      return first_token;
    case LoadMetric::kBetweenTokens:
      return between_tokens;
    case LoadMetric::kPerToken:
      return per_token;
    case LoadMetric::kTotal:
      return total;
  }
  return total;  // not reached
}

double LoadLevel::Value(const Goal& goal) const {
  const Histogram& samples = Of(goal.metric);
  if (goal.metric != LoadMetric::kBetweenTokens) return samples.Percentile(goal.part, Failed());
  // Samples are tokens: how many the failed requests would have had, nobody knows.
  const auto all = static_cast<double>(requests + Failed());
  if (static_cast<double>(Failed()) > (1 - goal.part) * all) return kNever;
  return samples.Percentile(goal.part);
}

LevelSamples::LevelSamples(const Load& load, double begin, double warm_up, double seconds)
    : begin_(begin),
      window_(begin + warm_up),
      end_(seconds > 0 ? window_ + seconds : kNever),
      last_token_(window_) {
  level_.load = load;
  level_.begin = warm_up;
  level_.seconds = seconds;
}

void LevelSamples::Sent(const LoadRequest& request, int32_t under_way) {
  if (request.intended >= window_) ++measured_;
  level_.most_under_way = std::max(level_.most_under_way, under_way);
  level_.timeline.Add(Timeline::kArrivals, request.intended - begin_, 1);
}

void LevelSamples::Add(const Answer& answer) {
  Timeline& timeline = level_.timeline;
  for (const TokenEvent& event : answer.tokens) {
    if (InWindow(event.time)) level_.tokens += event.tokens;
    timeline.Add(Timeline::kTokens, event.time - begin_, event.tokens);
    last_token_ = std::max(last_token_, event.time);
  }
  timeline.Add(Timeline::kEnds, answer.ended - begin_, 1);
  const double intended = answer.request.intended;
  if (!answer.tokens.empty()) {
    timeline.Add(Timeline::kWorstFirstToken, intended - begin_,
                 answer.tokens.front().time - intended);
  }
  if (intended < window_) return;
  level_.events += answer.events;
  if (answer.status.ok()) {
    AddLatencies(answer);
  } else {
    ++level_.failed[absl::StatusCodeToString(answer.status.code())];
    if (level_.first_failure.ok()) level_.first_failure = answer.status;
  }
}

void LevelSamples::AddLatencies(const Answer& answer) {
  const double intended = answer.request.intended;
  ++level_.requests;
  level_.late.Add(answer.sent - intended);
  level_.total.Add(answer.ended - intended);
  if (answer.tokens.empty()) return;
  const TokenEvent& first = answer.tokens.front();
  level_.first_token.Add(first.time - intended);
  level_.between_tokens.Add(0, first.tokens - 1);
  uint64_t tokens = first.tokens;
  for (size_t i = 1; i < answer.tokens.size(); ++i) {
    const TokenEvent& event = answer.tokens[i];
    level_.between_tokens.Add((event.time - answer.tokens[i - 1].time) / event.tokens,
                              event.tokens);
    tokens += event.tokens;
  }
  if (tokens > 1) {
    level_.per_token.Add((answer.tokens.back().time - first.time) /
                         static_cast<double>(tokens - 1));
  }
}

LoadLevel LevelSamples::Finish() {
  if (std::isinf(end_)) level_.seconds = last_token_ - window_;
  return std::move(level_);
}

}  // namespace sirocco
