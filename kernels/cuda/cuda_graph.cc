#include "kernels/cuda/cuda_graph.h"

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_memory.h"

namespace sirocco::cuda {
namespace {

// Calls that may be unsafe elsewhere are not refused: a library may load a kernel while it is
// captured. What this backend itself must not do then, CudaContext::Enter refuses.
constexpr cudaStreamCaptureMode kCaptureMode = cudaStreamCaptureModeRelaxed;

// A graph as captured, which nobody needs once it is executable.
class CapturedGraph {
 public:
  CapturedGraph() = default;
  ~CapturedGraph() {
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
  }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  // Ends the stream's capture, whatever has become of it.
  cudaError_t End(cudaStream_t stream) { return cudaStreamEndCapture(stream, &graph_); }
  cudaGraph_t get() const { return graph_; }

 private:
  cudaGraph_t graph_ = nullptr;
};

class CudaRecording final : public Recording {
 public:
  CudaRecording(int operations, int overlaps, std::shared_ptr<Buffer> scratch)
      : operations_(operations), overlaps_(overlaps), scratch_(std::move(scratch)) {}
  // The executor has waited for what it launched.
  ~CudaRecording() override {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  }
  int size() const override { return operations_; }
  int overlaps() const override { return overlaps_; }

  absl::Status Instantiate(CudaContext& context, cudaGraph_t graph, int nodes) {
    const char* call = "cudaGraphInstantiate";
    cudaError_t error = cudaGraphInstantiate(&executable_, graph, /*flags=*/0);
    if (error == cudaSuccess) {
      // The first launch then finds it on the device.
      call = "cudaGraphUpload";
      error = cudaGraphUpload(executable_, context.stream());
    }
    if (error != cudaErrorMemoryAllocation) return context.Check(call, error);
    cudaGetLastError();  // no fault of the device
    const absl::StatusOr<MemoryInfo> memory = MemInfo(context);
    if (!memory.ok()) return memory.status();
    return absl::ResourceExhaustedError(
        absl::StrCat("not enough GPU memory for ", std::string(NameOf(MemoryUse::kGraphs)),
                     ": one more of ", nodes, " nodes, with ", memory->free_bytes, " bytes free"));
  }
  cudaGraphExec_t executable() const { return executable_; }

