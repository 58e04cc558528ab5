#include "kernels/cuda/wide_product.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {
namespace {

template <typename Shape, typename T>
cudaError_t LaunchEnd(const WideProductParams& p, const WideChoice& choice,
                      const LaunchContext& context) {
  if (p.up.data != nullptr) return LaunchWide<Shape, T, WideEnd::kGateUp>(p, choice, context);
  if (p.add) return LaunchWide<Shape, T, WideEnd::kAdd>(p, choice, context);
  return LaunchWide<Shape, T, WideEnd::kStore>(p, choice, context);
}

template <typename T>
cudaError_t Launch(const WideProductParams& p, const WideChoice& choice,
                   const LaunchContext& context) {
  if (context.load_only) {
    cudaError_t error = cudaSuccess;
    const auto load = [&](auto shape) {
      if (error != cudaSuccess) return;
      error = LaunchEnd<decltype(shape), T>(p, choice, context);
    };
    load(WideShape<2, 256, 2, 1>());
    load(WideShape<2, 224, 2, 1>());
    load(WideShape<2, 128, 2, 1>());
    load(WideShape<2, 256, 1, 2>());
    return error;
  }
  switch (choice.tile) {
    case WideTile::kPairs256:
      return LaunchEnd<WideShape<2, 256, 2, 1>, T>(p, choice, context);
    case WideTile::kPairs224:
      return LaunchEnd<WideShape<2, 224, 2, 1>, T>(p, choice, context);
    case WideTile::kPairs128:
      return LaunchEnd<WideShape<2, 128, 2, 1>, T>(p, choice, context);
    case WideTile::kShared256:
      return LaunchEnd<WideShape<2, 256, 1, 2>, T>(p, choice, context);
  }
  return cudaErrorNotSupported;
}

}  // namespace

cudaError_t LaunchWideProduct(const WideProductParams& p, const WideChoice& choice,
                              const LaunchContext& context) {
  return p.weight.dtype == DType::kBFloat16 ? Launch<__nv_bfloat16>(p, choice, context)
                                            : Launch<__half>(p, choice, context);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
