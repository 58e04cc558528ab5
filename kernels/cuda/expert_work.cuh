// What the kernels of a layer's experts hand to each other.
//
// A *pair* is one of a row's experts: number row * experts_a_row + i, i counting from the lowest id
// on. An *item* is an expert with the pairs that have it, at most so many as are multiplied at once:
// a list of items on the device is all that the products need, so that their grid is a fixed one.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/path.h"
#include "kernels/params.h"

namespace sirocco::cuda::SIROCCO_CUDA_PATH {

// More rows are done in turn, so that scratch memory is bounded (64 MiB of products where 8 of a
// row's experts have 2,048 outputs each).
inline constexpr int32_t kExpertRows = 1024;
// Rows that are multiplied at once are tiles of so many, in an item of few pairs one, else four.
inline constexpr int32_t kExpertTileRows = 8;

struct ExpertItem {
  int32_t expert;
  int32_t first;  // of its pairs in `pairs`
  int32_t count;
};

struct ExpertWork {
  ExpertsParams p;
  float* logits;        // [R, experts]
  float* products;      // [R * experts_a_row, hidden]: each pair's, not yet times its share
  int32_t* pairs;       // [R * experts_a_row], by expert
  ExpertItem* items;    // [most_items]
  int32_t* item_count;  // [1]
  int32_t most_items;
  int32_t item_pairs;  // of an item at most
  uint32_t* counters;  // [kCounters], zero
  size_t scratch_bytes;

  // Places everything behind `scratch`, which is aligned to 256 bytes.
  __host__ ExpertWork(const ExpertsParams& p, void* scratch, uint32_t* counters)
      : p(p), counters(counters) {
    const int64_t rows = p.rows;
    const int64_t all = rows * p.layer.experts_a_row;
    // Where an expert has more than five pairs on average, some have more than one tile's.
    const bool few = p.normed.dtype == DType::kFloat32 || all <= 5 * int64_t{p.layer.experts};
    item_pairs = few ? kExpertTileRows : 4 * kExpertTileRows;
    most_items =
        static_cast<int32_t>(std::min<int64_t>(p.layer.experts, all) + all / item_pairs);
    char* at = static_cast<char*>(scratch);
    const auto take = [&](int64_t bytes) {
      char* const taken = at;
      at += CeilDiv(bytes, 256) * 256;
      return static_cast<void*>(taken);
    };
    logits = static_cast<float*>(take(rows * p.layer.experts * sizeof(float)));
    products = static_cast<float*>(take(all * p.hidden.width * sizeof(float)));
    pairs = static_cast<int32_t*>(take(all * sizeof(int32_t)));
    items = static_cast<ExpertItem*>(take(most_items * sizeof(ExpertItem)));
    item_count = static_cast<int32_t*>(take(sizeof(int32_t)));
    scratch_bytes = static_cast<size_t>(at - static_cast<char*>(scratch));
  }
};

}  // namespace sirocco::cuda::SIROCCO_CUDA_PATH