 private:
  const int operations_;
  const int overlaps_;
  const std::shared_ptr<Buffer> scratch_;
  cudaGraphExec_t executable_ = nullptr;
};

// What a node does that must not be in a step; null for those that may.
const char* Forbidden(cudaGraphNodeType type) {
  switch (type) {
    case cudaGraphNodeTypeKernel:
    case cudaGraphNodeTypeMemset:
    case cudaGraphNodeTypeEmpty:
      return nullptr;
    case cudaGraphNodeTypeMemAlloc:
      return "allocates memory";
    case cudaGraphNodeTypeMemFree:
      return "frees memory";
    case cudaGraphNodeTypeMemcpy:
      return "copies memory";
    case cudaGraphNodeTypeHost:
      return "calls the host";
    default:
      return "is none of a step";
  }
}

absl::Status CheckNodes(CudaContext& context, const std::vector<cudaGraphNode_t>& nodes) {
  for (size_t i = 0; i < nodes.size(); ++i) {
    cudaGraphNodeType type = cudaGraphNodeTypeKernel;
    absl::Status status =
        context.Check("cudaGraphNodeGetType", cudaGraphNodeGetType(nodes[i], &type));
    if (!status.ok()) return status;
    if (const char* forbidden = Forbidden(type); forbidden != nullptr) {
      return absl::InternalError(absl::StrCat("recording: node ", i, " of ", nodes.size(), " ",
                                              forbidden, " (type ", static_cast<int>(type),
                                              " of cudaGraphNodeType); a step's may hold kernels"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int> CountProgrammatic(CudaContext& context, cudaGraph_t graph) {
  size_t count = 0;
  const auto get = [&](cudaGraphNode_t* from, cudaGraphNode_t* to, cudaGraphEdgeData* data) {
    return context.Check("cudaGraphGetEdges", cudaGraphGetEdges(graph, from, to, data, &count));
  };
  if (absl::Status status = get(nullptr, nullptr, nullptr); !status.ok()) return status;
  if (count == 0) return 0;
  std::vector<cudaGraphNode_t> from(count), to(count);
  std::vector<cudaGraphEdgeData> data(count);
  if (absl::Status status = get(from.data(), to.data(), data.data()); !status.ok()) return status;
  int programmatic = 0;
  for (const cudaGraphEdgeData& edge : data) {
    programmatic += edge.type == cudaGraphDependencyTypeProgrammatic;
  }
  return programmatic;
}

}  // namespace

absl::StatusOr<GraphContents> InspectGraph(CudaContext& context, cudaGraph_t graph) {
  size_t count = 0;
  absl::Status status =
      context.Check("cudaGraphGetNodes", cudaGraphGetNodes(graph, nullptr, &count));
  std::vector<cudaGraphNode_t> nodes(count);
  if (status.ok() && count > 0) {
    status = context.Check("cudaGraphGetNodes", cudaGraphGetNodes(graph, nodes.data(), &count));
  }
  if (status.ok()) status = CheckNodes(context, nodes);
  if (!status.ok()) return status;
  const absl::StatusOr<int> programmatic = CountProgrammatic(context, graph);
  if (!programmatic.ok()) return programmatic.status();
  return GraphContents{static_cast<int>(count), *programmatic};
}

absl::Status DryRun(CudaContext& context, const std::function<absl::Status()>& enqueue) {
  if (absl::Status status = context.Enter(); !status.ok()) return status;
  absl::Status status = context.Check("cudaStreamBeginCapture",
                                      cudaStreamBeginCapture(context.stream(), kCaptureMode));
  if (!status.ok()) return status;
  status = enqueue();
  CapturedGraph captured;
  const cudaError_t ended = captured.End(context.stream());
  return status.ok() ? context.Check("cudaStreamEndCapture", ended) : status;
}

GraphRecorder::~GraphRecorder() {
  if (under_way_) CapturedGraph().End(context_.stream());
}

absl::Status GraphRecorder::Begin() {
  if (under_way_) return absl::FailedPreconditionError("a recording is under way");
  if (absl::Status status = context_.Enter(); !status.ok()) return status;
  absl::Status status = context_.Check("cudaStreamBeginCapture",
                                       cudaStreamBeginCapture(context_.stream(), kCaptureMode));
  if (!status.ok()) return status;
  under_way_ = true;
  context_.set_recording(true);
  operations_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Recording>> GraphRecorder::End(std::shared_ptr<Buffer> scratch) {
  if (!under_way_) return absl::FailedPreconditionError("no recording is under way");
  under_way_ = false;
  context_.set_recording(false);
  CapturedGraph captured;
  const cudaError_t ended = captured.End(context_.stream());
  // A launch that failed is the cause of whatever else is wrong.
  if (absl::Status status = context_.Enter(); !status.ok()) return status;
  if (absl::Status status = context_.Check("cudaStreamEndCapture", ended); !status.ok()) {
    return status;
  }
  const absl::StatusOr<GraphContents> contents = InspectGraph(context_, captured.get());
  if (!contents.ok()) return contents.status();

  auto recording = std::make_unique<CudaRecording>(operations_, contents->programmatic_edges,
                                                   std::move(scratch));
  // The driver says nowhere what a graph takes. Nothing else is allocated in between.
  const absl::StatusOr<MemoryInfo> before = MemInfo(context_);
  if (!before.ok()) return before.status();
  absl::Status status = recording->Instantiate(context_, captured.get(), contents->nodes);
  if (!status.ok()) return status;
  const absl::StatusOr<MemoryInfo> after = MemInfo(context_);
  if (!after.ok()) return after.status();
  if (before->free_bytes > after->free_bytes) {
    counters_.bytes[static_cast<int>(MemoryUse::kGraphs)].fetch_add(
        before->free_bytes - after->free_bytes, std::memory_order_relaxed);
  }
  counters_.recordings.fetch_add(1, std::memory_order_relaxed);
  return recording;
}

absl::Status GraphRecorder::Launch(const Recording& recording) {
  const auto* own = dynamic_cast<const CudaRecording*>(&recording);
  if (own == nullptr) return absl::InvalidArgumentError("a recording of another backend");
  if (under_way_) return absl::FailedPreconditionError("launched while recording");
  if (absl::Status status = context_.Enter(); !status.ok()) return status;
  absl::Status status =
      context_.Check("cudaGraphLaunch", cudaGraphLaunch(own->executable(), context_.stream()));
  if (!status.ok()) return status;
  counters_.replays.fetch_add(1, std::memory_order_relaxed);
  return absl::OkStatus();
}

}  // namespace sirocco::cuda
