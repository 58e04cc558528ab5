// The fixed buffers that steps read and write: one workspace for prefill, every plan and every
// recording, sized for the largest batch and the largest prefill chunk. Recordings hold these
// addresses; what changes from step to step is only what stands in them.
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

// Rows whose logits are computed at once when prompts are scored: bounds the logits' memory by
// this or max_batch_size, not by the prompt.
inline constexpr int32_t kScoreRows = 32;

// Block updates that one upload carries. More are applied by several.
inline constexpr int32_t kBlockUpdates = 4096;

struct StepBuffers {
  RowMap rows;                       // [T], T = max(max_batch_size, prefill_chunk_size)
  Counted<BlockUpdate> updates;      // kBlockUpdates
  Counted<PrefillSegment> segments;  // LanesOnDevice
  int32_t* layer_counter = nullptr;  // [1]

  // float32: the residual stream, and what a residual adds. Plans of models with post-norms use
  // `hidden` and `sum` for the stream in turn; other models have no `sum`.
  Rows hidden, sum, delta;  // [T, hidden]
  Rows qkv;                 // [max_batch_size, (heads + 2 * kv_heads) * head_dim] float32
  // Of options.activation_dtype.
  Rows normed;        // [T, hidden]
  Rows q, attention;  // [T, heads * head_dim]
  Rows k, v;          // [T, kv_heads * head_dim]
  Rows gate, up;      // [T, intermediate]
  Rows activated;     // [T, intermediate], of each of a row's experts where there are experts
  // Where there are experts.
  int32_t* experts = nullptr;  // [T, experts_a_row]: which a row takes
  float* shares = nullptr;     // [T, experts_a_row]

  // Rows that the LM head sees: all rows of a decode step, chosen ones of a prefill step. Those
  // that are sampled are also the rows that the end of a prefill step's last layer sees.
  int32_t* head_index = nullptr;  // [H], H = max(max_batch_size, kScoreRows): rows of the step
  RowMap head_rows;               // [H]
  Rows head_q;                    // [max_batch_size, heads * head_dim]
  Rows head_hidden, head_normed;  // [H, hidden]
  Rows logits;                    // [H, vocab] float32
  TokenScore* scores = nullptr;   // [H]

  // ExecutorOptions::keep_logits only.
  int32_t* identity = nullptr;  // [max_batch_size]: 0, 1, 2, ...
  Rows kept_logits;             // [max_batch_size, vocab] float32
};

// Places the buffers in `workspace`, or with a null one counts only (pointers stay null, widths and
// types are set). Returns the bytes they take.
uint64_t PlaceStepBuffers(const ModelDescriptor& descriptor, const ExecutorOptions& options,
                          void* workspace, StepBuffers& buffers);

}  // namespace sirocco
