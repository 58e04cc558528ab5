// Lanes, block tables and a KV cache of a test, on a device and on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "tests/kernels/tensors.h"

namespace sirocco {

struct WorldShape {
  int32_t lanes = 4;
  int32_t max_length = 64;
  int32_t groups = 2;
  int32_t block_size = 16;
  int32_t vocab_size = 50;
};

// Lanes whose block tables are a random permutation of the physical blocks, each used once.
class World {
 public:
  World(Memory& memory, const WorldShape& shape, uint32_t seed);

  const WorldShape& shape() const { return shape_; }
  const Lanes& lanes() const { return lanes_; }
  int32_t blocks() const { return blocks_; }
  const std::vector<int32_t>& history() const { return history_; }  // [lanes][max_length]
  int32_t HistoryAt(int32_t lane, int32_t position) const {
    return history_[lane * shape_.max_length + position];
  }
  int32_t BlockOf(int32_t lane, int32_t group, int32_t position) const;

  // Rows of (lane, position).
  RowMap Map(const std::vector<int32_t>& lane, const std::vector<int32_t>& position);

 private:
  Memory& memory_;
  WorldShape shape_;
  int32_t blocks_;
  int32_t max_blocks_;
  std::vector<int32_t> history_;
  std::vector<int32_t> table_;  // [lanes][groups][max_blocks]
  Lanes lanes_ = {};
};

// The KV cache of two layers that share the block tables of `group`; layer() is the second. In
// float8 the vectors are of different sizes, so that each needs its own scale.
class KvCache {
 public:
  KvCache(Memory& memory, const World& world, DType dtype, int32_t kv_heads, int32_t head_dim,
          int32_t group, uint32_t seed);

  const KvLayer& layer() const { return layer_; }
  // As the device holds it now; `value`: v instead of k. Element d of the slot of `position`. What
  // is no element is zero.
  std::vector<float> Download(Memory& memory) const;
  // The layer of another cache, which holds these values.
  KvLayer LayerOf(Memory& memory, const std::vector<float>& values) const;
  void Clear(Device& device) const;  // to zeros
  int64_t IndexOf(const World& world, int32_t lane, int32_t position, int32_t kv_head,
                  bool value) const;

 private:
  void* Upload(Memory& memory, const std::vector<float>& values) const;
  // Calls visit(first element, scale) for each vector, in elements of the cache: float8's alone.
  template <typename Visit>
  void EachVector(const Visit& visit) const;

  void* base_;
  int64_t elements_;
  int64_t layer_offset_;
  KvLayer layer_;
};

}  // namespace sirocco
