#include "kernels/cuda/kernel_attributes.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace sirocco::cuda {
namespace {

// What is known. Places are taken once and never given back, under `mutex`; `kernel` is written
// last, so that who finds it finds the rest.
struct Place {
  std::atomic<const void*> kernel{nullptr};
  cudaFuncAttribute attribute = {};
  int device = 0;
  std::atomic<int> value{-1};  // set only when CUDA has it
};

// A few times as many as there are kernels that ask, on one device. What finds no place is asked of
// CUDA each time.
constexpr int kPlaceBits = 12;
constexpr size_t kPlaces = size_t{1} << kPlaceBits;
constexpr size_t kProbes = 16;

constinit Place places[kPlaces];
constinit std::mutex mutex;

size_t FirstPlace(const void* kernel, cudaFuncAttribute attribute, int device) {
  constexpr uint64_t kMix = 0x9e3779b97f4a7c15u;  // 2^64 over the golden ratio
  const uint64_t key = reinterpret_cast<uintptr_t>(kernel) + static_cast<uint64_t>(attribute) +
                       static_cast<uint64_t>(device) * 64;
  return key * kMix >> (64 - kPlaceBits);
}

// The key's place, or null; with `or_free`, for who holds the mutex, else the first that is free.
Place* Find(const void* kernel, cudaFuncAttribute attribute, int device, bool or_free) {
  const size_t first = FirstPlace(kernel, attribute, device);
  for (size_t i = 0; i < kProbes; ++i) {
    Place& place = places[(first + i) % kPlaces];
    const void* const known = place.kernel.load(std::memory_order_acquire);
    if (known == nullptr) return or_free ? &place : nullptr;
    if (known == kernel && place.attribute == attribute && place.device == device) return &place;
  }
  return nullptr;
}

}  // namespace

cudaError_t RaiseAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  const Place* const known = Find(kernel, attribute, device, /*or_free=*/false);
  if (known != nullptr && known->value.load(std::memory_order_acquire) >= value) {
    return cudaSuccess;
  }
  const std::lock_guard lock(mutex);
  // Others may have been here.
  Place* const place = Find(kernel, attribute, device, /*or_free=*/true);
  if (place != nullptr && place->value.load(std::memory_order_relaxed) >= value) {
    return cudaSuccess;
  }
  const cudaError_t error = cudaFuncSetAttribute(kernel, attribute, value);
  if (error != cudaSuccess || place == nullptr) return error;
  if (place->kernel.load(std::memory_order_relaxed) == nullptr) {
    place->attribute = attribute;
    place->device = device;
    place->value.store(value, std::memory_order_relaxed);
    place->kernel.store(kernel, std::memory_order_release);
  } else {
    place->value.store(value, std::memory_order_release);
  }
  return cudaSuccess;
}

}  // namespace sirocco::cuda
