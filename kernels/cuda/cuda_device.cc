#include "kernels/cuda/cuda_device.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check_params.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/cuda_graph.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_reservation.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/layers/layers.h"
#include "kernels/cuda/lt_matmul.h"
#include "kernels/cuda/mark_ring.h"
#include "kernels/cuda/staged_copy.h"

namespace sirocco {
namespace cuda {
namespace {

// Up to here CUDA copies pageable memory aside before a call returns; beyond, it would wait.
constexpr size_t kPlainCopyBytes = size_t{64} << 10;

// The compute capability, times ten, that has kernels of its own.
constexpr int kHopper = 90;

// Reads of MeasureReadBandwidth, of which the fastest counts.
constexpr int kBandwidthReads = 3;

cudaError_t LaunchPanels(const PanelProductParams& p, PanelMaps& maps,
                         const LaunchContext& context) {
  return hopper::LaunchPanelProduct(p, maps, context);
}

// On the calling thread's device.
KernelSet KernelsOf(bool portable, bool batch_invariant, LtMatMul* library) {
  if (batch_invariant) {
    return {.launchers = portable ? portable::OrderedLaunchers() : hopper::OrderedLaunchers(),
            .panels = portable ? nullptr : LaunchPanels,
            .layers = portable ? nullptr : KernelSet::LayersLauncher(hopper::LaunchOrderedLayers),
            .offer_layers = portable ? nullptr : hopper::OfferOrderedLayers,
            .panels_for_any_rows = true};
  }
  return {.launchers = portable ? portable::KernelLaunchers() : hopper::KernelLaunchers(),
          .panels = portable ? nullptr : LaunchPanels,
          .wide = portable ? nullptr : KernelSet::WideLauncher(hopper::LaunchWideProduct),
          .wide_clusters = portable ? 0 : hopper::RoomOfWidePairs(),
          .wide_normed = !portable && hopper::FitsWideNormed()
                             ? KernelSet::WideNormedLauncher(hopper::LaunchWideNormed)
                             : nullptr,
          .layers = portable ? nullptr : KernelSet::LayersLauncher(hopper::LaunchLayers),
          .offer_layers = portable ? nullptr : hopper::OfferLayers,
          .library = library};
}

class CudaDevice final : public Device, private OpSink {
 public:
  CudaDevice(std::unique_ptr<CudaContext> context, const CudaOptions& options)
      : context_(std::move(context)),
        portable_(options.portable || context_->compute_capability() != kHopper),
        batch_invariant_(options.batch_invariant),
        library_(*context_, counters_),
        kernels_(KernelsOf(portable_, batch_invariant_, &library_)),
        staged_(*context_, counters_),
        marks_(*context_),
        recorder_(*context_, counters_),
        ops_(kernels_, *this) {}

  // The second part of making it.
  absl::Status Create() {
    absl::StatusOr<std::unique_ptr<Buffer>> arrivals =
        AllocateDevice(*context_, kCounters * sizeof(uint32_t), MemoryUse::kWorkspace, counters_);
    if (!arrivals.ok()) return arrivals.status();
    arrivals_ = *std::move(arrivals);
    absl::StatusOr<std::unique_ptr<Buffer>> fault =
        AllocatePinned(*context_, sizeof(StepFault), counters_);
    if (!fault.ok()) return fault.status();
    fault_ = *std::move(fault);
    return marks_.Create();
  }

  std::string_view backend() const override { return "cuda"; }
  uint64_t FreeBytes() const override { return MemoryOrNone().free_bytes; }
  uint64_t TotalBytes() const override { return MemoryOrNone().total_bytes; }
  std::string name() const override {
    return absl::StrCat(context_->name(), portable_ ? ", portable kernels" : "",
                        batch_invariant_ ? ", batch-invariant" : "");
  }
  DType ActivationDType(DType weights) const override { return weights; }
  bool runs_ahead() const override { return true; }
  // Batch-invariant steps are one plan for any number of rows.
  int32_t norms_where_read_rows() const override {
    return batch_invariant_ ? INT32_MAX : ops_.norms_where_read_rows();
  }
  int32_t paired_rows() const override { return ops_.paired_rows(); }
  bool prefill_as_decode() const override { return batch_invariant_; }
  bool fills_prefill() const override { return true; }
  DecoderLayersOffer OfferDecoderLayers(const DecoderLayersShape& shape) const override {
    if (kernels_.offer_layers == nullptr || !context_->Enter().ok()) return {};
    return kernels_.offer_layers(shape, context_->multiprocessors());
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes, MemoryUse use) override {
    return AllocateDevice(*context_, bytes, use, counters_);
  }
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(size_t bytes, MemoryUse use) override {
    return ReserveDevice(*context_, bytes, use, counters_);
  }
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateHost(size_t bytes) override {
    return AllocatePinned(*context_, bytes, counters_);
  }

  absl::Status CopyToDevice(void* device, const void* host, size_t bytes) override;
  absl::Status CopyToHost(void* host, const void* device, size_t bytes) override;
  absl::Status CopyOnDevice(void* to, const void* from, size_t bytes) override;

