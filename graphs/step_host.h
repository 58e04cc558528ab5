// What a launched step has in host memory: the inputs that it copies to the device, and the results
// that it copies back. Both are in use from its launch until it is collected, so every step that
// can be in flight has its own.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "graphs/counted.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace sirocco {

struct StepHost {
  static absl::StatusOr<StepHost> Create(Device& device, const ModelDescriptor& descriptor,
                                         const ExecutorOptions& options);

  // --- inputs of the prefill part ---
  int32_t* row_lane = nullptr;       // [prefill_chunk_size]
  int32_t* row_position = nullptr;   // [prefill_chunk_size]
  Counted<PrefillSegment> segments;  // LanesOnDevice
  // Rows for the LM head: those to score, then those to sample; [prefill_chunk_size +
  // max_batch_size].
  int32_t* head_index = nullptr;
  int32_t* head_lane = nullptr;
  int32_t* head_position = nullptr;
  Counted<BlockUpdate> prefill_updates;  // kBlockUpdates

  // --- inputs of the decode part ---
  int32_t* lanes = nullptr;             // [max_batch_size]
  Counted<BlockUpdate> decode_updates;  // kBlockUpdates

  // --- results ---
  TokenScore* scored = nullptr;           // [prefill_chunk_size]
  TokenScore* prefill_sampled = nullptr;  // [max_batch_size]
  TokenScore* decode_sampled = nullptr;   // [max_batch_size]
  // ExecutorOptions::keep_logits only: [max_batch_size, vocab], of prefill_sampled, then of
  // decode_sampled (a lane is in one of them).
  float* logits = nullptr;

  // How much of them the step has.
  int32_t rows = 0;  // of the prefill part, those that fill it up included
  int32_t scored_count = 0;
  int32_t prefill_sampled_count = 0;
  int32_t decode_rows = 0;

  // Around the parts. One that is empty has the same mark on both sides, and so takes no time.
  DeviceMark begin, prefilled, end;

  std::unique_ptr<Buffer> memory;
};

}  // namespace sirocco
