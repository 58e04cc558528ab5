// An executor over the fake model that keeps a KV cache, reads it through block tables as a device
// would, and checks every step it is given. A slot holds the hash of all tokens up to its own: as a
// key and a value do, it depends on all of them, so that what stands in a block may be read by
// whoever has the same tokens before its end, and by nobody else. A step is computed only when it
// is collected, from the views that it was launched with: nobody can know its tokens before, and a
// view that changed meanwhile shows.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "graphs/executor.h"

namespace sirocco {

// What a test shares with the executor, which the engine owns.
struct FakeDevice {
  std::function<void()> before_step;        // set before the engine starts; engine thread
  std::atomic<bool> fails{false};           // the next launch ends in a fault
  std::atomic<bool> breaks{false};          // the next step to be collected ended in a fault
  std::atomic<int32_t> prefill_tokens{0};   // computed
  std::atomic<int32_t> decode_rows{0};      // computed
  std::atomic<int32_t> largest_batch{0};    // of a decode
  std::atomic<int32_t> largest_prefill{0};  // tokens of a prefill step
  std::atomic<int32_t> most_in_flight{0};   // steps
  std::atomic<int32_t> forks{0};            // of lanes, to other lanes
  std::atomic<int32_t> block_copies{0};

  void Violate(const std::string& what);
  std::string violation() const;  // the first; empty: none

 private:
  mutable std::mutex mutex_;
  std::string violation_;
};

class FakeExecutor final : public Executor {
 public:
  // `groups`: how far back each layer group sees; all the way, where it is empty.
  FakeExecutor(ExecutorOptions options, std::vector<LayerGroup> groups, int run_ahead,
               std::shared_ptr<FakeDevice> device);

  absl::Status StartLane(const LaneStart& start) override;
  absl::Status ForkLane(const LaneFork& fork) override;
  int run_ahead() const override { return run_ahead_; }
  int in_flight() const override { return static_cast<int>(launched_.size()); }
  absl::Status Launch(const Step& step) override;
  absl::StatusOr<StepResult> Collect() override;
  const ExecutorOptions& options() const override { return options_; }
  const ExecutorStats& stats() const override { return stats_; }
  std::vector<PlanEntry> DecodePlan() const override { return {}; }
  absl::StatusOr<std::span<const float>> KeptLogits(int) override {
    return absl::UnimplementedError("the fake model has no logits");
  }

 private:
  struct LaneState {
    int64_t life = 0;  // which sequence of all that were started; 0: none yet
    Lane state = {};
    std::vector<int32_t> tokens;
    std::vector<int32_t> barred_ids;
    int32_t computed = 0;                     // tokens with KV
    bool begun = false;                       // a chunk of it was run
    std::vector<std::vector<int32_t>> table;  // [group][logical]; -1: not set
  };

  // A step in flight: its views, and what stood in them when it was launched.
  struct Launched {
    Step step;
    std::vector<BlockUpdate> prefill_updates, decode_updates;
    std::vector<BlockCopy> copies;
    std::vector<PrefillChunk> chunks;
    std::vector<int32_t> lanes;
    std::vector<int64_t> lives;  // of the sequences it names
  };

  void OnThread();
  bool InFlight(int64_t life) const;
  // At the end of a step, in the order of the steps.
  void CheckViews(const Launched& launched);
  void RunPrefill(const PrefillStep& step);
  void RunDecode(const DecodeStep& step);
  void ApplyUpdates(std::span<const BlockUpdate> updates, std::span<const BlockCopy> copies = {});
  void CopyBlocks(std::span<const BlockCopy> copies);
  void Write(LaneState& lane, int32_t position);
  // The tokens before `end`, after a check that all groups hold what they show of them.
  std::span<const int32_t> Attend(const LaneState& lane, int32_t end);
  void Expect(bool condition, const std::string& what);

  const ExecutorOptions options_;
  std::vector<LayerGroup> groups_;
  const int run_ahead_;
  ExecutorStats stats_;
  std::shared_ptr<FakeDevice> device_;
  std::thread::id thread_;
  int64_t lives_ = 0;
  std::vector<LaneState> lanes_;
  std::vector<std::vector<uint64_t>> slots_;  // [group][physical * block_size + slot]
  std::deque<Launched> launched_;
  std::vector<TokenScore> prefilled_, decoded_, scored_;  // results of the last step collected
};

// Two layer groups, `blocks` blocks each.
ExecutorOptions FakeOptions(int32_t max_batch_size, int32_t max_length, int32_t blocks);

}  // namespace sirocco
