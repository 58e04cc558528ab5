// tokenizer.json, the file of Hugging Face's tokenizers: what it says becomes a pipeline's parts.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/tokenizer/pipeline.h"

namespace sirocco {

// UNIMPLEMENTED names the part that is not supported, and what is supported in its place; nothing
// is passed over, but for "truncation" and "padding", which shape batches for training.
absl::StatusOr<TokenizerParts> ParseTokenizerJson(std::string_view text);

}  // namespace sirocco
