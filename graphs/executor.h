// Runs a model's steps on a device in one execution mode. The engine sees only this.
//
// Threads: one (the engine thread) after Create; `stats` may be read from others.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "graphs/descriptor.h"
#include "graphs/mode.h"
#include "graphs/step.h"
#include "graphs/weights.h"
#include "kernels/device.h"

namespace sirocco {

inline constexpr int kMaxBatchSize = 512;

// Steps that an executor can have in flight on this device.
inline int StepsInFlight(const Device& device) { return device.runs_ahead() ? 2 : 1; }

// For tests of models with experts, whose choices near a tie hang on the last bits: device memory,
// [layers][max_batch_size + 1][max_length][experts_a_row], to which the choices of every row are
// written, or from which they are taken. The last lane's are of rows that fill prefill steps up,
// which none are where choices are taken.
struct ExpertTrace {
  int32_t* chosen = nullptr;  // null: none
  bool impose = false;
};

struct ExecutorOptions {
  Mode mode = Mode::kEager;
  int32_t max_batch_size = 64;  // lanes, and graphs: 1 ... kMaxBatchSize
  int32_t max_length = 0;       // prompt and generated tokens: 1 ... max_position
  int32_t prefill_chunk_size = 512;
  int32_t block_size = 16;              // KV slots a block
  std::vector<int32_t> kv_blocks = {};  // blocks of each layer group
  DType kv_dtype = DType::kFloat32;
  DType activation_dtype = DType::kFloat32;  // Device::ActivationDType of the weights
  bool prefill_as_decode = false;            // Device::prefill_as_decode
  // Prefill steps are filled up to fixed numbers of rows (prefill_sizes.h), which modes with graphs
  // replay: Device::fills_prefill. It costs one more lane, and a few KV blocks beside `kv_blocks`.
  bool fill_prefill = false;
  // For tests and comparisons: each sampling step copies its logits aside before the sampler
  // overwrites them (one more operation a step) and brings them to the host, for
  // Executor::KeptLogits.
  bool keep_logits = false;
  ExpertTrace expert_trace = {};
};

// Bytes that one token's k and v take in one layer, their scales included.
int64_t KvSlotBytes(const ModelDescriptor& descriptor, DType kv_dtype);

// Bytes of one block of a layer group: all its layers, k and v.
int64_t KvBlockBytes(const ModelDescriptor& descriptor, int group, int32_t block_size,
                     DType kv_dtype);

// What an executor will hold, by use, known before anything is allocated.
struct MemoryPlan {
  // Weights: 0, the loader knows them. Graphs: 0, ExecutorStats::graph_pool_bytes has them after.
  // Workspace: without the scratch memory of a backend's operations, which is small.
  std::array<uint64_t, kMemoryUses> bytes = {};
};
// `descriptor` and `options` as Executor::Create takes them.
MemoryPlan PlanMemory(const ModelDescriptor& descriptor, const ExecutorOptions& options);

// Monotonic after start-up; readable from any thread.
struct ExecutorStats {
  std::atomic<uint64_t> plan_builds{0};
  std::atomic<uint64_t> graphs_captured{0};     // executable recordings of decode steps
  std::atomic<uint64_t> prefill_graphs{0};      // the same of prefill steps
  std::atomic<uint64_t> decode_allocations{0};  // the device's allocations during decode steps
  // Replayed decode steps, by batch size; modes without graphs replay none.
  std::array<std::atomic<uint64_t>, kMaxBatchSize + 1> replays = {};
  // Prefill steps, replayed or launched operation by operation, and the rows that filled them up.
  std::atomic<uint64_t> prefill_replays{0};
  std::atomic<uint64_t> prefill_launches{0};
  std::atomic<uint64_t> prefill_filling_rows{0};
  double pack_seconds = 0;     // these four: set before Create returns
  double prepare_seconds = 0;  // kernels chosen and loaded
  double capture_seconds = 0;  // modes with graphs
  double kv_seconds = 0;
  std::atomic<uint64_t> graph_pool_bytes{0};     // of decode steps
  std::atomic<uint64_t> prefill_graph_bytes{0};  // of prefill steps
};

// One entry of a plan as `sirocco info --plan` prints it.
struct PlanEntry {
  std::string part;       // "prologue", "layer 0", "layer" (any layer), "epilogue"
  std::string rows;       // of steps that it belongs to: "R 1 to 4"; empty: of any
  std::string operation;  // "norm_qkv"
  std::string detail;     // shapes and types, for people
};

class Executor {
 public:
  using Progress = std::function<void(std::string_view phase, int done, int total)>;

