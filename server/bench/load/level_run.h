// Runs one level of a load: sends each request when its time has come, and gathers the answers.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "server/bench/load/arrivals.h"
#include "server/bench/load/lengths.h"
#include "server/bench/load/load_level.h"
#include "server/bench/load/load_world.h"

namespace sirocco {

// Requests meant for `warm_up` ... `warm_up` + `seconds` are measured; or, where `seconds` is 0,
// the first `requests` after `warm_up`.
struct LevelPlan {
  Load load;
  Lengths prompts = Lengths(128);
  Lengths outputs = Lengths(128);
  uint64_t seed = 1;
  double warm_up = 0;
  double seconds = 0;
  uint64_t requests = 0;
};

struct LevelProgress {
  bool warming = false;
  double done = 0;  // 0 ... 1, of the time or the requests
  uint64_t ended = 0;
  uint64_t failed = 0;  // of those that are measured
  int32_t under_way = 0;
  double tokens_per_second = 0;  // in the last second or so
  double first_token_p50 = 0, first_token_p99 = 0;
};
using LevelProgressCallback = std::function<void(const LevelProgress&)>;

class LevelRun final : private AnswerListener {
 public:
  LevelRun(const LevelPlan& plan, LoadClock& clock, LoadTarget& target);

  // Once. Returns when every request has ended. `progress`: some ten times a second, may be empty.
  // An error: a call's that no load explains; any in a closed loop, which would only ask again;
  // FAILED_PRECONDITION where no request was measured.
  absl::StatusOr<LoadLevel> Run(const LevelProgressCallback& progress);

 private:
  void OnTokens(uint32_t count) override;
  void OnEnd(const Answer& answer) override;

  // Sends what is due. Any thread.
  void SendDue();
  // With the mutex:
  bool TakeDue(LoadRequest& request);
  bool NoMore(double next) const;
  void Note(const Answer& answer);
  LevelProgress Progress(double now);

  const LevelPlan plan_;
  LoadClock& clock_;
  LoadTarget& target_;
  const double begin_;

  std::mutex mutex_;
  std::unique_ptr<Arrivals> arrivals_;
  LevelSamples samples_;
  bool closed_ = false;  // nothing is sent any more
  uint64_t sent_ = 0;
  int32_t under_way_ = 0;
  int32_t calls_ = 0;  // under way, or their OnEnd has not returned
  uint64_t ended_ = 0;
  absl::Status error_;  // ends the run
  std::atomic<uint64_t> tokens_ = 0;
  uint64_t shown_tokens_ = 0;
  double shown_at_;
  double shown_rate_ = 0;
};

}  // namespace sirocco
