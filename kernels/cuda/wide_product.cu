#include "kernels/cuda/wide_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

template <WideTile kTile, typename T>
cudaError_t LaunchTile(const WideProductParams& p, const WideChoice& choice,
                       const LaunchContext& context) {
  constexpr WideTileSize kSize = SizeOf(kTile);
  using Shape = WideShape<kSize.rows / 64, kSize.outputs, kSize.down, kSize.across>;
  return LaunchWide<Shape, T, WideEnd::kGateUp>(p, choice, context);
}

template <typename T>
cudaError_t Launch(const WideProductParams& p, const WideChoice& choice,
                   const LaunchContext& context) {
  switch (choice.tile) {
    case WideTile::kPairs256:
      return LaunchTile<WideTile::kPairs256, T>(p, choice, context);
    case WideTile::kPairs224:
      return LaunchTile<WideTile::kPairs224, T>(p, choice, context);
    case WideTile::kTall128:
      return LaunchTile<WideTile::kTall128, T>(p, choice, context);
    case WideTile::kShared224:
      return LaunchTile<WideTile::kShared224, T>(p, choice, context);
    case WideTile::kShared128:
      return LaunchTile<WideTile::kShared128, T>(p, choice, context);
  }
  return cudaErrorNotSupported;
}

template <typename T>
cudaError_t LoadOrLaunch(const WideProductParams& p, const WideChoice& choice,
                         const LaunchContext& context) {
  if (!context.load_only) return Launch<T>(p, choice, context);
  for (const WideTile tile : kWideTiles) {
    const WideChoice each = {.tile = tile, .group = choice.group};
    if (const cudaError_t error = Launch<T>(p, each, context); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t LaunchWideProduct(const WideProductParams& p, const WideChoice& choice,
                              const LaunchContext& context) {
  if (p.up.data == nullptr) return cudaErrorNotSupported;
  return p.weight.dtype == DType::kBFloat16 ? LoadOrLaunch<__nv_bfloat16>(p, choice, context)
                                            : LoadOrLaunch<__half>(p, choice, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
