// A stream's work recorded as an executable graph, by stream capture.
//
// The capture keeps the edges of programmatic dependent launch, so that a replayed kernel may begin
// while the one before it ends, as it may from a stream. What was captured is looked at before it
// is made executable: kernels, and at most a memset of a library's, are all that a replay may hold.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/device.h"

namespace sirocco::cuda {

// What a captured graph holds.
struct GraphContents {
  int nodes = 0;
  int programmatic_edges = 0;
};
// INTERNAL names a node that allocates or frees memory, copies, calls the host, or is anything else
// that a step does not do.
absl::StatusOr<GraphContents> InspectGraph(CudaContext& context, cudaGraph_t graph);

// Has `enqueue` put work on the stream and throws it away: what that work needs of the driver and
// of libraries (kernels, which are loaded when they are first named) is there afterwards.
absl::Status DryRun(CudaContext& context, const std::function<absl::Status()>& enqueue);

// The recording of a device: one at a time. While it is under way CudaContext::Enter refuses what
// no recording can hold.
class GraphRecorder {
 public:
  GraphRecorder(CudaContext& context, DeviceCounters& counters)
      : context_(context), counters_(counters) {}
  ~GraphRecorder();  // ends a capture that was left under way
  GraphRecorder(const GraphRecorder&) = delete;
  GraphRecorder& operator=(const GraphRecorder&) = delete;

  bool under_way() const { return under_way_; }
  absl::Status Begin();
  // An operation is in the capture.
  void Recorded() { ++operations_; }
  // `scratch`: memory that the recorded kernels use, kept as long as the recording.
  absl::StatusOr<std::unique_ptr<Recording>> End(std::shared_ptr<Buffer> scratch);

  // Enqueues a recording of this backend.
  absl::Status Launch(const Recording& recording);

 private:
  CudaContext& context_;
  DeviceCounters& counters_;
  bool under_way_ = false;
  int operations_ = 0;
};

}  // namespace sirocco::cuda
