#include "engine/model/random_block.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/model/tensor_rows.h"

namespace sirocco {
namespace {

// Where pieces begin: good for any copy.
constexpr uint64_t kAlignment = 256;

}  // namespace

RandomBlock::RandomBlock(std::byte* memory, DType dtype, int64_t width, uint64_t seed)
    : memory_(memory), random_(seed) {
  const float most = std::sqrt(3.0f / static_cast<float>(width));  // a variance of 1 / width
  std::uniform_real_distribution<float> uniform(-most, most);
  std::vector<float> values(kBytes / BytesOf(dtype));
  for (float& value : values) value = uniform(random_);
  StoreAs(values, dtype, memory_);
}

std::span<const std::byte> RandomBlock::Next(uint64_t bytes) {
  const uint64_t from = random_() % (kBytes / 2) / kAlignment * kAlignment;
  return {memory_ + from, std::min(kBytes - from, bytes)};
}

}  // namespace sirocco
