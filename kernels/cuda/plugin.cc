#include "kernels/cuda/plugin.h"

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/plugin_build.h"

const char* sirocco_cuda_build() { return sirocco::kPluginBuild; }

void sirocco_cuda_open(const sirocco::CudaOptions* options,
                       absl::StatusOr<std::unique_ptr<sirocco::Device>>* device) {
  *device = sirocco::CreateCudaDevice(*options);
}
