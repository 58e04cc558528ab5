// The operations on CUDA: each checks its parameters, sees to its scratch memory, and launches.
//
// What a fused operation finds in its layer's entry of the table is not checked: that its matrices
// have the types and shapes of the operands is its caller's to keep (graphs/ makes both from one
// descriptor).
#pragma once

#include <cstddef>
#include <string_view>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/checks.h"
#include "kernels/cuda/fused_panels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/lt_matmul.h"
#include "kernels/cuda/panel_product.h"
#include "kernels/cuda/wide_normed.h"
#include "kernels/cuda/wide_pair.h"
#include "kernels/cuda/wide_product.h"
#include "kernels/ops.h"

namespace sirocco::cuda {

// What operations need of their device.
class OpSink {
 public:
  virtual ~OpSink() = default;
  // Nothing is launched; only scratch, choices of kernels and their loading are seen to.
  virtual bool preparing() const = 0;
  // Scratch of at least so many bytes from now on; while preparing, from its end on.
  // FAILED_PRECONDITION: it would have to grow while recording.
  virtual absl::Status NeedScratch(std::string_view operation, size_t bytes) = 0;
  // For one launch on the calling thread. After a fault, the fault: nothing more is launched.
  virtual absl::StatusOr<LaunchContext> Context(bool programmatic) = 0;
  // What a launch returned: counted (launched, recorded), or a status that names the operation.
  virtual absl::Status Launched(std::string_view operation, cudaError_t error) = 0;
};

// What operations may use. Only what is given: a batch-invariant device gives what was made for
// that, and no path that is added here later.
struct KernelSet {
  using PanelLauncher = cudaError_t (*)(const PanelProductParams&, PanelMaps&,
                                        const LaunchContext&);
  using WideLauncher = cudaError_t (*)(const WideProductParams&, const WideChoice&,
                                       const LaunchContext&);
  using WideNormedLauncher = cudaError_t (*)(const WideNormedParams&, const LaunchContext&);
  using LayersLauncher = cudaError_t (*)(const DecoderLayersParams&, const LaunchContext&);

  const Launchers& launchers;
  PanelLauncher panels = nullptr;            // null: no products by panels
  WideLauncher wide = nullptr;               // null: no wide products
  int32_t wide_clusters = 0;                 // of wide pairs that find room (wide_pair.h); 0: none
  WideNormedLauncher wide_normed = nullptr;  // null: no output with the norms behind it
  LayersLauncher layers = nullptr;           // null: no layers as one kernel
  // Of what `layers` are; null where it is.
  DecoderLayersOffer (*offer_layers)(const DecoderLayersShape&, int multiprocessors) = nullptr;
  LtMatMul* library = nullptr;  // null: all products are our own kernels'
  // Panels make all products that they can (FitsPanels), so that one kernel makes a matrix's for
  // any number of rows; else those that they make fastest (TakesPanels). Then rows are always
  // normed: a norm that is left to the product's end makes other bits, and takes few rows alone.
  bool panels_for_any_rows = false;
};

class CudaOps final : public Ops {
 public:
  CudaOps(const KernelSet& kernels, OpSink& sink)
      : launchers_(kernels.launchers),
        panels_(kernels.panels),
        panels_for_any_rows_(kernels.panels_for_any_rows),
        wide_(kernels.wide),
        wide_clusters_(kernels.wide_clusters),
        wide_normed_(kernels.wide_normed),
        layers_(kernels.layers),
        sink_(sink),
        library_(kernels.library) {}

  // A step's norms with fewer rows, and more (Device::norms_where_read_rows): panels take normed
  // rows.
  int32_t norms_where_read_rows() const {
    return panels_ != nullptr ? kStreamedRows : LtMatMul::kOwnRows;
  }

  // Of pairs (Device::paired_rows).
  int32_t paired_rows() const {
    if (panels_for_any_rows_) return 0;
    if (wide_clusters_ > 0) return kMostWidePairRows;
    return wide_normed_ != nullptr ? kMostNormedRows : panels_ != nullptr ? kMostUnnormedRows : 0;
  }

  absl::Status Run(const BeginStepParams& p) override;
  absl::Status Run(const EmbedParams& p) override;
  absl::Status Run(const RmsNormParams& p) override;
  absl::Status Run(const MatMulParams& p) override;
  absl::Status Run(const RotaryParams& p) override;
  absl::Status Run(const WriteKvParams& p) override;
  absl::Status Run(const DecodeAttentionParams& p) override;
  absl::Status Run(const PrefillAttentionParams& p) override;
  absl::Status Run(const AddParams& p) override;
  absl::Status Run(const GatedActivationParams& p) override;
  absl::Status Run(const GatherRowsParams& p) override;
  absl::Status Run(const SampleParams& p) override;
  absl::Status Run(const ScoreTokensParams& p) override;
  absl::Status Run(const NormQkvParams& p) override;
  absl::Status Run(const QkvParams& p) override;
  absl::Status Run(const QkvAttentionParams& p) override;
  absl::Status Run(const OutputResidualParams& p) override;
  absl::Status Run(const NormGateUpParams& p) override;
  absl::Status Run(const DownResidualParams& p) override;
  absl::Status Run(const DownNormParams& p) override;
  absl::Status Run(const HeadNormParams& p) override;
  absl::Status Run(const AddNormParams& p) override;
  absl::Status Run(const AdjustLogitsParams& p) override;
  absl::Status Run(const NormQkParams& p) override;
  absl::Status Run(const QkvEndParams& p) override;
  absl::Status Run(const ExpertsParams& p) override;
  absl::Status Run(const DecoderLayersParams& p) override;
  absl::Status Run(const OutputGateUpParams& p) override;
  absl::Status Run(const DownQkvParams& p) override;
  std::vector<MatMulParams> ProductsOf(const Operation& operation) override;

