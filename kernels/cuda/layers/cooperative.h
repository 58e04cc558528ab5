// How a kernel of all layers is launched: a block a multiprocessor, all of them at once.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/layers/exchange.cuh"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

constexpr int kMostShared = 227 * 1024;  // of a block

using LayersKernelPointer = void (*)(LayersArgs);

// Whether the current device has room for every block of a kernel at once.
inline bool HasRoom(LayersKernelPointer kernel, int threads) {
  int device = 0, cooperative = 0, blocks = 0;
  const bool known =
      cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device) == cudaSuccess &&
      AllowShared(kernel, kMostShared) == cudaSuccess &&
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, kMostShared) ==
          cudaSuccess;
  if (!known) cudaGetLastError();  // no fault of the device: it just does not offer this
  return known && cooperative != 0 && blocks > 0;
}

// Whether a device's memory delivers 4 TB/s. To ask the driver takes 0.4 ms.
inline bool AskIfFast(int device) {
  constexpr double kFastRate = 4e12;  // bytes a second
  int kilohertz = 0, bits = 0;
  const bool known =
      cudaDeviceGetAttribute(&kilohertz, cudaDevAttrMemoryClockRate, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, device) == cudaSuccess;
  if (!known) cudaGetLastError();
  return known && 2e3 * kilohertz * bits / 8 >= kFastRate;  // twice a clock
}
// Of the current device, asked once.
inline bool HasFastMemory() {
  constexpr int kDevices = 64;
  enum : char { kUnknown, kSlow, kFast };
  static std::atomic<char> answers[kDevices];
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (device >= kDevices) return AskIfFast(device);
  char answer = answers[device].load(std::memory_order_relaxed);
  if (answer == kUnknown) {
    answer = AskIfFast(device) ? kFast : kSlow;
    answers[device].store(answer, std::memory_order_relaxed);
  }
  return answer == kFast;
}

// LayersTuning::under_way of the current device: `fast`, which was measured where memory delivers
// 4.9 TB/s (H200). On an H100, whose memory delivers 3.35, that many copies delay words: 8% of
// gemma3-1b's step, 2% of llama3.2-1b's.
inline int32_t UnderWay(int32_t fast) {
  constexpr int32_t kSlow = 40 * 1024;
  return HasFastMemory() ? fast : kSlow;
}

// With `load_only` the kernel is loaded, nothing more.
inline cudaError_t LaunchAtOnce(LayersKernelPointer kernel, const LayersArgs& args, int threads,
                                const LaunchContext& context) {
  if (const cudaError_t error = AllowShared(kernel, kMostShared); error != cudaSuccess) {
    return error;
  }
  if (context.load_only) {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, kernel);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(args.blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = kMostShared;
  config.stream = context.stream;
  cudaLaunchAttribute attributes[2];
  config.attrs = attributes;
  attributes[config.numAttrs].id = cudaLaunchAttributeCooperative;
  attributes[config.numAttrs++].val.cooperative = 1;
  if (context.programmatic) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, args);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
