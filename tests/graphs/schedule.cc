#include "tests/graphs/schedule.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <span>
#include <utility>

namespace sirocco {
namespace {

// A sequence on its way through a schedule.
struct Running {
  const TestSequence* sequence = nullptr;
  TestOutput output;
  std::vector<int32_t> tokens;  // the prompt, and what was generated
  int32_t lane = -1;            // -1: waits
  int32_t computed = 0;         // positions that have KV
  bool fresh = true;            // its next step is a prefill's
  bool Done() const { return output.scores.size() == static_cast<size_t>(sequence->generate); }
};

class Schedule {
 public:
  Schedule(Executor& executor, const std::vector<TestSequence>& sequences, uint64_t seed)
      : executor_(executor), random_(seed), blocks_(executor.options(), seed + 1) {
    for (const TestSequence& sequence : sequences) {
      Running& running = all_.emplace_back();
      running.sequence = &sequence;
      running.tokens = sequence.prompt;
    }
    for (int32_t lane = 0; lane < executor.options().max_batch_size; ++lane) {
      free_lanes_.push_back(lane);
    }
  }

  absl::StatusOr<std::vector<TestOutput>> Run() {
    for (;;) {
      absl::Status status = Admit();
      if (status.ok()) status = Prefill();
      for (int i = Below(4); status.ok() && i >= 0; --i) status = Decode();
      if (!status.ok()) return status;
      Leave();
      if (std::all_of(all_.begin(), all_.end(), [](const Running& r) { return r.Done(); })) break;
    }
    std::vector<TestOutput> outputs;
    for (Running& running : all_) outputs.push_back(std::move(running.output));
    return outputs;
  }

 private:
  int Below(int bound) { return static_cast<int>(random_() % bound); }

