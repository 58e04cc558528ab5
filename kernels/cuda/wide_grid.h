// How wide products (wide_product.cuh) cut their work into tiles, and who takes which. Depends on
// the shape alone, so that the sums of a shape are always made in the same order.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SIROCCO_WIDE_CALL __host__ __device__ constexpr
#else
#define SIROCCO_WIDE_CALL constexpr
#endif

namespace sirocco::cuda {

// A cluster's work: a run of row tiles by a run of output tiles, one for each of its blocks.
struct WideItem {
  int32_t rows = 0;     // which run of row tiles
  int32_t outputs = 0;  // which run of output tiles
  int32_t part = 0;     // of the inputs
};

// Items in the order that clusters take them in, each every `clusters`th: all rows of a group, then
// the next outputs, so that those under way at one time read few weights and few rows.
struct WideGrid {
  int32_t rows = 0;     // runs of row tiles
  int32_t outputs = 0;  // runs of output tiles
  int32_t parts = 1;    // of the inputs, multiplied side by side
  int32_t group = 1;    // runs of row tiles in a group, at least 1

  SIROCCO_WIDE_CALL int32_t items() const { return rows * outputs * parts; }
  // 0 <= index < items()
  SIROCCO_WIDE_CALL WideItem At(int32_t index) const {
    const int32_t each = rows * outputs;
    const int32_t part = index / each;
    const int32_t place = index - part * each;
    const int32_t in_group = group * outputs;
    const int32_t first = place / in_group * group;
    const int32_t here = rows - first < group ? rows - first : group;
    const int32_t rest = place - first * outputs;
    return {first + rest % here, rest / here, part};
  }
};

// Of `depth` stages those of one part: [first, last).
struct WideStages {
  int32_t first = 0, last = 0;
};
SIROCCO_WIDE_CALL WideStages StagesOf(int32_t depth, int32_t part, int32_t parts) {
  return {static_cast<int32_t>(int64_t{depth} * part / parts),
          static_cast<int32_t>(int64_t{depth} * (part + 1) / parts)};
}

}  // namespace sirocco::cuda
