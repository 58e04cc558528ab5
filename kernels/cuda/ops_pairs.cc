// Two operations of a step plan as one (operation_pairs.h), where our products also make the norms
// between them: panels and wide products leave them to each other's ends, and output may have them
// behind it. All other pairs are made in turn.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "kernels/check_params.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/fused_panels.h"
#include "kernels/cuda/types.h"

namespace sirocco::cuda {
namespace {

// The stream's norms between a pair's products.
struct BetweenNorms {
  const float* post = nullptr;
  const float* next = nullptr;
  float epsilon = 0;
  Rows hidden;  // that the first reads or adds to
  Rows sum;     // where the second leaves it; may be `hidden`
};

BetweenNorms NormsOf(const OutputResidualParams& first, const NormGateUpParams& second) {
  const LayerParams& layer = *second.layer.host;
  const bool post = first.delta.data != nullptr;
  return {post ? layer.attention_post_norm : nullptr, layer.mlp_norm, layer.norm_epsilon,
          first.hidden, post ? second.sum : first.hidden};
}
BetweenNorms NormsOf(const DownNormParams& first, const QkvParams& /*second*/) {
  const LayerParams& layer = *first.layer.host;
  return {layer.mlp_post_norm, first.next_norm, layer.norm_epsilon, first.hidden, first.hidden};
}

// That the layers' post-norms have the rows they need, as the plans give them.
bool HasRows(const OutputResidualParams& first, const NormGateUpParams& second) {
  const bool post = second.layer.host->attention_post_norm != nullptr;
  return post == (first.delta.data != nullptr) && (!post || second.sum.data != nullptr);
}
bool HasRows(const DownNormParams& first, const QkvParams& /*second*/) {
  return first.layer.host->mlp_post_norm == nullptr || first.delta.data != nullptr;
}

// The first with the norms behind it, which are the second's. A pair of `rows` rows of which the
// host knows the layers, and that HasRows.
WideNormedParams WideNormedOf(const OutputResidualParams& first, const NormGateUpParams& second) {
  const BetweenNorms norms = NormsOf(first, second);
  const WideProductParams product = WideOf(PanelsOf(first));
  WideNormedParams normed;
  normed.rows = product.rows;
  normed.in = product.in;
  normed.weight = product.weight;
  normed.bias = product.bias;
  normed.hidden = norms.hidden;
  normed.post = norms.post;
  normed.next = norms.next;
  normed.epsilon = norms.epsilon;
  normed.sum = norms.sum;
  normed.normed = second.normed;
  return normed;
}

// Two products as wide ones, and how each is made.
struct WidePair {
  WideProductParams first, second;
  WideChoice first_choice, second_choice;
};

// False: they are not to be made so. `clusters`: ChooseWideInPair. `scratch`, aligned to 256 bytes,
// holds what is between them. The host knows their layers, and they HasRows.
template <typename First, typename Second>
bool WidePairOf(const First& first, const Second& second, int32_t clusters, void* scratch,
                WidePair& pair) {
  const BetweenNorms norms = NormsOf(first, second);
  if (norms.post != nullptr || norms.next == nullptr) return false;
  pair.first = WideOf(PanelsOf(first));
  pair.second = WideOf(PanelsOf(second));
  const size_t rows_bytes = UnnormedRowsBytes(first.rows, norms.hidden.width, /*post=*/false);
  float* const squares = reinterpret_cast<float*>(static_cast<char*>(scratch) + rows_bytes);
  pair.first.leaves = {norms.next, scratch, squares};
  pair.second.in.data = scratch;
  if (pair.second.in.width != pair.first.weight.rows ||
      !ChooseWideInPair(pair.first, clusters, pair.first_choice)) {
    return false;
  }
  pair.second.unnormed = {squares, RunsOf(pair.first, pair.first_choice), norms.epsilon};
  return ChooseWideInPair(pair.second, clusters, pair.second_choice);
}

struct UnnormedPair {
  PanelProductParams first, second;
};

// Of products that are panels; `scratch`, aligned to 256 bytes, holds what is between them.
template <typename First, typename Second>
UnnormedPair PairOf(const First& first, const Second& second, void* scratch) {
  UnnormedPair pair = {PanelsOf(first), PanelsOf(second)};
  const BetweenNorms norms = NormsOf(first, second);
  const bool post = norms.post != nullptr;
  const size_t rows_bytes = UnnormedRowsBytes(first.rows, norms.hidden.width, post);
  float* const squares = reinterpret_cast<float*>(static_cast<char*>(scratch) + rows_bytes);
  UnnormedOut& leaves = pair.first.leaves;
  leaves.post = norms.post;
  leaves.next = norms.next;
  leaves.rows = scratch;
  leaves.squares = squares;
  pair.second.in.data = scratch;
  UnnormedIn& unnormed = pair.second.unnormed;
  unnormed.squares = squares;
  unnormed.epsilon = norms.epsilon;
  unnormed.post = post;
  if (post) {
    leaves.hidden = static_cast<const float*>(norms.hidden.data);
    unnormed.hidden = leaves.hidden;
    unnormed.added = static_cast<const float*>(pair.first.out.data);
    unnormed.sum = static_cast<float*>(norms.sum.data);
  }
  return pair;
}

}  // namespace

template <typename Pair>
bool CudaOps::IsUnnormed(const Pair& p) const {
  const auto first = FirstOf(p);
  const auto second = SecondOf(p);
  if (panels_for_any_rows_ || !IsPanels(first) || !IsPanels(second)) return false;
  if (first.layer.counter != nullptr || second.layer.counter != nullptr) return false;
  if (!HasRows(first, second)) return false;
  const BetweenNorms norms = NormsOf(first, second);
  if (norms.next == nullptr) return false;
  if (p.rows > UnnormedRows(norms.post != nullptr)) return false;
  void* const anywhere = reinterpret_cast<void*>(uintptr_t{256});  // as aligned as the scratch
  const UnnormedPair pair = PairOf(first, second, anywhere);
  return pair.second.in.width == pair.first.weight.rows && TakesUnnormed(pair.first) &&
         TakesUnnormed(pair.second);
}

template <typename Pair>
bool CudaOps::IsWidePair(const Pair& p) const {
  const auto first = FirstOf(p);
  const auto second = SecondOf(p);
  if (wide_clusters_ == 0 || first.layer.host == nullptr || second.layer.host == nullptr) {
    return false;
  }
  if (first.layer.counter != nullptr || second.layer.counter != nullptr) return false;
  // Where panels have few weights to bring they are faster, with norms between them.
  if (IsPanels(first) || IsPanels(second) || !HasRows(first, second)) return false;
  void* const anywhere = reinterpret_cast<void*>(uintptr_t{256});  // as aligned as the scratch
  WidePair pair;
  return WidePairOf(first, second, wide_clusters_, anywhere, pair);
}

// Of a pair that IsWidePair.
template <typename Pair>
absl::Status CudaOps::RunWidePair(std::string_view operation, const Pair& p) {
  const auto first = FirstOf(p);
  const auto second = SecondOf(p);
  const size_t bytes = WidePairBytes(p.rows, first.hidden.width);
  if (absl::Status s = sink_.NeedScratch(operation, bytes); !s.ok()) return s;
  const absl::StatusOr<LaunchContext> context = sink_.Context(true);
  if (!context.ok()) return context.status();
  WidePair pair;
  if (!WidePairOf(first, second, wide_clusters_, ScratchIn(*context), pair)) {
    return sink_.Launched(operation, cudaErrorNotSupported);
  }
  cudaError_t error = wide_(pair.first, pair.first_choice, *context);
  if (error == cudaSuccess) error = wide_(pair.second, pair.second_choice, *context);
  return sink_.Launched(operation, error);
}

template <typename Pair>
absl::Status CudaOps::EnqueuePair(const Pair& p) {
  const Checks checks = CheckParams(p, kTypes);
  if (!checks.ok()) return checks.status();
  const std::string_view operation = checks.operation();
  if (!sink_.preparing()) {
    return IsUnnormed(p)     ? PanelPair(operation, p)
           : IsWidePair(p)   ? RunWidePair(operation, p)
           : IsWideNormed(p) ? WideNormedPair(operation, p)
                             : RunInTurn(*this, p);
  }
  // Later operations of this shape may have fewer rows: the most of each kind.
  if (absl::Status status = RunInTurn(*this, p); !status.ok()) return status;
  using Is = bool (CudaOps::*)(const Pair&) const;
  using Make = absl::Status (CudaOps::*)(std::string_view, const Pair&);
  const auto prepare = [&](int32_t most, Is is, Make make) {
    Pair few = p;
    few.rows = std::min(p.rows, most);
    while (few.rows > 0 && !(this->*is)(few)) --few.rows;
    return few.rows > 0 ? (this->*make)(operation, few) : absl::OkStatus();
  };
  absl::Status status =
      prepare(kMostWidePairRows, &CudaOps::IsWidePair<Pair>, &CudaOps::RunWidePair<Pair>);
  status.Update(
      prepare(kMostNormedRows, &CudaOps::IsWideNormed<Pair>, &CudaOps::WideNormedPair<Pair>));
  status.Update(prepare(kMostUnnormedRows, &CudaOps::IsUnnormed<Pair>, &CudaOps::PanelPair<Pair>));
  return status;
}

template <typename Pair>
bool CudaOps::IsWideNormed(const Pair& p) const {
  if constexpr (std::is_same_v<Pair, OutputGateUpParams>) {
    const auto first = FirstOf(p);
    const auto second = SecondOf(p);
    if (wide_normed_ == nullptr || first.layer.host == nullptr || IsPanels(first)) return false;
    // What the library makes begins with norms of its own.
    return IsWide(second) && HasRows(first, second) && TakesWideNormed(WideNormedOf(first, second));
  }
  return false;
}

// Of a pair that IsWideNormed.
template <typename Pair>
absl::Status CudaOps::WideNormedPair(std::string_view operation, const Pair& p) {
  if constexpr (std::is_same_v<Pair, OutputGateUpParams>) {
    WideProductParams second = WideOf(PanelsOf(SecondOf(p)));
    WideChoice choice;
    if (ChooseWide(second, /*adds_parts=*/false, choice)) {
      const absl::StatusOr<LaunchContext> context = sink_.Context(true);
      if (!context.ok()) return context.status();
      cudaError_t error = wide_normed_(WideNormedOf(FirstOf(p), SecondOf(p)), *context);
      if (error == cudaSuccess) error = LaunchWide(choice, *context, second);
      return sink_.Launched(operation, error);
    }
  }
  return sink_.Launched(operation, cudaErrorNotSupported);
}

// Of a pair that IsUnnormed.
template <typename Pair>
absl::Status CudaOps::PanelPair(std::string_view operation, const Pair& p) {
  const auto first = FirstOf(p);
  const auto second = SecondOf(p);
  const size_t bytes =
      UnnormedBytes(p.rows, first.hidden.width, NormsOf(first, second).post != nullptr);
  if (absl::Status s = sink_.NeedScratch(operation, bytes); !s.ok()) return s;
  const absl::StatusOr<LaunchContext> context = sink_.Context(true);
  if (!context.ok()) return context.status();
  const UnnormedPair pair = PairOf(first, second, ScratchIn(*context));
  cudaError_t error = panels_(pair.first, maps_, *context);
  if (error == cudaSuccess) error = panels_(pair.second, maps_, *context);
  return sink_.Launched(operation, error);
}

bool CudaOps::MakesOfOwn(const OutputGateUpParams& p) const {
  return IsUnnormed(p) || IsWidePair(p) || IsWideNormed(p);
}

bool CudaOps::MakesOfOwn(const DownQkvParams& p) const { return IsUnnormed(p) || IsWidePair(p); }

absl::Status CudaOps::Run(const OutputGateUpParams& p) { return EnqueuePair(p); }

absl::Status CudaOps::Run(const DownQkvParams& p) { return EnqueuePair(p); }

}  // namespace sirocco::cuda
