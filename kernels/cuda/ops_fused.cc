// The fused operations of the step plans. Few rows are our kernels'; so are many where the host
// does not know the layer or the library does not take a product. Else an operation is our kernel
// of the norms, the products, and our kernel that ends them: the products are panels' or wide ones,
// which end all but norms themselves and may leave parts to these, or the library's. Two as one:
// ops_pairs.cc.
#include <algorithm>
#include <cstdint>
#include <string_view>
#include <variant>

#include "kernels/check_params.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/fused_panels.h"
#include "kernels/cuda/fused_products.h"
#include "kernels/cuda/types.h"
#include "kernels/limits.h"

namespace sirocco::cuda {
namespace {

// ---- Before the products ------------------------------------------------------------------------

template <typename Params>
cudaError_t Begin(const Launchers& /*launchers*/, const Params& /*p*/,
                  const LaunchContext& /*context*/) {
  return cudaSuccess;
}
cudaError_t Begin(const Launchers& launchers, const NormQkvParams& p,
                  const LaunchContext& context) {
  return launchers.norms_before_qkv(p, context);
}
cudaError_t Begin(const Launchers& launchers, const NormGateUpParams& p,
                  const LaunchContext& context) {
  return launchers.norms_before_gate_up(p, context);
}

// ---- After them ---------------------------------------------------------------------------------

cudaError_t AddBias(const Launchers& launchers, const MatMulParams& product,
                    const LaunchContext& context) {
  if (product.bias == nullptr) return cudaSuccess;
  return launchers.add_bias(product.rows, product.out, product.bias, context);
}

template <typename Params>
cudaError_t End(const Launchers& /*launchers*/, const Params& /*p*/,
                const FusedProducts& /*products*/, const LaunchContext& /*context*/) {
  return cudaSuccess;
}
cudaError_t End(const Launchers& launchers, const OutputResidualParams& /*p*/,
                const FusedProducts& products, const LaunchContext& context) {
  return AddBias(launchers, products.at[0], context);
}
cudaError_t End(const Launchers& launchers, const DownResidualParams& /*p*/,
                const FusedProducts& products, const LaunchContext& context) {
  return AddBias(launchers, products.at[0], context);
}
cudaError_t End(const Launchers& launchers, const NormGateUpParams& p,
                const FusedProducts& products, const LaunchContext& context) {
  return launchers.gate_up_end(EndOf(p, products), context);
}
cudaError_t End(const Launchers& launchers, const DownNormParams& p, const FusedProducts& products,
                const LaunchContext& context) {
  const cudaError_t error = AddBias(launchers, products.at[0], context);
  return error != cudaSuccess ? error : launchers.norms_after_down(EndOf(p, products), context);
}

// Whether a library may make an operation's products.
template <typename Params>
concept IsOfProducts = requires(const Params& p) {
  FusedProductsOf(p, nullptr);
};

// Two operations as one.
template <typename Params>
concept IsPair = requires(const Params& p) {
  FirstOf(p);
};

ProductForm FormOf(const FusedProducts& products) { return {products.add, products.parts}; }

template <typename Params>
bool IsLibrarys(const Params& p) {
  if (p.layer.host == nullptr) return false;
  const FusedProducts products = FusedProductsOf(p, nullptr);
  for (const MatMulParams& product : products.all()) {
    if (!LtMatMul::Takes(product)) return false;
  }
  return products.count > 0;
}

// ---- As panels ----------------------------------------------------------------------------------

template <typename Params>
cudaError_t EndPanels(const Launchers& /*launchers*/, const Params& /*p*/,
                      const LaunchContext& /*context*/) {
  return cudaSuccess;
}
cudaError_t EndPanels(const Launchers& launchers, const DownNormParams& p,
                      const LaunchContext& context) {
  return launchers.norms_after_down(DownEndParams{p}, context);
}

// ---- As wide products ---------------------------------------------------------------------------

// `product`: what was launched.
template <typename Params>
cudaError_t EndWide(const Launchers& /*launchers*/, const Params& /*p*/,
                    const WideProductParams& /*product*/, const LaunchContext& /*context*/) {
  return cudaSuccess;
}
cudaError_t EndWide(const Launchers& launchers, const DownNormParams& p,
                    const WideProductParams& product, const LaunchContext& context) {
  DownEndParams end = {p};
  if (product.parts > 1) {
    end.sums = static_cast<const float*>(product.out.data);
    end.parts = product.parts;
  }
  return launchers.norms_after_down(end, context);
}

}  // namespace

template <typename Params>
absl::Status CudaOps::EnqueueFused(const Checks& checks, Launch<Params> launch,
                                   ScratchOf<Params> scratch, const Params& p) {
  // The last kernel of the layer before may still have the counter to move on: a layer's first one
  // starts when that has ended, and so do all kernels of the layer, which may then read the counter
  // at once.
  constexpr bool kBeginsLayer =
      std::is_same_v<Params, NormQkvParams> || std::is_same_v<Params, QkvParams>;
  const bool programmatic = !kBeginsLayer || p.layer.counter == nullptr;
  if constexpr (IsOfProducts<Params>) {
    const bool panels = checks.ok() && IsPanels(p);
    const bool wide = checks.ok() && !panels && IsWide(p);
    if (panels || wide || (checks.ok() && library_ != nullptr && IsLibrarys(p))) {
      if (sink_.preparing() && !panels_for_any_rows_) {
        if (absl::Status s = PrepareFewerRows(p, launch, scratch); !s.ok()) return s;
      }
      return panels ? PanelFused(checks, p) : wide ? WideFused(checks, p) : LibraryFused(checks, p);
    }
  }
  return Enqueue(checks, launch, scratch, p, programmatic);
}

// Later operations of this shape may have so few rows that others do them.
template <typename Params>
absl::Status CudaOps::PrepareFewerRows(const Params& p, Launch<Params> launch,
                                       ScratchOf<Params> scratch) {
  Params few = p;
  few.rows = LtMatMul::kOwnRows;
  if (absl::Status s = Enqueue(CheckParams(few, kTypes), launch, scratch, few); !s.ok()) return s;
  // What is wide may be the library's of fewer rows, and what is the library's wide.
  few.rows = p.rows - 1;
  while (few.rows > LtMatMul::kOwnRows && (IsWide(few) || IsPanels(few))) --few.rows;
  if (IsWide(p) && few.rows > LtMatMul::kOwnRows && library_ != nullptr && IsLibrarys(few)) {
    if (absl::Status s = LibraryFused(CheckParams(few, kTypes), few); !s.ok()) return s;
  }
  few.rows = std::min(p.rows, kWidePartsRows);
  while (few.rows >= kWideRows && !IsWide(few)) --few.rows;
  if (few.rows >= kWideRows && !IsWide(p)) {
    if (absl::Status s = WideFused(CheckParams(few, kTypes), few); !s.ok()) return s;
  }
  for (const int32_t most : {kPanelRows, kPanelRows / 2}) {
    few.rows = most;
    if (p.rows > most && IsPanels(few)) return PanelFused(CheckParams(few, kTypes), few);
  }
  return absl::OkStatus();
}

// Of an operation that IsWide.
template <typename Params>
absl::Status CudaOps::WideFused(const Checks& checks, const Params& p) {
  WideProductParams product = WideOf(PanelsOf(p));
  WideChoice choice;
  if (!ChooseWide(product, kAddsParts<Params>, choice)) {
    return sink_.Launched(checks.operation(), cudaErrorNotSupported);
  }
  if (absl::Status s = NeedParts(checks.operation(), product, choice); !s.ok()) return s;
  const absl::StatusOr<LaunchContext> context = sink_.Context(true);
  if (!context.ok()) return context.status();
  cudaError_t error = Begin(launchers_, p, *context);
  if (error == cudaSuccess) error = LaunchWide(choice, *context, product);
  if (error == cudaSuccess) error = EndWide(launchers_, p, product, *context);
  return sink_.Launched(checks.operation(), error);
}

// Scratch for a product's parts, where it comes in parts.
absl::Status CudaOps::NeedParts(std::string_view operation, const WideProductParams& product,
                                const WideChoice& choice) {
  if (choice.parts == 1) return absl::OkStatus();
  return sink_.NeedScratch(operation, PartsBytes(product, choice.parts));
}

// `product` is then what was launched: in parts, the first of them with the bias.
cudaError_t CudaOps::LaunchWide(const WideChoice& choice, const LaunchContext& context,
                                WideProductParams& product) {
  if (choice.parts == 1) return wide_(product, choice, context);
  const float* const bias = product.bias;
  product = InParts(product, choice.parts, ScratchIn(context));
  if (const cudaError_t error = wide_(product, choice, context); error != cudaSuccess) return error;
  return bias == nullptr ? cudaSuccess
                         : launchers_.add_bias(product.rows, product.out, bias, context);
}

// While preparing the scratch is still to be made. Nothing is written then, but an address is
// wanted: one that is aligned as the scratch will be.
void* CudaOps::ScratchIn(const LaunchContext& context) const {
  return sink_.preparing() ? context.counters : context.scratch;
}

// Of an operation that IsPanels.
template <typename Params>
absl::Status CudaOps::PanelFused(const Checks& checks, const Params& p) {
  const absl::StatusOr<LaunchContext> context = sink_.Context(true);
  if (!context.ok()) return context.status();
  cudaError_t error = Begin(launchers_, p, *context);
  if (error == cudaSuccess) error = panels_(PanelsOf(p), maps_, *context);
  if (error == cudaSuccess) error = EndPanels(launchers_, p, *context);
  return sink_.Launched(checks.operation(), error);
}

template <typename Params>
absl::Status CudaOps::LibraryFused(const Checks& checks, const Params& p) {
  // Later operations of this shape may have so few rows that the products are made in parts.
  if (sink_.preparing() && std::is_same_v<Params, DownNormParams> && p.rows > kMostPartsRows) {
    Params few = p;
    few.rows = kMostPartsRows;
    if (absl::Status s = LibraryFused(CheckParams(few, kTypes), few); !s.ok()) return s;
  }
  const size_t bytes = FusedProductsOf(p, nullptr).scratch_bytes;
  if (absl::Status s = sink_.NeedScratch(checks.operation(), bytes); !s.ok()) return s;
  const absl::StatusOr<LaunchContext> context = sink_.Context(true);
  if (!context.ok()) return context.status();
  const FusedProducts products = FusedProductsOf(p, ScratchIn(*context));
  if (const cudaError_t error = Begin(launchers_, p, *context); error != cudaSuccess) {
    return sink_.Launched(checks.operation(), error);
  }
  for (const MatMulParams& product : products.all()) {
    absl::Status status = sink_.preparing() ? library_->Prepare(product, FormOf(products))
                                            : library_->Run(product, FormOf(products));
    if (!status.ok()) return status;
  }
  return sink_.Launched(checks.operation(), End(launchers_, p, products, *context));
}

std::vector<MatMulParams> CudaOps::ProductsOf(const Operation& operation) {
  if (library_ == nullptr) return {};
  const absl::StatusOr<LaunchContext> context = sink_.Context(true);
  if (!context.ok()) return {};  // a fault, which whatever comes next tells
  const auto products_of = [&](const auto& p) -> std::vector<MatMulParams> {
    if constexpr (IsOfProducts<decltype(p)>) {
      if (IsPanels(p) || IsWide(p) || !IsLibrarys(p)) return {};
      const FusedProducts products = FusedProductsOf(p, context->scratch);
      if (products.parts > 1) return {};  // tables have no such entries
      return {products.all().begin(), products.all().end()};
    }
    if constexpr (IsPair<decltype(p)>) {
      if (MakesOfOwn(p)) return {};
      std::vector<MatMulParams> products = ProductsOf(FirstOf(p));
      for (const MatMulParams& product : ProductsOf(SecondOf(p))) products.push_back(product);
      return products;
    }
    return Ops::ProductsOf(p);
  };
  return std::visit(products_of, operation);
}

absl::Status CudaOps::Run(const NormQkvParams& p) {
  return EnqueueFused(CheckParams(p, kTypes), launchers_.norm_qkv, launchers_.norm_qkv_scratch, p);
}

absl::Status CudaOps::Run(const QkvParams& p) {
  return EnqueueFused(CheckParams(p, kTypes), launchers_.qkv, launchers_.qkv_scratch, p);
}

absl::Status CudaOps::Run(const NormQkParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.norm_qk, nullptr, p);
}

