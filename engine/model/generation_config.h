// What generation_config.json and config.json say about generating: defaults and end tokens.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_files.h"

namespace sirocco {

// `config`: the JSON object of the file `path`. INVALID_ARGUMENT names a value out of range.
absl::StatusOr<GenerationDefaults> ReadGenerationDefaults(const nlohmann::json& config,
                                                          const std::string& path);

// `eos_token_id`, one or a list; empty: none. Each must be in the vocabulary.
absl::StatusOr<std::vector<int32_t>> ReadEndTokenIds(const nlohmann::json& config,
                                                     const std::string& path, int32_t vocab_size);

}  // namespace sirocco
