// The engine's thread and all that it owns.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/batcher.h"
#include "engine/delivery.h"
#include "engine/engine.h"
#include "engine/events.h"
#include "engine/inbox.h"
#include "engine/observer.h"
#include "engine/prefix_hash.h"
#include "graphs/executor.h"

namespace sirocco {

class EngineLoop final : public Engine {
 public:
  // Options are valid; Start() starts the threads.
  EngineLoop(std::unique_ptr<Executor> executor, const Tokenizer* tokenizer,
             EngineObserver* observer, const EngineOptions& options);
  ~EngineLoop() override;
  void Start();

  absl::StatusOr<std::shared_ptr<TokenStream>> Submit(Request request,
                                                      TokenStream::Listener listener) override;
  bool Drain(std::chrono::milliseconds timeout) override;
  absl::Status fault() const override;
  Clock::time_point last_step() const override;
  bool has_work() const override { return inbox_.busy() && fault().ok(); }
  const Executor& executor() const override { return *executor_; }

 private:
  // The engine thread: one turn is what comes between two launches, the launch of a step, and the
  // end of a step: of the same one, or of the one before where the executor runs ahead.
  void Run();
  absl::Status Turn();
  void TakeArrivals();
  void Enqueue(std::shared_ptr<const RequestContext> context);
  void EndCancelled();
  absl::Status Admit();
  absl::Status RunStep();
  absl::Status CollectStep();
  void TellFreed();
  void TellGauges();
  void Fault(const absl::Status& status);

  const EngineOptions options_;
  std::unique_ptr<Executor> executor_;
  const std::optional<PrefixHasher> hasher_;  // none: no prefix cache
  const Tokenizer* tokenizer_;
  EngineObserver* observer_;
  std::shared_ptr<std::atomic<bool>> cancel_signal_;  // a stream was cancelled
  std::atomic<uint64_t> next_number_{0};
  std::atomic<Clock::rep> last_step_;
  absl::Status fault_;  // published by faulty_
  std::atomic<bool> faulty_{false};

  // The engine thread's, once it runs.
  Batcher batcher_;
  Inbox::Contents arrivals_;
  std::vector<Event> events_;  // of this turn
  std::optional<EngineGauges> told_gauges_;

  Inbox inbox_;
  Delivery delivery_;  // its threads use inbox_
  std::thread thread_;
};

}  // namespace sirocco
