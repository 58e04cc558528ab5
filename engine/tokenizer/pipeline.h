// A tokenizer put together from its parts: added tokens, normaliser, pre-tokenizer, model,
// post-processor and decoder, in the order and with the meaning of Hugging Face's tokenizers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace sirocco {

// Far above those of models in use (some 6,000, of 70 KB): each byte takes several of memory.
inline constexpr size_t kMaxAddedTokens = 65536;
inline constexpr size_t kMaxAddedBytes = 1 << 20;

// What a tokenizer's files say, whatever their format.
struct TokenizerParts {
  BpeVocabulary vocabulary;
  std::vector<AddedToken> added_tokens;
  Normalizer::Form normalizer = Normalizer::Form::kNone;
  std::optional<PreTokenizer> pre_tokenizer;  // must be set
  // What the post-processor puts around a text.
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  // Contents of vocabulary entries or added tokens; empty: none.
  std::string bos_token;
  std::string eos_token;
  std::optional<std::string> chat_template;
};

// INVALID_ARGUMENT: an id out of range or with two meanings, merges without entries, a bos or eos
// token that does not exist.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts);

}  // namespace sirocco
