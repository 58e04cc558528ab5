// A Hugging Face directory: config.json, generation_config.json, safetensors. Settings are read as
// transformers 4 and 5 spell them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model/families.h"
#include "engine/model/model_files.h"
#include "graphs/descriptor.h"
#include "nlohmann/json.hpp"

namespace sirocco {

// The most that config.json and generation_config.json may have.
inline constexpr uint64_t kMaxConfigBytes = 1 << 20;

// The family of a config.json's model; `path` is the file's, for errors. UNIMPLEMENTED: none that
// is supported.
absl::StatusOr<const Family*> FamilyFromConfig(const nlohmann::json& config,
                                               const std::string& path);

// The model of this family that a config.json describes; `path` is the file's, for errors.
// UNIMPLEMENTED names the first setting that is not supported.
absl::StatusOr<ModelDescriptor> DescriptorFromConfig(const nlohmann::json& config,
                                                     const std::string& path, const Family& family);

// OpenDescriptor of a directory, and OpenModel, which `name` and `format` are left to.
absl::StatusOr<ModelDescriptor> OpenHuggingFaceDescriptor(const std::string& directory);
absl::StatusOr<ModelFiles> OpenHuggingFace(const std::string& directory);

}  // namespace sirocco