  absl::Status Synchronize() override {
    if (absl::Status status = context_->Synchronize(); !status.ok()) return status;
    return TakeFault();
  }

  absl::StatusOr<DeviceMark> Mark() override {
    if (absl::Status status = context_->Enter(); !status.ok()) return status;
    return marks_.Mark();
  }
  absl::Status Wait(DeviceMark mark) override {
    if (absl::Status status = context_->Enter(); !status.ok()) return status;
    if (absl::Status status = marks_.Wait(mark); !status.ok()) return status;
    return TakeFault();
  }
  absl::StatusOr<double> Seconds(DeviceMark from, DeviceMark to) override {
    if (absl::Status status = context_->Enter(); !status.ok()) return status;
    return marks_.Seconds(from, to);
  }

  absl::Status BeginPrepare() override {
    if (preparing_) return absl::FailedPreconditionError("preparing is under way");
    if (absl::Status status = context_->Enter(); !status.ok()) return status;
    preparing_ = true;
    return absl::OkStatus();
  }
  absl::Status EndPrepare() override {
    if (!preparing_) return absl::FailedPreconditionError("no preparing is under way");
    preparing_ = false;
    return GrowScratch();
  }

  absl::Status BeginRecord() override {
    if (preparing_) return absl::FailedPreconditionError("preparing is under way");
    return recorder_.Begin();
  }
  absl::StatusOr<std::unique_ptr<Recording>> EndRecord() override {
    return recorder_.End(scratch_);
  }
  absl::Status Launch(const Recording& recording) override { return recorder_.Launch(recording); }

  absl::StatusOr<double> MeasureReadBandwidth(size_t bytes) override;

  std::vector<std::string> notes() const override {
    std::vector<std::string> notes = library_.Notes();
    notes.insert(notes.begin(), KernelsNote());
    if (batch_invariant_) {
      notes.push_back("batch_invariant: sums in one order for any number of rows, no library");
    }
    return notes;
  }
  absl::StatusOr<std::vector<std::string>> TuneProducts(
      std::span<const MatMulParams> products) override {
    // No product is the library's, which the table is of.
    if (batch_invariant_) return Device::TuneProducts(products);
    return library_.Tune(products, marks_);
  }
  Ops& ops() override { return ops_; }

 private:
  // Which kernels, and why.
  std::string KernelsNote() const {
    const int capability = context_->compute_capability();
    const std::string has =
        absl::StrCat("compute capability ", capability / 10, ".", capability % 10);
    if (!portable_) return absl::StrCat("kernels for Hopper: ", has);
    return absl::StrCat("portable kernels: ",
                        capability == kHopper ? "asked for" : absl::StrCat(has, " is not 9.0"));
  }

  bool preparing() const override { return preparing_; }
  absl::Status NeedScratch(std::string_view operation, size_t bytes) override;
  absl::StatusOr<LaunchContext> Context(bool programmatic) override;
  absl::Status Launched(std::string_view operation, cudaError_t error) override;

  // Up to what is wanted.
  absl::Status GrowScratch();
  // After a fault there is none to speak of.
  MemoryInfo MemoryOrNone() const { return MemInfo(*context_).value_or(MemoryInfo()); }
  // What a step has found wrong in device memory, once.
  absl::Status TakeFault();

  std::unique_ptr<CudaContext> context_;  // the rest needs it, to its end
  const bool portable_;
  const bool batch_invariant_;
  LtMatMul library_;
  const KernelSet kernels_;
  StagedCopy staged_;
  MarkRing marks_;
  GraphRecorder recorder_;
  CudaOps ops_;
  std::unique_ptr<Buffer> arrivals_;  // LaunchContext::counters
  std::unique_ptr<Buffer> fault_;     // a StepFault in host memory
  std::shared_ptr<Buffer> scratch_;   // recordings share it: what they were recorded on stays
  size_t scratch_wanted_ = 0;
  bool preparing_ = false;
};

absl::Status CudaDevice::CopyToDevice(void* device, const void* host, size_t bytes) {
  if (absl::Status status = context_->Enter(); !status.ok()) return status;
  if (bytes == 0) return absl::OkStatus();
  if (bytes > kPlainCopyBytes) {
    cudaPointerAttributes attributes;
    absl::Status status =
        context_->Check("cudaPointerGetAttributes", cudaPointerGetAttributes(&attributes, host));
    if (!status.ok()) return status;
    if (attributes.type == cudaMemoryTypeUnregistered) return staged_.Copy(device, host, bytes);
  }
  return context_->Check(
      "cudaMemcpyAsync",
      cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, context_->stream()));
}

absl::Status CudaDevice::CopyToHost(void* host, const void* device, size_t bytes) {
  if (absl::Status status = context_->Enter(); !status.ok()) return status;
  if (bytes == 0) return absl::OkStatus();
  return context_->Check(
      "cudaMemcpyAsync",
      cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, context_->stream()));
}

absl::Status CudaDevice::CopyOnDevice(void* to, const void* from, size_t bytes) {
  if (absl::Status status = context_->Enter(); !status.ok()) return status;
  if (bytes == 0) return absl::OkStatus();
  return context_->Check(
      "cudaMemcpyAsync",
      cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, context_->stream()));
}

