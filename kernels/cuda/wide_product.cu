#include <span>

#include "kernels/cuda/wide_pair.h"
#include "kernels/cuda/wide_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

template <WideTile kTile>
struct ShapeOf {
  static constexpr WideTileSize kSize = SizeOf(kTile);
  using Type = WideShape<kSize.rows / 64, kSize.outputs, kSize.down, kSize.across, kSize.split>;
};

template <WideTile kTile, typename T, WideEnd kEnd>
cudaError_t LaunchTile(const WideProductParams& p, const WideChoice& choice,
                       const LaunchContext& context) {
  return LaunchWide<typename ShapeOf<kTile>::Type, T, kEnd>(p, choice, context);
}

template <typename T>
cudaError_t LaunchGateUp(const WideProductParams& p, const WideChoice& choice,
                         const LaunchContext& context) {
  constexpr WideEnd kEnd = WideEnd::kGateUp;
  switch (choice.tile) {
    case WideTile::kPairs256:
      return LaunchTile<WideTile::kPairs256, T, kEnd>(p, choice, context);
    case WideTile::kPairs224:
      return LaunchTile<WideTile::kPairs224, T, kEnd>(p, choice, context);
    case WideTile::kTall128:
      return LaunchTile<WideTile::kTall128, T, kEnd>(p, choice, context);
    case WideTile::kShared224:
      return LaunchTile<WideTile::kShared224, T, kEnd>(p, choice, context);
    case WideTile::kShared128:
      return LaunchTile<WideTile::kShared128, T, kEnd>(p, choice, context);
    case WideTile::kShared160:
      return LaunchTile<WideTile::kShared160, T, kEnd>(p, choice, context);
    case WideTile::kShared144:
      return LaunchTile<WideTile::kShared144, T, kEnd>(p, choice, context);
    case WideTile::kPairs160:
      return LaunchTile<WideTile::kPairs160, T, kEnd>(p, choice, context);
    default:
      return cudaErrorNotSupported;
  }
}

template <typename T>
cudaError_t LaunchParts(const WideProductParams& p, const WideChoice& choice,
                        const LaunchContext& context) {
  constexpr WideEnd kEnd = WideEnd::kStore;
  switch (choice.tile) {
    case WideTile::kTall128:
      return LaunchTile<WideTile::kTall128, T, kEnd>(p, choice, context);
    case WideTile::kShared128:
      return LaunchTile<WideTile::kShared128, T, kEnd>(p, choice, context);
    case WideTile::kPairs128:
      return LaunchTile<WideTile::kPairs128, T, kEnd>(p, choice, context);
    default:
      return cudaErrorNotSupported;
  }
}

// Of a pair what leaves unnormed rows, and q, k and v, which read them.
constexpr WideTile kLeaveTiles[] = {WideTile::kSharedHalves72, WideTile::kSharedHalves104,
                                    WideTile::kPairsHalves144, WideTile::kPairsHalves208,
                                    WideTile::kLowPairs128};
constexpr std::span<const WideTile> kReadTiles = std::span(kLeaveTiles).first<4>();

template <WideEnd kEnd>
cudaError_t LaunchStream(const WideProductParams& p, const WideChoice& choice,
                         const LaunchContext& context) {
  using T = __nv_bfloat16;
  switch (choice.tile) {
    case WideTile::kSharedHalves72:
      return LaunchTile<WideTile::kSharedHalves72, T, kEnd>(p, choice, context);
    case WideTile::kSharedHalves104:
      return LaunchTile<WideTile::kSharedHalves104, T, kEnd>(p, choice, context);
    case WideTile::kPairsHalves144:
      return LaunchTile<WideTile::kPairsHalves144, T, kEnd>(p, choice, context);
    case WideTile::kPairsHalves208:
      return LaunchTile<WideTile::kPairsHalves208, T, kEnd>(p, choice, context);
    case WideTile::kLowPairs128:
      if constexpr (kEnd == WideEnd::kLeave) {
        return LaunchTile<WideTile::kLowPairs128, T, kEnd>(p, choice, context);
      }
      return cudaErrorNotSupported;
    default:
      return cudaErrorNotSupported;
  }
}

// What makes `p`, and all of its tiles.
struct WideKernels {
  cudaError_t (*launch)(const WideProductParams&, const WideChoice&, const LaunchContext&);
  std::span<const WideTile> tiles;
};

template <typename T>
WideKernels KernelsOf(const WideProductParams& p) {
  if (p.up.data != nullptr) return {LaunchGateUp<T>, kGateUpTiles};
  if (p.parts > 1) return {LaunchParts<T>, kPartTiles};
  return p.add ? WideKernels{LaunchStream<WideEnd::kLeave>, kLeaveTiles}
               : WideKernels{LaunchStream<WideEnd::kStore>, kReadTiles};
}

}  // namespace

cudaError_t LaunchWideProduct(const WideProductParams& p, const WideChoice& choice,
                              const LaunchContext& context) {
  if (p.parts != 1 && p.parts != kWideParts) return cudaErrorNotSupported;
  const bool stream = p.up.data == nullptr && p.parts == 1;
  if (stream && p.weight.dtype != DType::kBFloat16) return cudaErrorNotSupported;
  const WideKernels kernels = p.weight.dtype == DType::kBFloat16 ? KernelsOf<__nv_bfloat16>(p)
                                                                 : KernelsOf<__half>(p);
  if (!context.load_only) return kernels.launch(p, choice, context);
  WideChoice each = choice;
  for (const WideTile tile : kernels.tiles) {
    each.tile = tile;
    const cudaError_t error = kernels.launch(p, each, context);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

int32_t RoomOfWidePairs() {
  using Shape = ShapeOf<WideTile::kPairsHalves208>::Type;
  const auto kernel = WideKernel<Shape, __nv_bfloat16, WideEnd::kLeave>;
  int device = 0, multiprocessors = 0;
  const bool known = cudaGetDevice(&device) == cudaSuccess &&
                     cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount,
                                            device) == cudaSuccess &&
                     AllowShared(kernel, Shape::kSharedBytes) == cudaSuccess;
  const int32_t room = known ? WideRoom<Shape>(kernel, multiprocessors) : 0;
  cudaGetLastError();  // no later call finds it
  return room;
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
