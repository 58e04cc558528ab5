// A tokenizer for a model that means nothing: byte-level, without merges. Every id stands for a
// text of its own, so that text flows as from a real model.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace sirocco {

struct MadeTokenizer {
  std::string tokenizer_json;
  std::string tokenizer_config_json;  // end token, chat template
};

// 256 bytes, words, and an end token of the last id. INVALID_ARGUMENT: a vocabulary too small for
// it.
absl::StatusOr<MadeTokenizer> MakeTokenizerFiles(int32_t vocab_size);

}  // namespace sirocco
