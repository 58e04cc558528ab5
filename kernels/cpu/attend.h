// Attention of query rows over the KV slots of one sequence and one KV head.
//
// Slots are taken in splits of 256 (slot / 256), whatever the number of rows or threads. A split
// gives each query its own maximum, sum and weighted values; splits are merged in order (online
// softmax: Milakov and Gimelshein, 2018; split and merge: Dao et al., 2023). A query's arithmetic
// depends on its position alone, so that prefill and decode give the same bits.
//
// A split of a cache in float8 becomes float32 first: this backend keeps such a cache for what it
// saves of memory, and to be what the GPU's is tested against, not for speed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/ops.h"

namespace sirocco::cpu {

inline constexpr int32_t kSplitSlots = 256;
// Floats of scores a query: a split's, rounded up by a vector.
inline constexpr int32_t kScoreStride = kSplitSlots + 16;

// Slots whose keys are turned together, to stand side by side.
inline constexpr int32_t kKeySlots = 64;

// From so many queries on, a split's values become float32 once for all of them.
inline constexpr int32_t kWidenQueries = 24;

// Query i = row * heads + head stands at q + i * head_dim.
struct AttendQueries {
  const float* q = nullptr;    // [rows * heads, head_dim]
  int32_t rows = 0;            // at consecutive positions
  int32_t heads = 0;           // that share the KV head
  int32_t first_position = 0;  // of row 0
  int32_t kv_head = 0;
  const int32_t* block_table = nullptr;
};

// A query's result for some splits: its maximum, its sum, and head_dim weighted values.
inline int64_t PartialFloats(int32_t head_dim) { return int64_t{head_dim} + 2; }

// The first slot that a row at `position` sees.
inline int32_t FirstSlot(const AttentionShape& shape, int32_t position) {
  return shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
}

struct AttendScratch {
  float* keys;     // [kKeySlots, head_dim]
  float* values;   // [kSplitSlots, head_dim] for kWidenQueries and more
  float* scores;   // [rows * heads, kScoreStride]
  float* widened;  // [2, kSplitSlots, head_dim] of a cache in float8
};

// Computes the partials of one split for every row that sees a slot of it. Query i's goes to
// partials + i * PartialFloats.
void AttendSplit(const AttentionShape& shape, const KvLayer& kv, const AttendQueries& queries,
                 int32_t split, float* partials, const AttendScratch& scratch);

// Merges a later split's partial into `total`.
void MergePartial(int32_t head_dim, const float* partial, float* total);

// out[i] = values / sum
void FinishPartial(int32_t head_dim, const float* total, float* out);

}  // namespace sirocco::cpu
