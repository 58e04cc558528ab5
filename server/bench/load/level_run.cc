#include "server/bench/load/level_run.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

constexpr double kProgressSeconds = 0.1;
constexpr double kRateSeconds = 0.5;

// What an overloaded server does to a request that is itself right.
bool IsLoads(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) ||
         absl::IsDeadlineExceeded(status);
}

}  // namespace

LevelRun::LevelRun(const LevelPlan& plan, LoadClock& clock, LoadTarget& target)
    : plan_(plan),
      clock_(clock),
      target_(target),
      begin_(clock.Now()),
      arrivals_(MakeArrivals(plan.load, plan.seed, begin_)),
      samples_(plan.load, begin_, plan.warm_up, plan.seconds),
      shown_at_(begin_) {}

absl::StatusOr<LoadLevel> LevelRun::Run(const LevelProgressCallback& progress) {
  double show = begin_;
  for (;;) {
    SendDue();
    const double now = clock_.Now();
    LevelProgress shown;
    double wake = now + kProgressSeconds;
    {
      const std::lock_guard lock(mutex_);
      if (closed_ && calls_ == 0) break;
      const std::optional<double> next = arrivals_->Next();
      if (!closed_ && next) wake = std::min(wake, *next);
      if (now >= show) shown = Progress(now);
    }
    if (now >= show) {
      show = now + kProgressSeconds;
      if (progress) progress(shown);
    }
    clock_.SleepUntil(wake);
  }
  if (!error_.ok()) return error_;
  LoadLevel level = samples_.Finish();
  if (level.requests + level.Failed() > 0) return level;
  return absl::FailedPreconditionError(
      absl::StrCat("no request began in the ", plan_.seconds, " s that were measured"));
}

void LevelRun::SendDue() {
  for (;;) {
    LoadRequest request;
    {
      const std::lock_guard lock(mutex_);
      if (!TakeDue(request)) return;
    }
    target_.Send(request, *this);
  }
}

bool LevelRun::TakeDue(LoadRequest& request) {
  const std::optional<double> next = arrivals_->Next();
  if (closed_ || !next) return false;
  if (NoMore(*next)) {
    closed_ = true;
    clock_.Wake();
    return false;
  }
  if (*next > clock_.Now()) return false;
  request.index = sent_++;
  request.intended = *next;
  request.prompt_length = plan_.prompts.At(Lengths::Of::kPrompts, plan_.seed, request.index);
  request.output_length = plan_.outputs.At(Lengths::Of::kOutputs, plan_.seed, request.index);
  arrivals_->Take();
  ++calls_;
  samples_.Sent(request, ++under_way_);
  return true;
}

bool LevelRun::NoMore(double next) const {
  if (plan_.seconds == 0) return samples_.measured() >= plan_.requests;
  return next >= begin_ + plan_.warm_up + plan_.seconds;
}

void LevelRun::OnTokens(uint32_t count) { tokens_.fetch_add(count, std::memory_order_relaxed); }

void LevelRun::OnEnd(const Answer& answer) {
  {
    const std::lock_guard lock(mutex_);
    --under_way_;
    Note(answer);
    arrivals_->Ended(answer.ended);
  }
  SendDue();  // before the samples are looked at: nothing waits for that
  const std::lock_guard lock(mutex_);
  samples_.Add(answer);
  ++ended_;
  --calls_;  // Run may return from here on
  clock_.Wake();
}

void LevelRun::Note(const Answer& answer) {
  if (answer.status.ok() || (plan_.load.open() && IsLoads(answer.status))) return;
  if (error_.ok()) error_ = answer.status;
  closed_ = true;
}

LevelProgress LevelRun::Progress(double now) {
  if (now - shown_at_ >= kRateSeconds) {
    const uint64_t tokens = tokens_.load(std::memory_order_relaxed);
    shown_rate_ = static_cast<double>(tokens - shown_tokens_) / (now - shown_at_);
    shown_tokens_ = tokens;
    shown_at_ = now;
  }
  const LoadLevel& level = samples_.level();
  LevelProgress out;
  out.warming = now < begin_ + plan_.warm_up;
  out.done = plan_.seconds > 0 ? (now - begin_) / (plan_.warm_up + plan_.seconds)
                               : static_cast<double>(ended_) / static_cast<double>(plan_.requests);
  out.done = std::min(out.done, 1.0);
  out.ended = ended_;
  out.failed = level.Failed();
  out.under_way = under_way_;
  out.tokens_per_second = shown_rate_;
  out.first_token_p50 = level.first_token.Percentile(0.5);
  out.first_token_p99 = level.first_token.Percentile(0.99);
  return out;
}

}  // namespace sirocco
