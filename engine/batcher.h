// Continuous batching, as pure logic: which sequence runs in which step, in which lane, with which
// blocks. It has no thread, no clock and no device; the engine loop gives it time and results.
//
// Between two steps: requests join the queue, ended sequences leave, and the queue's head takes
// lanes while there are lanes and blocks (first come, first served; nobody overtakes). A step is a
// prefill of the next chunks of the sequences whose prompt is not done, oldest first, and a decode
// of all whose prompt was done before the step: a batch of exactly their number.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/events.h"
#include "engine/kv_cache.h"
#include "engine/observer.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "graphs/step.h"

namespace sirocco {

struct BatcherOptions {
  int32_t max_batch_size = 1;        // lanes
  int32_t prefill_chunk_size = 512;  // prompt tokens a step
  int32_t block_size = 16;
  std::vector<int32_t> kv_blocks;  // of each layer group
};

class Batcher {
 public:
  explicit Batcher(const BatcherOptions& options);

  // Whether the request's sequences could ever have their blocks. Any thread.
  bool CanEverRun(const Request& request) const { return kv_.CanEverHold(SlotsOf(request)); }

  // --- between steps ---
  void Enqueue(std::shared_ptr<const RequestContext> context);
  // A sequence whose end the delivery has found. It may have ended meanwhile.
  void EndSequence(uint64_t request, int32_t index);

  // Ends the requests whose client is gone or whose deadline has passed, and frees their lanes and
  // blocks. `look`: a stream was cancelled since the last call; without it only deadlines are
  // watched.
  struct Ended {
    std::shared_ptr<const RequestContext> context;
    absl::StatusCode reason = absl::StatusCode::kCancelled;
    RequestStage stage = RequestStage::kQueue;
    Clock::time_point since;  // of the cancellation, or the deadline
    int32_t lanes = 0;        // sequences that held a lane and blocks
  };
  std::vector<Ended> EndCancelled(Clock::time_point now, bool look);
  void EndAll();

  // The queue's head takes lanes. The sequences returned are to be started on the executor; they
  // live until they end.
  std::vector<const Sequence*> Admit();

  // --- a step ---
  // Views are valid until the next call of Plan. Either part may be empty.
  struct Plan {
    PrefillStep prefill;
    DecodeStep decode;
    int32_t prefill_tokens = 0;
  };
  Plan PlanStep();
  // What the parts of the plan gave; `time`: when they ended. Ended sequences free their lanes and
  // blocks. INTERNAL: the result does not fit the plan.
  absl::Status FinishPrefill(const PrefillResult& result, Clock::time_point time,
                             std::vector<Event>* events);
  absl::Status FinishDecode(const DecodeResult& result, Clock::time_point time,
                            std::vector<Event>* events);

  // --- figures ---
  bool empty() const { return requests_.empty(); }
  EngineGauges gauges() const;
  // Requests that could start at once if they came now: 0 while others wait.
  int32_t startable() const {
    return queue_.empty() ? static_cast<int32_t>(free_lanes_.size()) : 0;
  }

 private:
  // A request from Enqueue until its last sequence has ended.
  struct Live {
    std::shared_ptr<const RequestContext> context;
    int32_t started = 0;  // sequences that took a lane
    int32_t running = 0;  // of them, not ended yet
    bool first_token = false;

    bool waits() const { return started == 0; }
    bool all_started() const { return started == context->sequences_to_run(); }
  };

  RequestStage StageOf(const Live& live) const;
  void CountWaiting(const Live& live, int sign);
  void FinishChunk(Sequence& sequence, const PrefillChunk& chunk, const TokenScore* sampled,
                   std::span<const TokenScore> scored, Clock::time_point time,
                   std::vector<Event>* events);
  static void TokenCame(Sequence& sequence, const TokenScore& score, Clock::time_point time,
                        std::vector<Event>* events);
  // Takes the ended sequences out of the batch, and their requests if nothing of them is left.
  void Retire();

  const BatcherOptions options_;
  KvCache kv_;
  std::map<uint64_t, Live> requests_;
  std::deque<uint64_t> queue_;  // requests that have sequences to start
  int32_t waiting_requests_ = 0;
  int64_t waiting_tokens_ = 0;
  std::vector<std::unique_ptr<Sequence>> running_;  // by admission
  std::vector<int32_t> free_lanes_;                 // the last is taken next
  bool look_ = false;                               // a request was cancelled before it came
  Clock::time_point next_deadline_ = Clock::time_point::max();

  // The step's plan, kept to reuse the memory.
  std::vector<BlockUpdate> prefill_updates_, decode_updates_;
  std::vector<PrefillChunk> chunks_;
  std::vector<int32_t> lanes_;
  std::vector<Sequence*> prefill_rows_, decode_rows_;  // of chunks_, of lanes_
};

}  // namespace sirocco
