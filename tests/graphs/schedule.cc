#include "tests/graphs/schedule.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <random>
#include <span>
#include <utility>

namespace sirocco {
namespace {

// A sequence on its way through a schedule. What is launched is known before its tokens are.
struct Running {
  const TestSequence* sequence = nullptr;
  TestOutput output;
  std::vector<int32_t> tokens;  // the prompt, and what was generated and collected
  int32_t lane = -1;            // -1: waits
  int32_t computed = 0;         // positions that have KV when all that is launched has ended
  int32_t to_launch = 0;        // tokens that no launched step samples
  bool fresh = true;            // its next step is a prefill's
  int32_t in_flight = 0;        // steps that name it

  bool Done() const { return output.scores.size() == static_cast<size_t>(sequence->generate); }
};

// A step in flight: whose results come, in their order.
struct Flight {
  std::vector<Running*> chunks;  // those named
  std::vector<Running*> sampled;
  std::vector<Running*> decoded;
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
      if (status.ok()) status = Launch();
      // Now and then no step stays in flight.
      const size_t most = Below(8) == 0 ? 0 : executor_.run_ahead();
      while (status.ok() && flights_.size() > most) status = Collect();
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
      r.to_launch = r.sequence->generate - static_cast<int32_t>(r.output.scores.size());
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

  std::vector<Running*> Shuffled(bool prefilling) {
    std::vector<Running*> chosen;
    for (Running& r : all_) {
      if (r.lane >= 0 && r.to_launch > 0 && r.fresh == prefilling) chosen.push_back(&r);
    }
    std::shuffle(chosen.begin(), chosen.end(), random_);
    return chosen;
  }

  // A step of a prefill part, a decode part, or both. Its views go when the launch returns.
  absl::Status Launch() {
    Flight flight;
    std::vector<BlockUpdate> decode_updates, prefill_updates;
    std::vector<int32_t> lanes;
    std::vector<PrefillChunk> chunks;
    // Before the chunks: who ends its prompt in this step decodes in the next.
    if (Below(8) != 0) PlanDecode(flight, lanes, decode_updates);
    if (Below(3) != 0) PlanPrefill(flight, chunks, prefill_updates);
    if (chunks.empty() && lanes.empty()) return absl::OkStatus();
    for (Running* r : flight.chunks) ++r->in_flight;
    for (Running* r : flight.decoded) ++r->in_flight;
    flights_.push_back(std::move(flight));
    return executor_.Launch({.prefill = {.block_updates = prefill_updates, .chunks = chunks},
                             .decode = {.block_updates = decode_updates, .lanes = lanes}});
  }

  void PlanPrefill(Flight& flight, std::vector<PrefillChunk>& chunks,
                   std::vector<BlockUpdate>& updates) {
    int32_t room = executor_.options().prefill_chunk_size;
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
      flight.chunks.push_back(r);
      if (!chunk.sample) continue;
      r->fresh = false;
      --r->to_launch;
      flight.sampled.push_back(r);
    }
  }

  void PlanDecode(Flight& flight, std::vector<int32_t>& lanes, std::vector<BlockUpdate>& updates) {
    std::vector<Running*> batch = Shuffled(false);
    if (batch.empty()) return;
    batch.resize(1 + Below(static_cast<int>(batch.size())));
    for (Running* r : batch) {
      lanes.push_back(r->lane);
      blocks_.Grow(r->lane, ++r->computed, updates);
      --r->to_launch;
    }
    flight.decoded = std::move(batch);
  }

