// The tokenizer in a GGUF file's metadata (tokenizer.ggml.*, tokenizer.chat_template).
#pragma once

#include "absl/status/statusor.h"
#include "engine/model/gguf.h"
#include "engine/tokenizer/pipeline.h"

namespace sirocco {

// True where the file has a tokenizer at all.
bool HasGgufTokenizer(const GgufFile& file);

// UNIMPLEMENTED names the kind of vocabulary or of split, and lists what is supported.
absl::StatusOr<TokenizerParts> ParseGgufTokenizer(const GgufFile& file);

}  // namespace sirocco