  // Builds the plans, reserves, captures (largest first), maps the KV cache. `device` and
  // the weights' memory must outlive it. INVALID_ARGUMENT names an option out of range.
  // `progress`: phases "pack", "prepare", "capture" (one call a batch size), "kv".
  static absl::StatusOr<std::unique_ptr<Executor>> Create(Device& device,
                                                          const ModelDescriptor& descriptor,
                                                          const ModelWeights& weights,
                                                          const ExecutorOptions& options,
                                                          const Progress& progress = nullptr);
  virtual ~Executor() = default;

  // A sequence takes a lane: from the next launched step on. No launched step that has not been
  // collected may name the lane (FAILED_PRECONDITION). INVALID_ARGUMENT names what is out of range.
  virtual absl::Status StartLane(const LaneStart& start) = 0;
  // The same for a lane that goes on from another; neither may be named so.
  virtual absl::Status ForkLane(const LaneFork& fork) = 0;

  // Steps that may be launched before the oldest is collected, beside it: 1 where the device runs
  // ahead, else 0.
  virtual int run_ahead() const = 0;
  // Steps launched and not collected: at most run_ahead() + 1.
  virtual int in_flight() const = 0;

  // Issues a step behind those in flight: its decode part replays (modes with graphs) or runs the
  // plan for its batch size; so does its prefill part where there is a recording of its rows. A
  // lane that samples in one step can be decoded in the next before its token is known here.
  // INVALID_ARGUMENT: the step was refused and nothing of it runs. FAILED_PRECONDITION: too many
  // are in flight. Any other error is the device's: no step can be trusted any more, launched ones
  // included.
  virtual absl::Status Launch(const Step& step) = 0;
  // Waits for the oldest step in flight. FAILED_PRECONDITION: there is none. Any other error is
  // the device's, as above.
  virtual absl::StatusOr<StepResult> Collect() = 0;

  // A step launched and collected, none being in flight.
  absl::StatusOr<PrefillResult> Prefill(const PrefillStep& step);
  absl::StatusOr<DecodeResult> Decode(const DecodeStep& step);

  // The logits [vocab] of a row of the step that was collected last, until the next launch or
  // collect: the rows of PrefillResult::sampled, then those of DecodeResult::sampled. Needs
  // ExecutorOptions::keep_logits, else FAILED_PRECONDITION.
  virtual absl::StatusOr<std::span<const float>> KeptLogits(int row) = 0;

  virtual const ExecutorOptions& options() const = 0;
  virtual const ExecutorStats& stats() const = 0;
  virtual std::vector<PlanEntry> DecodePlan() const = 0;
};

// A mode's decode plan of a model, without weights or memory. `norms_where_read_rows`,
// `decoder_layers` and `paired_rows`: the device's.
std::vector<PlanEntry> DescribeDecodePlan(const ModelDescriptor& descriptor, Mode mode,
                                          const ModelWeights& weights, DType kv_dtype,
                                          int32_t norms_where_read_rows,
                                          const DecoderLayersOffer& decoder_layers = {},
                                          int32_t paired_rows = 0);

// What the device offers for all layers of a model at once, in modes that would use it.
DecoderLayersOffer OfferOf(const Device& device, const ModelDescriptor& descriptor, Mode mode,
                           const ModelWeights& weights, DType activations, DType kv);

}  // namespace sirocco
