// tokenizer.model, a file of SentencePiece: the fields of sentencepiece_model.proto that making ids
// of text needs.
// https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/pipeline.h"

namespace sirocco {

// INVALID_ARGUMENT: the bytes are no such message, or not what one can hold. UNIMPLEMENTED names
// the kind of model or the setting, and what is supported.
absl::StatusOr<TokenizerParts> ParseTokenizerModel(std::string_view bytes);

// What transformers keeps beside the file, in `folder`: further tokens, and whether texts begin
// with bos (unless it says otherwise they do) and end with eos. To be called after
// ReadTokenizerConfig.
absl::Status ReadTokenizerModelConfig(const std::string& folder, TokenizerParts* parts);

}  // namespace sirocco
