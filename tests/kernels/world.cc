#include "tests/kernels/world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/kv_scale.h"

namespace sirocco {

World::World(Memory& memory, const WorldShape& shape, uint32_t seed)
    : memory_(memory), shape_(shape) {
  Values values(seed);
  max_blocks_ = (shape.max_length + shape.block_size - 1) / shape.block_size;
  blocks_ = shape.lanes * max_blocks_;
  for (int32_t i = 0; i < shape.lanes * shape.max_length; ++i) {
    history_.push_back(values.Below(shape.vocab_size));
  }
  table_.resize(static_cast<size_t>(shape.lanes) * shape.groups * max_blocks_);
  for (int32_t group = 0; group < shape.groups; ++group) {
    const std::vector<int32_t> order = values.Permutation(blocks_);
    for (int32_t lane = 0; lane < shape.lanes; ++lane) {
      for (int32_t b = 0; b < max_blocks_; ++b) {
        table_[(lane * shape.groups + group) * max_blocks_ + b] = order[lane * max_blocks_ + b];
      }
    }
  }
  std::vector<Lane> lanes(static_cast<size_t>(shape.lanes));
  for (Lane& lane : lanes) {
    lane = Lane();
    lane.length = 1 + values.Below(shape.max_length);
    lane.top_p = 1;
    lane.repetition_penalty = 1;
  }
  const int64_t ids = int64_t{shape.lanes} * shape.vocab_size;
  lanes_.lane = memory.Upload(lanes);
  lanes_.history = memory.Upload(history_);
  lanes_.block_table = memory.Upload(table_);
  lanes_.counts = memory.Upload(std::vector<uint32_t>(ids, 0));
  lanes_.token_flags = memory.Upload(std::vector<uint8_t>(ids, 0));
  lanes_.bias = memory.Upload(std::vector<float>(ids, 0.0f));
  lanes_.max_lanes = shape.lanes;
  lanes_.max_length = shape.max_length;
  lanes_.groups = shape.groups;
  lanes_.max_blocks = max_blocks_;
  lanes_.vocab_size = shape.vocab_size;
}

int32_t World::BlockOf(int32_t lane, int32_t group, int32_t position) const {
  return table_[(lane * shape_.groups + group) * max_blocks_ + position / shape_.block_size];
}

RowMap World::Map(const std::vector<int32_t>& lane, const std::vector<int32_t>& position) {
  return {memory_.Upload(lane), memory_.Upload(position)};
}

KvCache::KvCache(Memory& memory, const World& world, DType dtype, int32_t kv_heads,
                 int32_t head_dim, int32_t group, uint32_t seed) {
  layer_offset_ = KvLayerElements(dtype, kv_heads, world.shape().block_size, head_dim);
  elements_ = world.blocks() * 2 * layer_offset_;
  layer_.dtype = dtype;
  layer_.block_stride = 2 * layer_offset_;
  layer_.value_offset = int64_t{kv_heads} * world.shape().block_size * head_dim;
  layer_.block_size = world.shape().block_size;
  layer_.kv_heads = kv_heads;
  layer_.head_dim = head_dim;
  layer_.group = group;
  std::vector<float> values = Values(seed).Floats(elements_);
  if (dtype == DType::kFloat8) {
    int64_t vector = 0;
    EachVector([&](int64_t first, int64_t) {
      // 0.9: no largest element is rounded up to a power of two, which would have another scale.
      const float size = 0.9f * std::exp2(-static_cast<float>(vector++ % 5));
      for (int32_t i = 0; i < head_dim; ++i) values[first + i] *= size;
    });
  }
  base_ = Upload(memory, values);
  layer_.data = static_cast<char*>(base_) + layer_offset_ * BytesOf(dtype);
}

template <typename Visit>
void KvCache::EachVector(const Visit& visit) const {
  const int32_t slots = layer_.kv_heads * layer_.block_size;
  for (int64_t layer = 0; layer < elements_; layer += layer_offset_) {
    for (int32_t i = 0; i < 2 * slots; ++i) {  // k's, then v's
      visit(layer + int64_t{i} * layer_.head_dim,
            layer + 2 * layer_.value_offset + 2 * (i % slots) + i / slots);
    }
  }
}

void* KvCache::Upload(Memory& memory, const std::vector<float>& values) const {
  if (layer_.dtype != DType::kFloat8) return memory.Upload(values, layer_.dtype);
  std::vector<uint8_t> bytes(values.size(), 0);
  EachVector([&](int64_t first, int64_t scale) {
    float largest = 0;
    bool finite = true;
    for (int32_t i = 0; i < layer_.head_dim; ++i) {
      largest = std::max(largest, std::fabs(values[first + i]));
      finite = finite && std::isfinite(values[first + i]);
    }
    if (!finite) {
      bytes[scale] = kNoKvScale;
      return;
    }
    if (largest == 0) return;
    const int exponent = std::ilogb(largest) - 7;
    bytes[scale] = static_cast<uint8_t>(127 + exponent);
    for (int32_t i = 0; i < layer_.head_dim; ++i) {
      bytes[first + i] = Float8::FromFloat(std::ldexp(values[first + i], -exponent)).bits;
    }
  });
  return memory.Upload(bytes);
}

KvLayer KvCache::LayerOf(Memory& memory, const std::vector<float>& values) const {
  KvLayer layer = layer_;
  layer.data = static_cast<char*>(Upload(memory, values)) + layer_offset_ * BytesOf(layer_.dtype);
  return layer;
}

void KvCache::Clear(Device& device) const {
  const std::vector<char> zeros(elements_ * BytesOf(layer_.dtype), 0);
  ASSERT_TRUE(device.CopyToDevice(base_, zeros.data(), zeros.size()).ok());
  ASSERT_TRUE(device.Synchronize().ok());
}

std::vector<float> KvCache::Download(Memory& memory) const {
  if (layer_.dtype != DType::kFloat8) return memory.Download(base_, layer_.dtype, elements_);
  const std::vector<uint8_t> bytes = memory.Download(static_cast<const uint8_t*>(base_), elements_);
  std::vector<float> values(bytes.size(), 0.0f);
  EachVector([&](int64_t first, int64_t scale) {
    for (int32_t i = 0; i < layer_.head_dim; ++i) {
      values[first + i] = bytes[scale] == kNoKvScale
                              ? std::nanf("")
                              : std::ldexp(Float8{bytes[first + i]}.ToFloat(), bytes[scale] - 127);
    }
  });
  return values;
}

int64_t KvCache::IndexOf(const World& world, int32_t lane, int32_t position, int32_t kv_head,
                         bool value) const {
  const int64_t block = world.BlockOf(lane, layer_.group, position);
  const int64_t slot = int64_t{kv_head} * layer_.block_size + position % layer_.block_size;
  return block * layer_.block_stride + layer_offset_ + (value ? layer_.value_offset : 0) +
         slot * layer_.head_dim;
}

}  // namespace sirocco