// Serving stays within what was prepared; whoever runs operations unprepared gets it here, counted.
absl::Status CudaDevice::NeedScratch(std::string_view operation, size_t bytes) {
  const size_t there = scratch_ == nullptr ? 0 : scratch_->bytes();
  if (bytes > there && recorder_.under_way()) {
    return absl::FailedPreconditionError(
        absl::StrCat(std::string(operation), ": recording it needs ", bytes,
                     " bytes of scratch memory, and ", there, " were prepared"));
  }
  scratch_wanted_ = std::max(scratch_wanted_, bytes);
  return preparing_ ? absl::OkStatus() : GrowScratch();
}

absl::Status CudaDevice::GrowScratch() {
  if (scratch_wanted_ <= (scratch_ == nullptr ? 0 : scratch_->bytes())) return absl::OkStatus();
  scratch_.reset();  // waits for its users
  absl::StatusOr<std::unique_ptr<Buffer>> larger =
      AllocateDevice(*context_, scratch_wanted_, MemoryUse::kWorkspace, counters_);
  if (!larger.ok()) return larger.status();
  scratch_ = *std::move(larger);
  return absl::OkStatus();
}

absl::StatusOr<LaunchContext> CudaDevice::Context(bool programmatic) {
  if (absl::Status status = context_->EnterToEnqueue(); !status.ok()) return status;
  LaunchContext context;
  context.stream = context_->stream();
  context.multiprocessors = context_->multiprocessors();
  context.programmatic = programmatic;
  context.load_only = preparing_;
  context.scratch = scratch_ == nullptr ? nullptr : scratch_->data();
  context.counters = arrivals_->as<uint32_t>();
  context.fault = fault_->as<StepFault>();
  return context;
}

absl::Status CudaDevice::Launched(std::string_view operation, cudaError_t error) {
  if (error == cudaSuccess) {
    if (recorder_.under_way()) {
      recorder_.Recorded();
    } else if (!preparing_) {
      counters_.launches.fetch_add(1, std::memory_order_relaxed);
    }
    return absl::OkStatus();
  }
  if (error == cudaErrorNotSupported) {
    cudaGetLastError();  // the launcher's own word, no fault of the device
    return absl::UnimplementedError(
        absl::StrCat(std::string(operation), ": no CUDA kernel takes this shape"));
  }
  const std::string call =
      absl::StrCat(recorder_.under_way() ? "recording" : "launch", " of ", std::string(operation));
  return context_->Check(call.c_str(), error);
}

absl::Status CudaDevice::TakeFault() {
  StepFault& fault = *fault_->as<StepFault>();
  if (fault.count == 0) return absl::OkStatus();
  absl::Status status = OutsideBlockTables(fault.index, fault.update);
  fault.count = 0;
  return status;
}

absl::StatusOr<double> CudaDevice::MeasureReadBandwidth(size_t bytes) {
  if (bytes < 16) {
    return absl::InvalidArgumentError(
        absl::StrCat("the bandwidth of reading ", bytes, " bytes; 16 is the least"));
  }
  // Not counted: the memory is gone again when this returns.
  DeviceCounters uncounted;
  absl::StatusOr<std::unique_ptr<Buffer>> memory =
      AllocateDevice(*context_, bytes, MemoryUse::kWeights, uncounted);
  if (!memory.ok()) return memory.status();
  uint32_t* const sink = arrivals_->as<uint32_t>();  // zeros are read, so nothing is stored
  const absl::StatusOr<LaunchContext> context = Context(false);
  if (!context.ok()) return context.status();
  double least = 0;
  for (int i = 0; i <= kBandwidthReads; ++i) {
    const absl::StatusOr<DeviceMark> begin = Mark();
    if (!begin.ok()) return begin.status();
    absl::Status status = Launched(
        "read_stream", kernels_.launchers.read_stream((*memory)->data(), bytes, sink, *context));
    if (!status.ok()) return status;
    const absl::StatusOr<DeviceMark> end = Mark();
    if (!end.ok()) return end.status();
    if (status = Synchronize(); !status.ok()) return status;
    const absl::StatusOr<double> seconds = Seconds(*begin, *end);
    if (!seconds.ok()) return seconds.status();
    // The first read loads the kernel.
    if (i == 1 || (i > 1 && *seconds < least)) least = *seconds;
  }
  if (least <= 0) return absl::InternalError("a read took no time");
  return static_cast<double>(bytes) / least;
}

}  // namespace
}  // namespace cuda

absl::StatusOr<std::unique_ptr<Device>> CreateCudaDevice(const CudaOptions& options) {
  absl::StatusOr<std::unique_ptr<cuda::CudaContext>> context =
      cuda::CudaContext::Create(options.device);
  if (!context.ok()) return context.status();
  auto device = std::make_unique<cuda::CudaDevice>(*std::move(context), options);
  if (absl::Status status = device->Create(); !status.ok()) return status;
  return device;
}

}  // namespace sirocco
