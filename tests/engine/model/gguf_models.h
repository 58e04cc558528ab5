// GGUF files of the tiny goldens, in every type, with what their tensors stand for.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/engine/model/gguf_writer.h"

namespace sirocco {

struct GgufModel {
  GgufWriter writer;
  // Values by Hugging Face's names and in its order, after the loss of the type; norms' weights as
  // they multiply, and fused tensors apart.
  std::map<std::string, std::vector<float>> values;
};

// Settings and tensors of a golden ("llama_tied"), as llama.cpp's converter writes them: matrices
// in `type`, vectors in F32, q and k rows interleaved for llama and its kin, norms' weights whole
// for Gemma's. `with_settings`: the metadata too.
GgufModel MakeGgufModel(const std::string& golden, uint32_t type, bool with_settings = true);

}  // namespace sirocco
