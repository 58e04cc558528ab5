// Where the engine tells what happens, for metrics and logs. Implementations must be cheap and
// thread-safe: calls come from the engine thread and the delivery threads.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/token_stream.h"

namespace sirocco {

enum class StepPhase : uint8_t { kPrefill, kDecode };

// Set by the engine thread when they have changed: after admissions, and after a step before the
// clients can have its tokens.
struct EngineGauges {
  int32_t requests_running = 0;
  int32_t requests_waiting = 0;
  int64_t queue_tokens = 0;  // prompt tokens that wait
  int64_t kv_blocks_used = 0;
  int64_t kv_blocks_free = 0;
  int64_t kv_blocks_cached = 0;

  bool operator==(const EngineGauges&) const = default;
};

class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  // Engine thread.
  virtual void OnGauges(const EngineGauges& gauges) = 0;
  // `seconds`: the device's, for this part of a step. `tokens`: prompt tokens computed, or rows of
  // the decode batch, overrun rows included.
  virtual void OnStep(StepPhase phase, double seconds, int32_t tokens) = 0;
  // Prompt tokens that were looked for in the prefix cache, and those found: once a sequence, when
  // the step with its first chunk has ended.
  virtual void OnPrefixCache(int64_t queries, int64_t hits) = 0;
  // Decode rows of a step that were computed for sequences whose end was not known at its launch.
  virtual void OnOverrunRows(int32_t rows) = 0;
  // Sequences that lost their blocks and are computed anew later.
  virtual void OnPreemptions(int32_t count) = 0;
  virtual void OnQueueTime(double seconds) = 0;  // once a request that starts
  virtual void OnPromptTokens(
      int32_t count) = 0;  // once a request that starts, each n counted once
  virtual void OnRejected(std::string_view reason) = 0;  // "queue_full", ...; any thread
  virtual void OnCancelToFree(double seconds) = 0;       // once a sequence
  // Delivery threads; only what the client is given counts.
  virtual void OnFirstToken(double seconds) = 0;  // since the request came; once a sequence
  virtual void OnInterToken(double seconds) = 0;  // once a token after the first
  virtual void OnGeneratedTokens(int32_t count) = 0;
  // kNone: its request was ended before.
  virtual void OnSequenceFinished(FinishReason reason) = 0;
  virtual void OnRequestFinished(double seconds) = 0;  // since it came; requests that ended OK
};

}  // namespace sirocco
