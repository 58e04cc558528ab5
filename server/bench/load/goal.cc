#include "server/bench/load/goal.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/config/values.h"

namespace sirocco {
namespace {

constexpr std::array<std::pair<std::string_view, LoadMetric>, 4> kMetrics = {{
    {"ttft", LoadMetric::kFirstToken},
    {"itl", LoadMetric::kBetweenTokens},
    {"tpot", LoadMetric::kPerToken},
    {"e2e", LoadMetric::kTotal},
}};
constexpr double kMostPercent = 99.99;

std::optional<Goal> ParseGoal(const std::string& text) {
  const std::pair<std::string, std::string> sides = absl::StrSplit(text, absl::MaxSplits('=', 1));
  const std::pair<std::string, std::string> name =
      absl::StrSplit(sides.first, absl::MaxSplits("_p", 1));
  Goal goal;
  const auto metric = std::find_if(kMetrics.begin(), kMetrics.end(),
                                   [&](const auto& known) { return known.first == name.first; });
  double percent = 0;
  if (metric == kMetrics.end() || !absl::SimpleAtod(name.second, &percent)) return std::nullopt;
  if (!(percent > 0 && percent <= kMostPercent)) return std::nullopt;
  const auto limit = ParseDuration(sides.second);
  if (!limit.ok() || limit->count() == 0) return std::nullopt;
  goal.metric = metric->second;
  goal.part = percent / 100;
  goal.seconds = std::chrono::duration<double>(*limit).count();
  return goal;
}

}  // namespace

uint64_t Goal::LeastSamples() const {
  return static_cast<uint64_t>(std::ceil(1 / (1 - part) - 1e-6));
}

absl::StatusOr<std::vector<Goal>> ParseGoals(const std::string& text) {
  std::vector<Goal> goals;
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  for (const std::string& part : parts) {
    const std::optional<Goal> goal = ParseGoal(part);
    if (!goal) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", part,
                       "' is no goal; allowed are METRIC_pPERCENT=DURATION, with commas: METRIC is "
                       "ttft, itl, tpot or e2e, PERCENT above 0 and at most ",
                       kMostPercent, ", DURATION such as 500ms or 2s"));
    }
    goals.push_back(*goal);
  }
  return goals;
}

}  // namespace sirocco
