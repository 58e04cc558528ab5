#include "server/bench/load/load_bench.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/bench/load/grpc_target.h"
#include "server/bench/load/rate_search.h"

namespace sirocco {
namespace {

constexpr int32_t kWarmingTokens = 8;
constexpr int32_t kMostWarmingRequests = 64;
// Of a level of a search, whatever its goal: fewer say nothing.
constexpr uint64_t kLeastSamples = 10;

// Calls that fail are no fault of what was typed.
absl::Status OfCalls(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) ? status : absl::UnavailableError(status.message());
}

class Bench {
 public:
  Bench(const LoadOptions& options, const LoadBenchProgress& progress, LoadClock& clock,
        GrpcTarget& target, LoadReport& report)
      : options_(options), progress_(progress), clock_(clock), target_(target), report_(report) {}

  absl::Status MeasureAll() {
    for (const Load& load : options_.loads) {
      if (absl::Status status = WarmUp(load); !status.ok()) return status;
      if (absl::Status status = Measure(load); !status.ok()) return status;
      const LoadLevel& level = report_.levels.back();
      if (level.requests == 0) return OfCalls(level.first_failure);
    }
    return absl::OkStatus();
  }

  // A rate at which nobody is answered is one that misses the goal.
  absl::Status Search() {
    const Load& first = options_.loads.front();
    if (absl::Status status = WarmUp(first); !status.ok()) return status;
    RateSearch search(first.rate);
    while (const std::optional<double> rate = search.Next()) {
      Load load;
      load.rate = *rate;
      if (absl::Status status = Measure(load); !status.ok()) return status;
      const LoadLevel& level = report_.levels.back();
      search.Record(*rate, std::all_of(options_.goals.begin(), options_.goals.end(),
                                       [&](const Goal& goal) { return level.Keeps(goal); }));
    }
    report_.highest_kept = search.highest_kept();
    report_.lowest_missed = search.lowest_missed();
    return absl::OkStatus();
  }

 private:
  // What server and connections do for the first time: short outputs, in a closed loop.
  absl::Status WarmUp(const Load& load) {
    LevelPlan plan = PlanOf(load);
    plan.load = Load();
    plan.load.concurrency =
        load.open() ? std::min(options_.connections, kMostWarmingRequests) : load.concurrency;
    plan.outputs = Lengths(std::min(options_.outputs.Longest(), kWarmingTokens));
    plan.warm_up = plan.seconds = 0;
    plan.requests = static_cast<uint64_t>(plan.load.concurrency);
    target_.ForgetPrompts();
    const auto level = LevelRun(plan, clock_, target_).Run({});
    return level.ok() ? absl::OkStatus() : OfCalls(level.status());
  }

  absl::Status Measure(const Load& load) {
    target_.ForgetPrompts();
    const std::string name = LoadName(load);
    auto level = LevelRun(PlanOf(load), clock_, target_).Run([&](const LevelProgress& now) {
      if (progress_) progress_(name, now);
    });
    if (!level.ok()) return OfCalls(level.status());
    report_.levels.push_back(*std::move(level));
    return absl::OkStatus();
  }

  LevelPlan PlanOf(const Load& load) const {
    LevelPlan plan;
    plan.load = load;
    plan.prompts = options_.prompts;
    plan.outputs = options_.outputs;
    plan.seed = options_.seed;
    plan.warm_up = options_.warm_up;
    plan.seconds = options_.seconds;
    plan.requests =
        static_cast<uint64_t>(options_.requests > 0 ? options_.requests : 4 * load.concurrency);
    // A percentile is a percentile only of enough requests.
    for (const Goal& goal : options_.goals) {
      const uint64_t least = std::max(goal.LeastSamples(), kLeastSamples);
      plan.seconds = std::max(plan.seconds, static_cast<double>(least) / load.rate);
    }
    return plan;
  }

  const LoadOptions& options_;
  const LoadBenchProgress& progress_;
  LoadClock& clock_;
  GrpcTarget& target_;
  LoadReport& report_;
};

}  // namespace

std::string LoadName(const Load& load) {
  return load.open() ? absl::StrFormat("%.5g/s", load.rate)
                     : absl::StrCat("batch ", load.concurrency);
}

absl::StatusOr<LoadReport> BenchLoad(const LoadOptions& options,
                                     const LoadBenchProgress& progress) {
  SteadyClock clock;
  GrpcTarget::Options to;
  to.server = options.server;
  to.connections = options.connections;
  to.timeout = options.timeout;
  to.seed = options.seed;
  absl::StatusOr<std::unique_ptr<GrpcTarget>> target = GrpcTarget::Connect(to, clock);
  if (!target.ok()) return target.status();
  const v1::Model& model = (*target)->model();
  const int64_t longest = int64_t{options.prompts.Longest()} + options.outputs.Longest();
  if (longest > model.max_length()) {
    return absl::InvalidArgumentError(absl::StrCat("--prompt-length and --output-length are up to ",
                                                   longest, " tokens together; this server takes ",
                                                   model.max_length()));
  }
  LoadReport report;
  report.options = options;
  report.address = options.server.address;
  report.model = model.name();
  report.backend = model.backend();
  report.device = model.device();
  report.mode = model.mode();
  report.dtype = model.dtype();
  Bench bench(options, progress, clock, **target, report);
  const absl::Status status = options.goals.empty() ? bench.MeasureAll() : bench.Search();
  if (!status.ok()) return status;
  return report;
}

}  // namespace sirocco