 private:
  // Not deduced from, so that nullptr is one.
  template <typename Params>
  using Launch = std::type_identity_t<cudaError_t (*)(const Params&, const LaunchContext&)>;
  template <typename Params>
  using ScratchOf = std::type_identity_t<size_t (*)(const Params&)>;

  // What the checks say, or, where they have nothing against it, scratch and launch.
  // programmatic: LaunchContext.
  template <typename Params>
  absl::Status Enqueue(const Checks& checks, Launch<Params> launch, ScratchOf<Params> scratch,
                       const Params& p, bool programmatic = true);
  bool PanelsTake(const PanelProductParams& p) const {
    return panels_ != nullptr && (panels_for_any_rows_ ? FitsPanels(p) : TakesPanels(p));
  }
  absl::Status PrepareFewerRows(const MatMulParams& p);
  absl::Status PanelMatMul(const MatMulParams& p);
  absl::Status LibraryMatMul(const MatMulParams& p);
  // A fused operation by our kernels alone or by the library's products between them
  // (ops_fused.cc).
  template <typename Params>
  absl::Status EnqueueFused(const Checks& checks, Launch<Params> launch, ScratchOf<Params> scratch,
                            const Params& p);
  template <typename Params>
  absl::Status PrepareFewerRows(const Params& p, Launch<Params> launch, ScratchOf<Params> scratch);
  template <typename Params>
  absl::Status LibraryFused(const Checks& checks, const Params& p);
  template <typename Params>
  bool IsPanels(const Params& p) const;
  template <typename Params>
  absl::Status PanelFused(const Checks& checks, const Params& p);
  // A pair in one of the ways below, else one after the other (ops_pairs.cc).
  template <typename Pair>
  absl::Status EnqueuePair(const Pair& p);
  template <typename Pair>
  bool IsUnnormed(const Pair& p) const;
  template <typename Pair>
  absl::Status PanelPair(std::string_view operation, const Pair& p);
  template <typename Params>
  bool IsWide(const Params& p) const;
  template <typename Params>
  absl::Status WideFused(const Checks& checks, const Params& p);
  absl::Status NeedParts(std::string_view operation, const WideProductParams& product,
                         const WideChoice& choice);
  cudaError_t LaunchWide(const WideChoice& choice, const LaunchContext& context,
                         WideProductParams& product);
  void* ScratchIn(const LaunchContext& context) const;
  bool MakesOfOwn(const OutputGateUpParams& p) const;
  bool MakesOfOwn(const DownQkvParams& p) const;
  // Two wide products without a norm between them.
  template <typename Pair>
  bool IsWidePair(const Pair& p) const;
  template <typename Pair>
  absl::Status RunWidePair(std::string_view operation, const Pair& p);
  // Output with the norms behind it, and gate and up, which begin with none then.
  template <typename Pair>
  bool IsWideNormed(const Pair& p) const;
  template <typename Pair>
  absl::Status WideNormedPair(std::string_view operation, const Pair& p);

  const Launchers& launchers_;
  const KernelSet::PanelLauncher panels_;
  const bool panels_for_any_rows_;
  const KernelSet::WideLauncher wide_;
  const int32_t wide_clusters_;
  const KernelSet::WideNormedLauncher wide_normed_;
  const KernelSet::LayersLauncher layers_;
  PanelMaps maps_;
  OpSink& sink_;
  LtMatMul* const library_;
};

template <typename Params>
absl::Status CudaOps::Enqueue(const Checks& checks, Launch<Params> launch,
                              ScratchOf<Params> scratch, const Params& p, bool programmatic) {
  if (!checks.ok()) return checks.status();
  if (launch == nullptr) return sink_.Launched(checks.operation(), cudaErrorNotSupported);
  if (scratch != nullptr) {
    if (absl::Status s = sink_.NeedScratch(checks.operation(), scratch(p)); !s.ok()) {
      return s;
    }
  }
  const absl::StatusOr<LaunchContext> context = sink_.Context(programmatic);
  if (!context.ok()) return context.status();
  return sink_.Launched(checks.operation(), launch(p, *context));
}

// Whether the operation's end adds up a product's parts.
template <typename Params>
constexpr bool kAddsParts = std::is_same_v<Params, DownNormParams>;

template <typename Params>
bool CudaOps::IsPanels(const Params& p) const {
  return p.layer.host != nullptr && PanelsTake(PanelsOf(p));
}

template <typename Params>
bool CudaOps::IsWide(const Params& p) const {
  WideChoice choice;
  return wide_ != nullptr && p.layer.host != nullptr &&
         ChooseWide(WideOf(PanelsOf(p)), kAddsParts<Params>, choice);
}

}  // namespace sirocco::cuda
