#include "server/bench/workload.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "engine/sequence_blocks.h"

namespace sirocco {

int64_t BlocksOfWorkload(const LayerGroup& group, const ExecutorOptions& options, int32_t batch,
                         int32_t prompt_length, int32_t output_length) {
  return int64_t{batch} * SequenceBlocks(group, prompt_length + output_length, options.block_size,
                                         options.prefill_chunk_size);
}

Workload::Workload(const ModelDescriptor& descriptor, const ExecutorOptions& options, int32_t batch,
                   int32_t prompt_length, int32_t output_length, uint64_t seed)
    : vocab_size_(descriptor.vocab_size), batch_(batch), lanes_(batch) {
  const auto blocks = [&](const LayerGroup& group) {
    return SequenceBlocks(group, prompt_length + output_length, options.block_size,
                          options.prefill_chunk_size);
  };
  logical_blocks_ = blocks(LayerGroup());
  for (const LayerGroup& group : descriptor.groups) blocks_.push_back(blocks(group));
  std::iota(lanes_.begin(), lanes_.end(), 0);
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<int32_t> ids(0, descriptor.vocab_size - 1);
  tokens_.resize(batch);
  for (std::vector<int32_t>& tokens : tokens_) {
    tokens.resize(prompt_length + 1);
    for (int32_t& id : tokens) id = ids(random);
  }

  int32_t room = 0;
  for (int32_t lane = 0; lane < batch; ++lane) {
    for (int32_t done = 0; done < prompt_length;) {
      if (room == 0) {
        prompts_.steps.emplace_back();
        prompts_.updates.emplace_back();
        room = options.prefill_chunk_size;
      }
      if (done == 0) AddUpdates(lane, prompts_.updates.back());
      const int32_t count = std::min(room, prompt_length - done);
      PrefillChunk chunk;
      chunk.lane = lane;
      chunk.first_position = done;
      chunk.count = count;
      chunk.sample = done + count == prompt_length;
      prompts_.steps.back().push_back(chunk);
      done += count;
      room -= count;
    }
  }
}

// Blocks of all sequences alternate in memory: neighbours are somebody else's, as after a while of
// serving.
void Workload::AddUpdates(int32_t lane, std::vector<BlockUpdate>& updates) const {
  for (size_t group = 0; group < blocks_.size(); ++group) {
    for (int32_t logical = 0; logical < logical_blocks_; ++logical) {
      updates.push_back({.lane = lane,
                         .group = static_cast<int32_t>(group),
                         .logical = logical,
                         .physical = logical % blocks_[group] * batch_ + lane});
    }
  }
}

absl::Status Workload::Start(Executor& executor, bool after_prompt) const {
  for (const int32_t lane : lanes_) {
    LaneStart start;
    start.lane = lane;
    const std::span<const int32_t> tokens = tokens_[lane];
    start.tokens = after_prompt ? tokens : tokens.first(tokens.size() - 1);
    start.prompt_length = static_cast<int32_t>(tokens.size()) - 1;
    start.state.length = static_cast<int32_t>(start.tokens.size());
    start.state.top_p = 1;
    start.state.repetition_penalty = 1;
    if (absl::Status status = executor.StartLane(start); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace sirocco
