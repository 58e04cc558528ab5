#include <span>

#include "kernels/cuda/wide_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

template <WideTile kTile, typename T, WideEnd kEnd>
cudaError_t LaunchTile(const WideProductParams& p, const WideChoice& choice,
                       const LaunchContext& context) {
  constexpr WideTileSize kSize = SizeOf(kTile);
  using Shape = WideShape<kSize.rows / 64, kSize.outputs, kSize.down, kSize.across>;
  return LaunchWide<Shape, T, kEnd>(p, choice, context);
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
    case WideTile::kPairs128:
      break;
  }
  return cudaErrorNotSupported;
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
    case WideTile::kPairs256:
    case WideTile::kPairs224:
    case WideTile::kShared224:
      break;
  }
  return cudaErrorNotSupported;
}

template <typename T>
cudaError_t LoadOrLaunch(const WideProductParams& p, const WideChoice& choice,
                         const LaunchContext& context) {
  const bool parts = p.up.data == nullptr;
  const auto launch = parts ? LaunchParts<T> : LaunchGateUp<T>;
  if (!context.load_only) return launch(p, choice, context);
  WideChoice each = choice;
  for (const WideTile tile :
       parts ? std::span<const WideTile>(kPartTiles) : std::span<const WideTile>(kGateUpTiles)) {
    each.tile = tile;
    if (const cudaError_t error = launch(p, each, context); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t LaunchWideProduct(const WideProductParams& p, const WideChoice& choice,
                              const LaunchContext& context) {
  if (p.up.data == nullptr && p.parts != kWideParts) return cudaErrorNotSupported;
  return p.weight.dtype == DType::kBFloat16 ? LoadOrLaunch<__nv_bfloat16>(p, choice, context)
                                            : LoadOrLaunch<__half>(p, choice, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
