// safetensors files (https://github.com/huggingface/safetensors#format): one, or several that an
// index names.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model/tensor_source.h"

namespace sirocco {

// The tensors of one file. F32, F16 and BF16; another type is UNIMPLEMENTED.
absl::StatusOr<std::shared_ptr<const TensorSource>> OpenSafetensors(const std::string& path);

// The tensors of all files that `directory`/model.safetensors.index.json names. A file's name in it
// must be plain (no folders); every tensor must be in the file that the index says, and no other.
absl::StatusOr<std::shared_ptr<const TensorSource>> OpenShardedSafetensors(
    const std::string& directory);

}  // namespace sirocco
