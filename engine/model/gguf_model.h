// A GGUF file as a model: its metadata as a descriptor, its tensors by Hugging Face's names.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/model/model_files.h"

namespace sirocco {

// OpenModel of a GGUF file; `name` and `format` are left to it.
absl::StatusOr<ModelFiles> OpenGgufModel(const std::string& path);

}  // namespace sirocco
