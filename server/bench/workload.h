// The sequences of one measurement: their tokens, lanes and blocks, as an engine would have them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "graphs/step.h"

namespace sirocco {

class Workload {
 public:
  // `batch` sequences of random prompts; all block tables are filled by the first step. `options`
  // are the executor's: it has the lanes and the blocks (BlocksOfWorkload).
  Workload(const ModelDescriptor& descriptor, const ExecutorOptions& options, int32_t batch,
           int32_t prompt_length, int32_t output_length, uint64_t seed);

  // Every sequence takes its lane anew: with its prompt alone, or with one token after it, when the
  // prompts' keys and values are there from an earlier run. (Block tables change only by updates.
  // Behind a window those of the earlier run's end may stand: they take as long to read.)
  absl::Status Start(Executor& executor, bool after_prompt) const;

  // The prompts' steps: chunks of as many sequences as fit into prefill_chunk_size rows. The last
  // chunk of each samples.
  struct Prompts {
    std::vector<std::vector<PrefillChunk>> steps;
    std::vector<std::vector<BlockUpdate>> updates;  // by step
  };
  const Prompts& prompts() const { return prompts_; }
  const std::vector<int32_t>& lanes() const { return lanes_; }  // all
  int32_t vocab_size() const { return vocab_size_; }            // of the model: ids are below it

 private:
  void AddUpdates(int32_t lane, std::vector<BlockUpdate>& updates) const;

  int32_t vocab_size_;
  int32_t batch_;
  int32_t logical_blocks_;       // of a sequence
  std::vector<int32_t> blocks_;  // by layer group: of a sequence, used in turn (SequenceBlocks)
  std::vector<std::vector<int32_t>> tokens_;  // [batch][prompt_length + 1]
  std::vector<int32_t> lanes_;
  Prompts prompts_;
};

// Blocks that a batch of such sequences takes of a layer group.
int64_t BlocksOfWorkload(const LayerGroup& group, const ExecutorOptions& options, int32_t batch,
                         int32_t prompt_length, int32_t output_length);

}  // namespace sirocco
