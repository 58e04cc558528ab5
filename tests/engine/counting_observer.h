// An observer that counts what it is told.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "engine/observer.h"

namespace sirocco {

struct Counts {
  EngineGauges gauges;
  int64_t prefill_tokens = 0, decode_rows = 0, prefill_steps = 0, decode_steps = 0;
  int64_t overrun_rows = 0;
  int64_t prefix_queries = 0, prefix_hits = 0;
  int64_t preemptions = 0;
  int64_t started = 0, prompt_tokens = 0;
  std::map<std::string, int64_t> rejected;  // by reason
  std::array<int64_t, 3> finished = {};     // by FinishReason
  int64_t cancelled_lanes = 0;
  int64_t first_tokens = 0, inter_tokens = 0, generated_tokens = 0;
  int64_t finished_requests = 0;
  bool negative_time = false;
};

class CountingObserver final : public EngineObserver {
 public:
  Counts counts() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

  void OnGauges(const EngineGauges& gauges) override {
    const std::lock_guard lock(mutex_);
    counts_.gauges = gauges;
  }
  void OnStep(StepPhase phase, double seconds, int32_t tokens) override {
    const std::lock_guard lock(mutex_);
    Time(seconds);
    (phase == StepPhase::kPrefill ? counts_.prefill_tokens : counts_.decode_rows) += tokens;
    ++(phase == StepPhase::kPrefill ? counts_.prefill_steps : counts_.decode_steps);
  }
  void OnPrefixCache(int64_t queries, int64_t hits) override {
    Add(queries, &counts_.prefix_queries);
    Add(hits, &counts_.prefix_hits);
  }
  void OnPreemptions(int32_t count) override { Add(count, &counts_.preemptions); }
  void OnOverrunRows(int32_t rows) override { Add(rows, &counts_.overrun_rows); }
  void OnQueueTime(double seconds) override { Count(seconds, &counts_.started); }
  void OnPromptTokens(int32_t count) override { Add(count, &counts_.prompt_tokens); }
  void OnRejected(std::string_view reason) override {
    const std::lock_guard lock(mutex_);
    ++counts_.rejected[std::string(reason)];
  }
  void OnCancelToFree(double seconds) override { Count(seconds, &counts_.cancelled_lanes); }
  void OnFirstToken(double seconds) override { Count(seconds, &counts_.first_tokens); }
  void OnInterToken(double seconds) override { Count(seconds, &counts_.inter_tokens); }
  void OnGeneratedTokens(int32_t count) override { Add(count, &counts_.generated_tokens); }
  void OnSequenceFinished(FinishReason reason) override {
    Add(1, &counts_.finished[static_cast<size_t>(reason)]);
  }
  void OnRequestFinished(double seconds) override { Count(seconds, &counts_.finished_requests); }

 private:
  void Time(double seconds) { counts_.negative_time |= seconds < 0; }
  void Add(int64_t count, int64_t* counter) {
    const std::lock_guard lock(mutex_);
    *counter += count;
  }
  void Count(double seconds, int64_t* counter) {
    const std::lock_guard lock(mutex_);
    Time(seconds);
    ++*counter;
  }

  mutable std::mutex mutex_;
  Counts counts_;
};

}  // namespace sirocco
