// A request's output on its way to the client, and the client's cancellation on its way back.
//
// The delivery threads put results in; the reactor takes them out. What is not taken yet is merged
// into one update an index, so a slow reader costs at most one request's whole output, which
// max_length bounds.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"
#include "kernels/lanes.h"

namespace sirocco {

enum class FinishReason : uint8_t { kNone, kStop, kLength };
// How far a request came: it waits, it has a lane, it has a token.
enum class RequestStage : uint8_t { kQueue, kPrefill, kDecode };

// A token with its logprob; `alternatives` as many as were asked. Bytes come from the tokenizer.
// The first prompt token has none: rank 0, and nothing in it.
struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0;
  int32_t rank = 0;
  std::vector<std::pair<int32_t, float>> alternatives;
};

// What one sequence has newly put out.
struct OutputDelta {
  int32_t index = 0;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<TokenLogprob> logprobs;
  FinishReason finish_reason = FinishReason::kNone;  // kNone: goes on
  std::string stop_reason;
  double cumulative_logprob = 0;  // with the finish reason
};

struct RequestUsage {
  int32_t prompt_tokens = 0;
  int32_t cached_prompt_tokens = 0;
  int32_t completion_tokens = 0;
};

struct RequestTiming {
  Clock::duration queue{}, prefill{}, decode{};
};

// All that came since the last Take.
struct StreamUpdate {
  std::vector<TokenLogprob> prompt_logprobs;  // once, before or with the first delta
  std::vector<OutputDelta> deltas;            // at most one an index, in order of index
  bool done = false;                          // nothing follows; the rest is set
  absl::Status status;                        // why it ended; OK: all sequences finished
  RequestUsage usage;
  RequestTiming timing;
  RequestStage stage = RequestStage::kQueue;  // that it had reached
  uint64_t seed = 0;

  bool empty() const { return deltas.empty() && prompt_logprobs.empty() && !done; }
};

class TokenStream {
 public:
  // Called from a delivery thread when something can be taken that a former call did not announce;
  // never from the engine thread, never twice at once for one stream. It must not block.
  using Listener = std::function<void()>;

  // `cancel_signal` is set by each Cancel, so that its owner need not ask every stream.
  explicit TokenStream(Listener listener,
                       std::shared_ptr<std::atomic<bool>> cancel_signal = nullptr)
      : listener_(std::move(listener)), cancel_signal_(std::move(cancel_signal)) {}

  // Consumer, any one thread at a time.
  StreamUpdate Take();
  // The client is gone or asks no more: the sequences end at the next step. After this the stream
  // still ends with one `done` update. Any thread, any number of times; the first reason stays.
  void Cancel(absl::StatusCode reason);  // kCancelled, kDeadlineExceeded, kUnavailable
  // No further listener call begins after this returns (a running one has ended). Not from the
  // listener itself.
  void Detach();

  // Producer side: the engine and its delivery threads.
  bool cancelled() const { return cancel_.load(std::memory_order_acquire) != 0; }
  absl::StatusCode cancel_reason() const {
    return static_cast<absl::StatusCode>(cancel_.load(std::memory_order_acquire));
  }
  Clock::time_point cancel_time() const { return cancel_time_; }  // once cancelled
  void Put(StreamUpdate update);                                  // one thread

 private:
  std::mutex mutex_;           // pending_, announced_; writing cancel_time_
  std::mutex listener_mutex_;  // held while the listener runs
  StreamUpdate pending_;
  bool announced_ = false;
  Listener listener_;
  Clock::time_point cancel_time_;  // published by cancel_
  std::atomic<int> cancel_{0};
  std::shared_ptr<std::atomic<bool>> cancel_signal_;
};

}  // namespace sirocco
