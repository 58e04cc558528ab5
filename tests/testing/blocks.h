// Weights in blocks (kernels/dtype.h), written and read as plainly as can be.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/dtype.h"

namespace sirocco {

// Rows of whole blocks: the scales are the smallest that hold a block's values.
std::vector<uint8_t> EncodeBlocks(const std::vector<float>& values, DType type);
// What blocks stand for.
std::vector<float> DecodeBlocks(const std::vector<uint8_t>& blocks, DType type);

}  // namespace sirocco
