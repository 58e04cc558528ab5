// `sirocco bench --write-model`: a model's files with weights that mean nothing, so that what is
// measured with a server (start-up, load) goes through the same files as with a real model.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model/model_files.h"

namespace sirocco {

struct WriteModelOptions {
  std::string config;     // a model's config.json
  std::string directory;  // is made; may be there if it is empty
  uint64_t seed = 1;
  uint64_t shard_bytes = 4'000'000'000;  // no file of weights holds more, unless it is one tensor
};

struct WrittenModel {
  uint64_t parameters = 0;
  uint64_t weight_bytes = 0;
  int shards = 0;
};

// A Hugging Face directory: bfloat16 weights in safetensors with their index, a tokenizer
// (made_tokenizer.h), and the configuration as it was, last: what was not finished is no model.
// Takes less than 100 MiB of memory. FAILED_PRECONDITION: the directory holds something; nothing is
// ever overwritten. RESOURCE_EXHAUSTED: no room for it.
absl::StatusOr<WrittenModel> WriteRandomModel(const WriteModelOptions& options,
                                              const LoadProgress& progress);

}  // namespace sirocco