  absl::Status Admit() {
    for (Running& r : all_) {
      if (r.Done() || r.lane >= 0 || free_lanes_.empty() || Below(2) == 0) continue;
      const int pick = Below(static_cast<int>(free_lanes_.size()));
      r.lane = free_lanes_[pick];
      free_lanes_.erase(free_lanes_.begin() + pick);
      LaneStart start;
      start.lane = r.lane;
      start.state = r.sequence->params;
      start.state.length = static_cast<int32_t>(r.tokens.size());
      start.tokens = r.tokens;
      start.prompt_length = static_cast<int32_t>(r.sequence->prompt.size());
      if (absl::Status status = executor_.StartLane(start); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status Take(Running& r, const TokenScore& score, int row) {
    r.output.scores.push_back(score);
    r.tokens.push_back(score.token_id);
    if (!executor_.options().keep_logits) return absl::OkStatus();
    const absl::StatusOr<std::span<const float>> logits = executor_.KeptLogits(row);
    if (!logits.ok()) return logits.status();
    r.output.logits.insert(r.output.logits.end(), logits->begin(), logits->end());
    return absl::OkStatus();
  }

  std::vector<Running*> Shuffled(bool prefilling) {
    std::vector<Running*> chosen;
    for (Running& r : all_) {
      if (r.lane >= 0 && !r.Done() && r.fresh == prefilling) chosen.push_back(&r);
    }
    std::shuffle(chosen.begin(), chosen.end(), random_);
    return chosen;
  }

  absl::Status Prefill() {
    int32_t room = executor_.options().prefill_chunk_size;
    std::vector<PrefillChunk> chunks;
    std::vector<BlockUpdate> updates;
    std::vector<Running*> sampling;
    for (Running* r : Shuffled(true)) {
      const int32_t rest = static_cast<int32_t>(r->tokens.size()) - r->computed;
      const int32_t count = std::min(1 + Below(rest), room);
      if (count == 0 || Below(4) == 0) continue;
      room -= count;
      PrefillChunk& chunk = chunks.emplace_back();
      chunk.lane = r->lane;
      chunk.first_position = r->computed;
      chunk.count = count;
      chunk.sample = count == rest;
      r->computed += count;
      blocks_.Grow(r->lane, r->computed, updates);
      if (!chunk.sample) continue;
      r->fresh = false;
      sampling.push_back(r);
    }
    if (chunks.empty()) return absl::OkStatus();
    const absl::StatusOr<PrefillResult> result =
        executor_.Prefill({.block_updates = updates, .chunks = chunks});
    if (!result.ok()) return result.status();
    for (size_t i = 0; i < sampling.size(); ++i) {
      absl::Status status = Take(*sampling[i], result->sampled[i], static_cast<int>(i));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status Decode() {
    std::vector<Running*> batch = Shuffled(false);
    if (batch.empty()) return absl::OkStatus();
    batch.resize(1 + Below(static_cast<int>(batch.size())));
    std::vector<int32_t> lanes;
    std::vector<BlockUpdate> updates;
    for (Running* r : batch) {
      lanes.push_back(r->lane);
      blocks_.Grow(r->lane, ++r->computed, updates);
    }
    const absl::StatusOr<DecodeResult> result =
        executor_.Decode({.block_updates = updates, .lanes = lanes});
    if (!result.ok()) return result.status();
    for (size_t i = 0; i < batch.size(); ++i) {
      absl::Status status = Take(*batch[i], result->sampled[i], static_cast<int>(i));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // Ended sequences leave; now and then one that has not must start again.
  void Leave() {
    for (Running& r : all_) {
      if (r.lane < 0 || (!r.Done() && Below(16) != 0)) continue;
      blocks_.Free(r.lane);
      free_lanes_.push_back(r.lane);
      r.lane = -1;
      r.computed = 0;
      r.fresh = true;
    }
  }

  Executor& executor_;
  std::mt19937_64 random_;
  RandomBlocks blocks_;
  std::vector<Running> all_;
  std::vector<int32_t> free_lanes_;
};

}  // namespace

std::vector<int32_t> TestOutput::Tokens() const {
  std::vector<int32_t> tokens;
  for (const TokenScore& score : scores) tokens.push_back(score.token_id);
  return tokens;
}

bool SameBits(const TestOutput& a, const TestOutput& b) {
  if (a.scores.size() != b.scores.size() || a.logits.size() != b.logits.size()) return false;
  for (size_t i = 0; i < a.scores.size(); ++i) {
    const TokenScore& x = a.scores[i];
    const TokenScore& y = b.scores[i];
    if (x.token_id != y.token_id || x.rank != y.rank || x.top_count != y.top_count ||
        std::memcmp(&x.logprob, &y.logprob, sizeof(float)) != 0 ||
        std::memcmp(x.top_ids, y.top_ids, x.top_count * sizeof(int32_t)) != 0 ||
        std::memcmp(x.top_logprobs, y.top_logprobs, x.top_count * sizeof(float)) != 0) {
      return false;
    }
  }
  return a.logits.empty() ||
         std::memcmp(a.logits.data(), b.logits.data(), a.logits.size() * sizeof(float)) == 0;
}

RandomBlocks::RandomBlocks(const ExecutorOptions& options, uint64_t seed)
    : block_size_(options.block_size),
      tables_(options.max_batch_size, std::vector<std::vector<int32_t>>(options.kv_blocks.size())) {
  std::mt19937_64 random(seed);
  for (const int32_t blocks : options.kv_blocks) {
    std::vector<int32_t>& free = free_.emplace_back();
    for (int32_t block = 0; block < blocks; ++block) free.push_back(block);
    std::shuffle(free.begin(), free.end(), random);
  }
}

void RandomBlocks::Grow(int32_t lane, int32_t slots, std::vector<BlockUpdate>& updates) {
  for (size_t group = 0; group < free_.size(); ++group) {
    std::vector<int32_t>& table = tables_[lane][group];
    while (static_cast<int32_t>(table.size()) * block_size_ < slots) {
      const int32_t block = free_[group].back();
      free_[group].pop_back();
      updates.push_back({.lane = lane,
                         .group = static_cast<int32_t>(group),
                         .logical = static_cast<int32_t>(table.size()),
                         .physical = block});
      table.push_back(block);
    }
  }
}

void RandomBlocks::Free(int32_t lane) {
  for (size_t group = 0; group < free_.size(); ++group) {
    std::vector<int32_t>& table = tables_[lane][group];
    free_[group].insert(free_[group].begin(), table.begin(), table.end());
    table.clear();
  }
}

absl::StatusOr<TestOutput> RunAlone(Executor& executor, const TestSequence& sequence) {
  RandomBlocks blocks(executor.options(), 0);
  const int32_t length = static_cast<int32_t>(sequence.prompt.size());
  LaneStart start;
  start.state = sequence.params;
  start.state.length = start.prompt_length = length;
  start.tokens = sequence.prompt;
  if (absl::Status status = executor.StartLane(start); !status.ok()) return status;
  TestOutput output;
  auto take = [&](std::span<const TokenScore> sampled) -> absl::Status {
    if (sampled.empty()) return absl::OkStatus();
    output.scores.push_back(sampled[0]);
    if (!executor.options().keep_logits) return absl::OkStatus();
    const absl::StatusOr<std::span<const float>> logits = executor.KeptLogits(0);
    if (!logits.ok()) return logits.status();
    output.logits.insert(output.logits.end(), logits->begin(), logits->end());
    return absl::OkStatus();
  };
  for (int32_t done = 0; done < length;) {
    const int32_t count = std::min(length - done, executor.options().prefill_chunk_size);
    std::vector<BlockUpdate> updates;
    blocks.Grow(0, done + count, updates);
    const PrefillChunk chunk = {
        .lane = 0, .first_position = done, .count = count, .sample = done + count == length};
    const absl::StatusOr<PrefillResult> result =
        executor.Prefill({.block_updates = updates, .chunks = {&chunk, 1}});
    if (!result.ok()) return result.status();
    if (absl::Status status = take(result->sampled); !status.ok()) return status;
    done += count;
  }
  const int32_t lane = 0;
  for (int32_t i = 1; i < sequence.generate; ++i) {
    std::vector<BlockUpdate> updates;
    blocks.Grow(0, length + i, updates);
    const absl::StatusOr<DecodeResult> result =
        executor.Decode({.block_updates = updates, .lanes = {&lane, 1}});
    if (!result.ok()) return result.status();
    if (absl::Status status = take(result->sampled); !status.ok()) return status;
  }
  return output;
}

absl::StatusOr<std::vector<TestOutput>> RunSchedule(Executor& executor,
                                                    const std::vector<TestSequence>& sequences,
                                                    uint64_t seed) {
  return Schedule(executor, sequences, seed).Run();
}

std::vector<TestSequence> RandomSequences(int count, int32_t vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<TestSequence> sequences(count);
  for (int i = 0; i < count; ++i) {
    TestSequence& sequence = sequences[i];
    sequence.prompt.resize(1 + random() % 70);
    for (int32_t& token : sequence.prompt) token = static_cast<int32_t>(random() % vocab_size);
    sequence.generate = 8 + static_cast<int32_t>(random() % 24);
    Lane& lane = sequence.params;
    lane.top_p = 1;
    lane.repetition_penalty = 1;
    lane.seed = random();
    lane.temperature = i % 3 == 0 ? 0 : 0.9f;
    if (i % 4 == 1) lane.top_k = 20;
    if (i % 4 == 2) lane.top_p = 0.8f;
    if (i % 5 == 3) {
      lane.flags |= kLanePenalties;
      lane.repetition_penalty = 1.3f;
      lane.presence_penalty = 0.5f;
      lane.frequency_penalty = 0.25f;
    }
    if (i % 2 == 1) {
      lane.flags |= kLaneLogprobs;
      lane.top_logprobs = 5;
    }
  }
  return sequences;
}

}  // namespace sirocco
