// Drives an executor as an engine would, launching ahead of what it knows: lanes, blocks, chunks
// and batches chosen at random, so that tests can ask what of it shows in the answers.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "kernels/lanes.h"

namespace sirocco {

struct TestSequence {
  std::vector<int32_t> prompt;
  Lane params = {};  // `length` is set by the driver
  int32_t generate = 0;
};

// All that a sequence can show.
struct TestOutput {
  std::vector<TokenScore> scores;  // [generate]
  std::vector<float> logits;       // [generate, vocab], where kept

  std::vector<int32_t> Tokens() const;
};

bool SameBits(const TestOutput& a, const TestOutput& b);

// Block tables over physical blocks in random order.
class RandomBlocks {
 public:
  RandomBlocks(const ExecutorOptions& options, uint64_t seed);

  // Gives `lane` blocks for `slots` slots; the new ones' updates are appended.
  void Grow(int32_t lane, int32_t slots, std::vector<BlockUpdate>& updates);
  void Free(int32_t lane);

  const std::vector<int32_t>& Table(int32_t lane, int32_t group) const {
    return tables_[lane][group];
  }

 private:
  int32_t block_size_;
  std::vector<std::vector<int32_t>> free_;                 // [group]
  std::vector<std::vector<std::vector<int32_t>>> tables_;  // [lane][group]
};

// One sequence, on lane 0, in the largest chunks, step by step.
absl::StatusOr<TestOutput> RunAlone(Executor& executor, const TestSequence& sequence);

// The same by teacher forcing: each step goes on from `tokens` [generate], whatever was sampled.
absl::StatusOr<TestOutput> RunForced(Executor& executor, const TestSequence& sequence,
                                     const std::vector<int32_t>& tokens);

// All of them, joining and leaving batches of every size on any lane, in chunks of any size, as
// many steps in flight as the executor can have; now and then one loses its lane and blocks and is
// computed again from its tokens. The seed alone fixes the schedule.
absl::StatusOr<std::vector<TestOutput>> RunSchedule(Executor& executor,
                                                    const std::vector<TestSequence>& sequences,
                                                    uint64_t seed);

// Greedy, drawn, filtered, penalised and scored ones.
std::vector<TestSequence> RandomSequences(int count, int32_t vocab_size, uint64_t seed);

}  // namespace sirocco
