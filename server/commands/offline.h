// A model and its engine for a command that needs no server, and what it did.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/observer.h"
#include "server/config/config.h"
#include "server/model/served_model.h"

namespace sirocco {

// Counts of an engine's work; any thread reads them.
class WorkCounts final : public EngineObserver {
 public:
  int64_t prompt_tokens() const { return prompt_tokens_; }        // of requests that started
  int64_t computed_tokens() const { return computed_tokens_; }    // of prompts, by prefill
  int64_t generated_tokens() const { return generated_tokens_; }  // that were delivered
  // Rows of a decode step, on average; 0: there was none.
  double mean_batch() const {
    const int64_t steps = decode_steps_;
    return steps == 0 ? 0 : static_cast<double>(decode_rows_) / static_cast<double>(steps);
  }

  void OnGauges(const EngineGauges&) override {}
  void OnStep(StepPhase phase, double, int32_t tokens) override {
    if (phase == StepPhase::kPrefill) {
      computed_tokens_ += tokens;
    } else {
      ++decode_steps_;
      decode_rows_ += tokens;
    }
  }
  void OnPrefixCache(int64_t, int64_t) override {}
  void OnOverrunRows(int32_t) override {}
  void OnPreemptions(int32_t) override {}
  void OnQueueTime(double) override {}
  void OnPromptTokens(int32_t count) override { prompt_tokens_ += count; }
  void OnRejected(std::string_view) override {}
  void OnCancelToFree(double) override {}
  void OnFirstToken(double) override {}
  void OnInterToken(double) override {}
  void OnGeneratedTokens(int32_t count) override { generated_tokens_ += count; }
  void OnSequenceFinished(FinishReason) override {}
  void OnRequestFinished(double) override {}

 private:
  std::atomic<int64_t> prompt_tokens_{0}, computed_tokens_{0}, generated_tokens_{0};
  std::atomic<int64_t> decode_steps_{0}, decode_rows_{0};
};

// Loads what the configuration names and starts its engine, with a bar on a terminal, and the log
// as configured. `counts` outlives the model.
absl::StatusOr<std::unique_ptr<ServedModel>> OpenOffline(const Config& config, WorkCounts* counts);

}  // namespace sirocco
