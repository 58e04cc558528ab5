// What libsirocco_cuda.so exports. C++ objects pass through it: program and plugin must be built
// from the same sources by the same compiler, which the first function's answer tells.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/cuda/open.h"

extern "C" {

// kPluginBuild of the plugin.
__attribute__((visibility("default"))) const char* sirocco_cuda_build();

__attribute__((visibility("default"))) void sirocco_cuda_open(
    const sirocco::CudaOptions* options, absl::StatusOr<std::unique_ptr<sirocco::Device>>* device);

}  // extern "C"
