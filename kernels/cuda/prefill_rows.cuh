// Which rows a thread block of prefill takes: the segments are known on the device alone.
#pragma once

#include <algorithm>

#include "kernels/cuda/common.cuh"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// A tile of rows within one segment.
struct RowTile {
  int32_t lane;
  int32_t first_row;
  int32_t first_position;
  int32_t count;  // 0: there is no such tile
};

// Tile `index` of the segments cut into tiles of `rows`, the segments in order. For a whole warp.
__device__ __forceinline__ RowTile FindRowTile(const PrefillAttentionParams& p, int rows,
                                               int index) {
  const int lane = threadIdx.x % kWarp;
  const int segments = *p.segment_count;
  for (int first = 0; first < segments; first += kWarp) {
    PrefillSegment segment = {};
    if (first + lane < segments) segment = p.segments[first + lane];
    const int tiles = (segment.count + rows - 1) / rows;
    const int end = WarpPrefixSum(tiles);  // of this segment and those before it in the warp
    const uint32_t holds = __ballot_sync(kAllLanes, index < end);
    if (holds == 0) {
      index -= __shfl_sync(kAllLanes, end, kWarp - 1);
      continue;
    }
    const int owner = __ffs(static_cast<int>(holds)) - 1;
    const int skip = (index - __shfl_sync(kAllLanes, end - tiles, owner)) * rows;
    RowTile tile;
    tile.lane = __shfl_sync(kAllLanes, segment.lane, owner);
    tile.first_row = __shfl_sync(kAllLanes, segment.first_row, owner) + skip;
    tile.first_position = __shfl_sync(kAllLanes, segment.first_position, owner) + skip;
    tile.count = min(rows, __shfl_sync(kAllLanes, segment.count, owner) - skip);
    return tile;
  }
  return {0, 0, 0, 0};
}

// On the host: no fewer tiles of `rows` rows than the segments can have, each of another lane.
inline int64_t MostRowTiles(const PrefillAttentionParams& p, int rows) {
  return CeilDiv(p.rows, rows) + std::min(p.rows, p.lanes.max_lanes);
}

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
