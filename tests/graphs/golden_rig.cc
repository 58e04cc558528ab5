#include "tests/graphs/golden_rig.h"

#include <gtest/gtest.h>

#include <span>
#include <utility>

#include "tests/graphs/schedule.h"

namespace sirocco {

GoldenRig::GoldenRig(absl::StatusOr<std::unique_ptr<Device>> made, const std::string& path,
                     Mode mode, DType dtype, bool keep_blocks, const std::vector<int32_t>& choices,
                     std::optional<DType> kv) {
  EXPECT_TRUE(made.ok()) << made.status();
  if (!made.ok()) return;
  device = *std::move(made);
  absl::StatusOr<ModelFiles> opened = OpenModel(path);
  EXPECT_TRUE(opened.ok()) << opened.status();
  if (!opened.ok()) return;
  files = *std::move(opened);
  const WeightTypes types(dtype, keep_blocks ? files.tensors.get() : nullptr);
  absl::StatusOr<ModelWeights> loaded = LoadWeights(files, types, *device, nullptr);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  if (!loaded.ok()) return;
  weights = *std::move(loaded);
  ExecutorOptions options;
  options.mode = mode;
  options.max_batch_size = 4;
  options.max_length = 128;
  options.prefill_chunk_size = 128;
  options.kv_blocks.assign(files.descriptor.groups.size(), 4 * 8);
  options.kv_dtype = kv.value_or(dtype);
  options.activation_dtype = device->ActivationDType(dtype);
  options.prefill_as_decode = device->prefill_as_decode();
  options.fill_prefill = true;
  options.keep_logits = true;
  if (const ModelDescriptor& d = files.descriptor; d.experts > 0) {
    std::vector<int32_t> chosen = choices;
    options.expert_trace.impose = !chosen.empty();
    chosen.resize(d.layers.size() * (options.max_batch_size + 1) * options.max_length *
                  d.experts_a_row);
    const size_t bytes = chosen.size() * sizeof(int32_t);
    absl::StatusOr<std::unique_ptr<Buffer>> buffer = device->Allocate(bytes, MemoryUse::kWorkspace);
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    if (!buffer.ok()) return;
    trace = *std::move(buffer);
    EXPECT_TRUE(device->CopyToDevice(trace->data(), chosen.data(), bytes).ok());
    EXPECT_TRUE(device->Synchronize().ok());
    options.expert_trace.chosen = trace->as<int32_t>();
  }
  absl::StatusOr<std::unique_ptr<Executor>> created =
      Executor::Create(*device, files.descriptor, weights, options);
  EXPECT_TRUE(created.ok()) << created.status();
  if (created.ok()) executor = *std::move(created);
}

std::vector<int32_t> GoldenRig::Choices() const {
  if (trace == nullptr) return {};
  std::vector<int32_t> chosen(trace->bytes() / sizeof(int32_t));
  EXPECT_TRUE(device->CopyToHost(chosen.data(), trace->data(), trace->bytes()).ok());
  EXPECT_TRUE(device->Synchronize().ok());
  return chosen;
}

absl::Status StartWith(Executor& executor, int32_t lane, const Tokens& tokens, int32_t count) {
  LaneStart start;
  start.lane = lane;
  start.state.length = start.prompt_length = count;
  start.state.top_p = 1;
  start.state.repetition_penalty = 1;
  start.tokens = std::span<const int32_t>(tokens).first(count);
  return executor.StartLane(start);
}

absl::StatusOr<std::vector<Logits>> ForceByDecoding(Executor& executor,
                                                    const std::vector<Tokens>& sequences) {
  RandomBlocks blocks(executor.options(), 6);
  std::vector<Logits> logits(sequences.size());
  for (int32_t position = 0;; ++position) {
    Tokens lanes;
    std::vector<BlockUpdate> updates;
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (position >= static_cast<int32_t>(sequences[i].size())) continue;
      const int32_t lane = static_cast<int32_t>(i);
      absl::Status status = StartWith(executor, lane, sequences[i], position + 1);
      if (!status.ok()) return status;
      blocks.Grow(lane, position + 1, updates);
      lanes.push_back(lane);
    }
    if (lanes.empty()) return logits;
    absl::StatusOr<DecodeResult> result =
        executor.Decode({.block_updates = updates, .lanes = lanes});
    if (!result.ok()) return result.status();
    for (size_t row = 0; row < lanes.size(); ++row) {
      absl::StatusOr<std::span<const float>> kept = executor.KeptLogits(static_cast<int>(row));
      if (!kept.ok()) return kept.status();
      logits[lanes[row]].emplace_back(kept->begin(), kept->end());
    }
  }
}

absl::StatusOr<Logits> ForceByPrefill(Executor& executor, const Tokens& tokens) {
  RandomBlocks blocks(executor.options(), 7);
  Logits logits;
  for (int32_t count = 1; count <= static_cast<int32_t>(tokens.size()); ++count) {
    absl::Status status = StartWith(executor, 1, tokens, count);
    if (!status.ok()) return status;
    std::vector<BlockUpdate> updates;
    blocks.Grow(1, count, updates);
    const PrefillChunk chunk = {.lane = 1, .first_position = 0, .count = count, .sample = true};
    absl::StatusOr<PrefillResult> result =
        executor.Prefill({.block_updates = updates, .chunks = {&chunk, 1}});
    if (!result.ok()) return result.status();
    absl::StatusOr<std::span<const float>> kept = executor.KeptLogits(0);
    if (!kept.ok()) return kept.status();
    logits.emplace_back(kept->begin(), kept->end());
  }
  return logits;
}

std::vector<Tokens> FullSequences(const Golden& golden) {
  std::vector<Tokens> sequences;
  for (size_t i = 0; i < golden.prompts.size(); ++i) {
    Tokens& tokens = sequences.emplace_back(golden.prompts[i]);
    tokens.insert(tokens.end(), golden.greedy[i].begin(), golden.greedy[i].end() - 1);
  }
  return sequences;
}

}  // namespace sirocco
