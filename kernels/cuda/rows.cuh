// Kernels that take rows of any type and width: several elements at a time where widths allow.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

inline constexpr int kRowThreads = 256;

template <int kCount>
using Count = std::integral_constant<int, kCount>;

// Calls `body` with Count<kWide> where all of `sizes` (elements) are multiples of it and all of
// `pointers` are aligned to 16 bytes, else with Count<1>.
template <int kWide, typename Body>
auto WithCount(std::initializer_list<int64_t> sizes, std::initializer_list<const void*> pointers,
               const Body& body) {
  bool wide = true;
  for (const int64_t size : sizes) wide = wide && size % kWide == 0;
  for (const void* pointer : pointers) wide = wide && IsAligned(pointer, 16);
  return wide ? body(Count<kWide>{}) : body(Count<1>{});
}

inline uint32_t Blocks(int64_t items, int64_t a_block) {
  return static_cast<uint32_t>(CeilDiv(items, a_block));
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
