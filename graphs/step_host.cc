#include "graphs/step_host.h"

#include <utility>

#include "graphs/carver.h"
#include "graphs/prefill_sizes.h"
#include "graphs/step_buffers.h"

namespace sirocco {
namespace {

uint64_t Place(const ModelDescriptor& descriptor, const ExecutorOptions& options, void* memory,
               StepHost& host) {
  const int64_t rows = options.prefill_chunk_size;
  const int64_t lanes = options.max_batch_size;
  Carver carver(memory);
  host.row_lane = carver.Take<int32_t>(rows);
  host.row_position = carver.Take<int32_t>(rows);
  host.segments = Counted<PrefillSegment>::Take(carver, LanesOnDevice(options));
  for (int32_t** head : {&host.head_index, &host.head_lane, &host.head_position}) {
    *head = carver.Take<int32_t>(rows + lanes);
  }
  host.prefill_updates = Counted<BlockUpdate>::Take(carver, kBlockUpdates);
  host.lanes = carver.Take<int32_t>(lanes);
  host.decode_updates = Counted<BlockUpdate>::Take(carver, kBlockUpdates);
  host.scored = carver.Take<TokenScore>(rows);
  host.prefill_sampled = carver.Take<TokenScore>(lanes);
  host.decode_sampled = carver.Take<TokenScore>(lanes);
  if (options.keep_logits) host.logits = carver.Take<float>(lanes * descriptor.vocab_size);
  return carver.bytes();
}

}  // namespace

absl::StatusOr<StepHost> StepHost::Create(Device& device, const ModelDescriptor& descriptor,
                                          const ExecutorOptions& options) {
  StepHost host;
  absl::StatusOr<std::unique_ptr<Buffer>> memory =
      device.AllocateHost(Place(descriptor, options, nullptr, host));
  if (!memory.ok()) return memory.status();
  host.memory = *std::move(memory);
  Place(descriptor, options, host.memory->data(), host);
  return host;
}

}  // namespace sirocco