absl::Status CudaOps::Run(const QkvAttentionParams& p) {
  return Enqueue(CheckParams(p, kTypes), launchers_.qkv_attention, launchers_.qkv_attention_scratch,
                 p);
}

absl::Status CudaOps::Run(const ExpertsParams& p) {
  Checks checks = CheckParams(p, kTypes);
  checks.Within("layer.experts", p.layer.experts, 1, kMaxExperts);
  return Enqueue(checks, launchers_.experts, launchers_.experts_scratch, p);
}

absl::Status CudaOps::Run(const OutputResidualParams& p) {
  return EnqueueFused(CheckParams(p, kTypes), launchers_.output_residual,
                      launchers_.output_residual_scratch, p);
}

absl::Status CudaOps::Run(const NormGateUpParams& p) {
  return EnqueueFused(CheckParams(p, kTypes), launchers_.norm_gate_up,
                      launchers_.norm_gate_up_scratch, p);
}

absl::Status CudaOps::Run(const DownResidualParams& p) {
  return EnqueueFused(CheckParams(p, kTypes), launchers_.down_residual,
                      launchers_.down_residual_scratch, p);
}

absl::Status CudaOps::Run(const DownNormParams& p) {
  return EnqueueFused(CheckParams(p, kTypes), launchers_.down_norm, launchers_.down_norm_scratch,
                      p);
}

absl::Status CudaOps::Run(const DecoderLayersParams& p) {
  const Checks checks = CheckParams(p, kTypes);
  if (checks.ok() && layers_ == nullptr) {
    return sink_.Launched(checks.operation(), cudaErrorNotSupported);
  }
  // One layer: what it reads first is the counter, which the one before moves on.
  return Enqueue(checks, layers_, nullptr, p, /*programmatic=*/p.layer.counter == nullptr);
}

}  // namespace sirocco::cuda
