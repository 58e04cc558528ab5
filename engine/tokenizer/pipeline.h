// A tokenizer put together from its parts: added tokens, normaliser, pre-tokenizer, model,
// post-processor and decoder, in the order and with the meaning of Hugging Face's tokenizers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/unigram.h"
#include "engine/tokenizer/vocabulary.h"

namespace sirocco {

// Far above those of models in use (some 6,000, of 70 KB): each byte takes several of memory.
inline constexpr size_t kMaxAddedTokens = 65536;
inline constexpr size_t kMaxAddedBytes = 1 << 20;

// From tokens to text: what a vocabulary's entries and the added tokens stand for.
struct DecoderParts {
  bool byte_level = true;  // spelt in the byte-level alphabet, where all their characters are of it
  bool byte_fallback = false;  // <0x00> to <0xFF> are bytes
  // In each token, one after the other.
  std::vector<std::pair<std::string, std::string>> replacements;
  DecodeRules rules;
};

// What a tokenizer's files say, whatever their format.
struct TokenizerParts {
  BpeVocabulary vocabulary;
  std::optional<UnigramScores> unigram;  // then the model is Unigram, not BPE
  std::vector<AddedToken> added_tokens;
  // Those of the added tokens that are looked for in normalised text are written as they stand
  // there; else they are normalised first.
  bool added_tokens_are_normal = false;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  DecoderParts decoder;
  // What the post-processor puts around a text.
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  // Contents of vocabulary entries or added tokens; empty: none.
  std::string bos_token;
  std::string eos_token;
  std::optional<std::string> chat_template;
};

// INVALID_ARGUMENT: an id out of range or with two meanings, merges without entries, a bos or eos
// token that does not exist, or a vocabulary that its model cannot be made of
// (Bpe::Make, Unigram::Make).
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts);

}  // namespace sirocco
