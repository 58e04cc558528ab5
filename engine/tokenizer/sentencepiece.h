// Vocabularies of SentencePiece, whatever file they come from: entries with scores, and what is
// done to text before.
// https://github.com/google/sentencepiece/blob/master/src/bpe_model.cc, unigram_model.cc,
// normalizer.cc
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "engine/tokenizer/pipeline.h"

namespace sirocco {

// What an entry is, by the numbers of sentencepiece_model.proto and of tokenizer.ggml.token_type.
enum class PieceType : int64_t {
  kNormal = 1,
  kUnknown = 2,      // stands for what has no other
  kControl = 3,      // never made of text
  kUserDefined = 4,  // never taken apart
  kUnused = 5,
  kByte = 6,
};

inline constexpr char kSpaceMark[] = "\xE2\x96\x81";  // U+2581, which entries have for a space

struct SentencePieceSettings {
  bool unigram = false;            // else byte pair encoding
  std::string_view charsmap = {};  // charsmap.h; empty: none
  bool add_dummy_prefix = true;    // a space in front of a text, and behind control tokens
  bool remove_extra_whitespaces = false;
};

// Adds the next entry. INVALID_ARGUMENT, without the file's name: an entry that cannot be.
absl::Status AddPiece(std::string_view text, float score, int64_t type, TokenizerParts* parts);

// After the last entry. INVALID_ARGUMENT: a charsmap that is none.
absl::Status FinishPieces(const SentencePieceSettings& settings, TokenizerParts* parts);

}  // namespace sirocco
