// Reference answers of the tiny models in tests/goldens (their README says how they were made). A
// reader of its own, so that the project's is not tested against itself.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sirocco {

// A tensor of a trusted safetensors file; one of the two holds its elements.
struct GoldenTensor {
  std::vector<int64_t> shape;
  std::vector<float> floats;  // F32, BF16
  std::vector<int64_t> ints;  // I64, I32
};

absl::StatusOr<std::map<std::string, GoldenTensor>> ReadGoldenTensors(const std::string& path);

// All vectors are by case.
struct Golden {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<float>> logits;    // [prompt length, vocab_size] of each prompt position
  std::vector<std::vector<int32_t>> greedy;  // ids generated after the prompt
  std::vector<std::vector<float>> margins;   // [greedy]: best minus second logit at each step
  int32_t vocab_size = 0;
};

// From a golden's expected.safetensors.
absl::StatusOr<Golden> ReadGolden(const std::string& path);

}  // namespace sirocco