  absl::Status Collect() {
    const Flight flight = std::move(flights_.front());
    flights_.pop_front();
    const absl::StatusOr<StepResult> result = executor_.Collect();
    if (!result.ok()) return result.status();
    for (Running* r : flight.chunks) --r->in_flight;
    for (Running* r : flight.decoded) --r->in_flight;
    int row = 0;
    for (const auto& [sequences, scores] : {std::pair(&flight.sampled, result->prefill.sampled),
                                            std::pair(&flight.decoded, result->decode.sampled)}) {
      if (sequences->size() != scores.size()) return absl::InternalError("rows that nobody asked");
      for (size_t i = 0; i < scores.size(); ++i) {
        if (absl::Status s = Take(*(*sequences)[i], scores[i], row++); !s.ok()) return s;
      }
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

  // Sequences that no step in flight names leave when they are done; now and then one that is not
  // must start again.
  void Leave() {
    for (Running& r : all_) {
      if (r.lane < 0 || r.in_flight > 0 || (!r.Done() && Below(16) != 0)) continue;
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
  std::deque<Flight> flights_;
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

namespace {

// One sequence on lane 0; with `forced`, it goes on from those tokens whatever it samples.
class Alone {
 public:
  Alone(Executor& executor, const TestSequence& sequence, const std::vector<int32_t>* forced)
      : executor_(executor),
        sequence_(sequence),
        forced_(forced),
        blocks_(executor.options(), 0),
        tokens_(sequence.prompt) {}

  absl::StatusOr<TestOutput> Run() {
    absl::Status status = Start();
    if (status.ok()) status = Prefill();
    for (int32_t i = 1; status.ok() && i < sequence_.generate; ++i) {
      if (forced_ != nullptr) {
        tokens_.push_back((*forced_)[i - 1]);
        status = Start();
      }
      if (status.ok()) status = Decode(i);
    }
    if (!status.ok()) return status;
    return std::move(output_);
  }

 private:
  absl::Status Start() {
    LaneStart start;
    start.state = sequence_.params;
    start.state.length = static_cast<int32_t>(tokens_.size());
    start.prompt_length = static_cast<int32_t>(sequence_.prompt.size());
    start.tokens = tokens_;
    return executor_.StartLane(start);
  }

  absl::Status Prefill() {
    const int32_t length = static_cast<int32_t>(sequence_.prompt.size());
    for (int32_t done = 0; done < length;) {
      const int32_t count = std::min(length - done, executor_.options().prefill_chunk_size);
      std::vector<BlockUpdate> updates;
      blocks_.Grow(0, done + count, updates);
      const PrefillChunk chunk = {
          .lane = 0, .first_position = done, .count = count, .sample = done + count == length};
      const absl::StatusOr<PrefillResult> result =
          executor_.Prefill({.block_updates = updates, .chunks = {&chunk, 1}});
      if (!result.ok()) return result.status();
      if (absl::Status status = Take(result->sampled); !status.ok()) return status;
      done += count;
    }
    return absl::OkStatus();
  }

  absl::Status Decode(int32_t generated) {
    const int32_t lane = 0;
    std::vector<BlockUpdate> updates;
    blocks_.Grow(0, static_cast<int32_t>(sequence_.prompt.size()) + generated, updates);
    const absl::StatusOr<DecodeResult> result =
        executor_.Decode({.block_updates = updates, .lanes = {&lane, 1}});
    return result.ok() ? Take(result->sampled) : result.status();
  }

  absl::Status Take(std::span<const TokenScore> sampled) {
    if (sampled.empty()) return absl::OkStatus();
    output_.scores.push_back(sampled[0]);
    if (!executor_.options().keep_logits) return absl::OkStatus();
    const absl::StatusOr<std::span<const float>> logits = executor_.KeptLogits(0);
    if (!logits.ok()) return logits.status();
    output_.logits.insert(output_.logits.end(), logits->begin(), logits->end());
    return absl::OkStatus();
  }

  Executor& executor_;
  const TestSequence& sequence_;
  const std::vector<int32_t>* forced_;
  RandomBlocks blocks_;
  std::vector<int32_t> tokens_;
  TestOutput output_;
};

}  // namespace

absl::StatusOr<TestOutput> RunAlone(Executor& executor, const TestSequence& sequence) {
  return Alone(executor, sequence, nullptr).Run();
}

absl::StatusOr<TestOutput> RunForced(Executor& executor, const TestSequence& sequence,
                                     const std::vector<int32_t>& tokens) {
  return Alone(executor, sequence, &tokens).Run();
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
