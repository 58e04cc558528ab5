// The rotary embedding that a GGUF file describes, in its settings and in tensors of factors.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/model/families.h"
#include "engine/model/gguf.h"
#include "engine/model/settings.h"
#include "graphs/descriptor.h"

namespace sirocco {

// Of layers with full attention, and of all where the windowed ones have none of their own.
// `settings`: the architecture's. Of `model` the head size and max_position are known.
absl::StatusOr<RotaryDescriptor> ReadGgufRotary(const GgufFile& file, const Settings& settings,
                                                const Family& family, const ModelDescriptor& model);

// A tensor that is a part of the rotary embedding, of this family.
bool IsRotaryTensor(const Family& family, std::string_view name);

}  // namespace sirocco
