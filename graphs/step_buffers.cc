#include "graphs/step_buffers.h"

#include <algorithm>

#include "graphs/carver.h"
#include "graphs/prefill_sizes.h"

namespace sirocco {
namespace {

Rows TakeRows(Carver& carver, int64_t rows, int32_t width, DType dtype) {
  return {carver.TakeBytes(static_cast<uint64_t>(rows) * width * BytesOf(dtype)), dtype, width};
}

RowMap TakeRowMap(Carver& carver, int64_t rows) {
  RowMap map;
  map.lane = carver.Take<int32_t>(rows);
  map.position = carver.Take<int32_t>(rows);
  return map;
}

}  // namespace

uint64_t PlaceStepBuffers(const ModelDescriptor& descriptor, const ExecutorOptions& options,
                          void* workspace, StepBuffers& buffers) {
  const int64_t rows = std::max(options.max_batch_size, options.prefill_chunk_size);
  const int64_t head_rows = std::max(options.max_batch_size, kScoreRows);
  const int32_t q_width = descriptor.heads * descriptor.head_dim;
  const int32_t kv_width = descriptor.kv_heads * descriptor.head_dim;
  const DType dtype = options.activation_dtype;
  Carver carver(workspace);

  buffers.rows = TakeRowMap(carver, rows);
  buffers.updates = Counted<BlockUpdate>::Take(carver, kBlockUpdates);
  buffers.segments = Counted<PrefillSegment>::Take(carver, LanesOnDevice(options));
  buffers.layer_counter = carver.Take<int32_t>(1);

  buffers.hidden = TakeRows(carver, rows, descriptor.hidden_size, DType::kFloat32);
  buffers.sum = Rows();
  if (descriptor.post_norms) {
    buffers.sum = TakeRows(carver, rows, descriptor.hidden_size, DType::kFloat32);
  }
  buffers.delta = TakeRows(carver, rows, descriptor.hidden_size, DType::kFloat32);
  buffers.qkv = TakeRows(carver, rows, q_width + 2 * kv_width, DType::kFloat32);
  buffers.normed = TakeRows(carver, rows, descriptor.hidden_size, dtype);
  buffers.q = TakeRows(carver, rows, q_width, dtype);
  buffers.attention = TakeRows(carver, rows, q_width, dtype);
  // Of eager decode steps alone, and of prefill where it is made of their operations.
  const int64_t eager_rows = options.prefill_as_decode ? rows : options.max_batch_size;
  buffers.k = TakeRows(carver, eager_rows, kv_width, dtype);
  buffers.v = TakeRows(carver, eager_rows, kv_width, dtype);
  buffers.gate = TakeRows(carver, eager_rows, descriptor.intermediate_size, dtype);
  buffers.up = TakeRows(carver, eager_rows, descriptor.intermediate_size, dtype);
  const int32_t mlps = std::max(descriptor.experts_a_row, 1);  // a row
  buffers.activated = TakeRows(carver, rows, mlps * descriptor.intermediate_size, dtype);
  if (descriptor.experts > 0) {
    buffers.experts = carver.Take<int32_t>(rows * mlps);
    buffers.shares = carver.Take<float>(rows * mlps);
  }

  buffers.head_index = carver.Take<int32_t>(head_rows);
  buffers.head_rows = TakeRowMap(carver, head_rows);
  buffers.head_q = TakeRows(carver, options.max_batch_size, q_width, dtype);
  buffers.head_hidden = TakeRows(carver, head_rows, descriptor.hidden_size, DType::kFloat32);
  buffers.head_normed = TakeRows(carver, head_rows, descriptor.hidden_size, dtype);
  buffers.logits = TakeRows(carver, head_rows, descriptor.vocab_size, DType::kFloat32);
  buffers.scores = carver.Take<TokenScore>(head_rows);
  if (options.keep_logits) {
    buffers.identity = carver.Take<int32_t>(options.max_batch_size);
    buffers.kept_logits =
        TakeRows(carver, options.max_batch_size, descriptor.vocab_size, DType::kFloat32);
  }
  return carver.bytes();
}

}  // namespace sirocco
