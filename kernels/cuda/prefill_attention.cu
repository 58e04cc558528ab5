// Attention of prompt chunks: chooses the kernel and the grid.
//
// The matrix units take 16-bit queries and KV of one type with a head_dim that is a multiple of 8,
// up to 256, or KV in float8 and a multiple of 16; the plain kernel takes the rest. All walk over a
// chunk's slots from the first that a row of the tile sees, so that a window costs what it shows.
// On Hopper, KV of the queries' type is multiplied by warpgroups (wgmma_prefill.cuh), elsewhere,
// and float8, by warps.
//
// Assumes: each segment is another lane's, so that their tiles can be bounded on the host; head_dim
// 1 ... 1,024.

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/prefill_mma.cuh"
#include "kernels/cuda/prefill_plain.cuh"
#include "kernels/cuda/prefill_scaled.cuh"
#include "kernels/cuda/wgmma_prefill.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

bool IsScaled(const PrefillAttentionParams& p) { return p.kv.dtype == DType::kFloat8; }

bool MatrixUnitsTake(const PrefillAttentionParams& p) {
  const bool kv =
      IsScaled(p) ? SlotsAreWide<16>(p.kv) : p.kv.dtype == p.q.dtype && SlotsAreWide(p.kv);
  return kv && p.q.dtype != DType::kFloat32 && p.out.dtype == p.q.dtype && p.kv.head_dim <= 256 &&
         IsAligned(p.q.data, 16) && p.q.width % 8 == 0 && IsAligned(p.out.data, 4) &&
         p.out.width % 2 == 0;
}

cudaError_t LaunchWarps(void (*kernel)(PrefillAttentionParams), size_t shared_bytes,
                        const PrefillAttentionParams& p, const LaunchContext& context) {
  const cudaError_t error = AllowShared(kernel, shared_bytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(MostRowTiles(p, kPrefillRows)),
                  static_cast<unsigned>(p.shape.heads));
  return LaunchKernel(kernel, grid, dim3(kPrefillThreads), shared_bytes, context, p);
}

// The least width that holds a head; what it has beyond is zeros.
template <typename Body>
cudaError_t WithWidth(int head_dim, const Body& body) {
  if (head_dim <= 32) return body(std::integral_constant<int, 32>());
  if (head_dim <= 64) return body(std::integral_constant<int, 64>());
  if (head_dim <= 80) return body(std::integral_constant<int, 80>());
  if (head_dim <= 96) return body(std::integral_constant<int, 96>());
  if (head_dim <= 128) return body(std::integral_constant<int, 128>());
  return body(std::integral_constant<int, 256>());
}

template <typename T>
cudaError_t LaunchScaled(const PrefillAttentionParams& p, const LaunchContext& context) {
  return WithWidth(p.kv.head_dim, [&](auto dim) {
    return LaunchWarps(PrefillScaledKernel<T, dim()>, ScaledShape<dim()>::kSharedBytes, p, context);
  });
}

#if SIROCCO_HOPPER
// Maxima are taken before scores are scaled.
bool IsMatrixUnits(const PrefillAttentionParams& p) {
  return MatrixUnitsTake(p) &&
         (IsScaled(p) || (p.shape.scale > 0 && IsAligned(p.out.data, 16) && p.out.width % 8 == 0));
}

template <typename T, int kDim>
cudaError_t LaunchWarpgroups(const PrefillAttentionParams& p, const LaunchContext& context) {
  using Shape = WgmmaShape<kDim>;
  const auto kernel = PrefillWgmmaKernel<T, kDim>;
  const cudaError_t error = AllowShared(kernel, Shape::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int64_t items = MostRowTiles(p, Shape::kRows) * p.shape.heads;
  const dim3 grid(static_cast<unsigned>(std::min<int64_t>(items, context.multiprocessors)));
  return LaunchKernel(kernel, grid, dim3(Shape::kThreads), Shape::kSharedBytes, context,
                      WgmmaArgs{p, context.counters});
}

template <typename T>
cudaError_t LaunchUnscaled(const PrefillAttentionParams& p, const LaunchContext& context) {
  if (p.kv.head_dim <= 64) return LaunchWarpgroups<T, 64>(p, context);
  if (p.kv.head_dim <= 128) return LaunchWarpgroups<T, 128>(p, context);
  return LaunchWarpgroups<T, 256>(p, context);
}
#else
bool IsMatrixUnits(const PrefillAttentionParams& p) { return MatrixUnitsTake(p); }

template <typename T>
cudaError_t LaunchUnscaled(const PrefillAttentionParams& p, const LaunchContext& context) {
  return WithWidth(p.kv.head_dim, [&](auto dim) {
    return LaunchWarps(PrefillMmaKernel<T, dim()>, PrefillShape<dim()>::kSharedBytes, p, context);
  });
}
#endif

template <typename T>
cudaError_t LaunchMatrixUnits(const PrefillAttentionParams& p, const LaunchContext& context) {
  return IsScaled(p) ? LaunchScaled<T>(p, context) : LaunchUnscaled<T>(p, context);
}

template <int kQueries>
cudaError_t LaunchPlain(const PrefillAttentionParams& p, const LaunchContext& context) {
  PlainArgs args;
  args.p = p;
  PlainLayout& layout = args.layout;
  layout.head_dim = p.kv.head_dim;
  layout.chunks = static_cast<int32_t>(CeilDiv(layout.head_dim, 8));
  // As many queries as threads and shared memory allow: all heads first, then more rows.
  layout.queries = std::min(kMaxSplitQueries, kQueries * (kSplitThreads / layout.chunks));
  while (layout.queries > kQueries && PlainShared::Bytes(layout) > kMaxBlockShared) {
    layout.queries -= kQueries;
  }
  const int heads_a_kv_head = p.shape.heads / p.kv.kv_heads;
  layout.heads = std::min(heads_a_kv_head, layout.queries);
  layout.rows = layout.queries / layout.heads;
  layout.passes = static_cast<int32_t>(CeilDiv(heads_a_kv_head, layout.heads));
  const size_t shared_bytes = static_cast<size_t>(PlainShared::Bytes(layout));
  const auto kernel =
      IsScaled(p) ? PrefillPlainKernel<kQueries, true> : PrefillPlainKernel<kQueries, false>;
  const cudaError_t error = AllowShared(kernel, shared_bytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(MostRowTiles(p, layout.rows)),
                  static_cast<unsigned>(p.kv.kv_heads * layout.passes));
  return LaunchKernel(kernel, grid, dim3(kSplitThreads), shared_bytes, context, args);
}

}  // namespace

cudaError_t LaunchPrefillAttention(const PrefillAttentionParams& p, const LaunchContext& context) {
  if (p.kv.head_dim > kMaxSplitHeadDim) return cudaErrorNotSupported;
  if (IsMatrixUnits(p)) {
    return p.q.dtype == DType::kBFloat16 ? LaunchMatrixUnits<__nv_bfloat16>(p, context)
                                         : LaunchMatrixUnits<__half>(p, context);
  }
  // A thread's sums of eight queries; of the largest heads, eight do not fit into shared memory.
  return p.kv.head_dim <= 512 ? LaunchPlain<8>(p, context) : LaunchPlain<4>(p, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
