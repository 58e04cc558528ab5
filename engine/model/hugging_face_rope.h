// The rotary embeddings that a config.json describes, as transformers 4 and 5 spell them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model/families.h"
#include "graphs/descriptor.h"

namespace sirocco {

struct Rotaries {
  RotaryDescriptor full;      // of layers with full attention
  RotaryDescriptor windowed;  // of layers with a window, in families that have them; may be `full`
};

// `path` is the file's, for errors: UNIMPLEMENTED names a scaling that is not supported,
// INVALID_ARGUMENT a value that is none. Of `model` the head size and max_position are known.
absl::StatusOr<Rotaries> ReadRotaries(const nlohmann::json& config, const std::string& path,
                                      const Family& family, const ModelDescriptor& model);

}  // namespace sirocco
