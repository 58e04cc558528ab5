// Reading tokenizer.json: the vocabulary and the merges, which are nearly all of the file, go
// straight into their tables; the rest becomes a tree within json_file.h's bounds.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/bpe.h"

namespace sirocco {

struct TokenizerTree {
  nlohmann::json root;       // an object, without model.vocab and model.merges
  BpeVocabulary vocabulary;  // ids checked to be those of a vocabulary
  bool has_vocabulary = false;
  bool has_merges = false;
  // Of entries that stand in an array, as Unigram's: in their order, which is that of their ids.
  std::vector<double> scores;
  bool has_pieces = false;
};

// INVALID_ARGUMENT, one line: where the text is no JSON, or not what a tokenizer.json can hold.
absl::StatusOr<TokenizerTree> ReadTokenizerTree(std::string_view text);

// A merge on one line, "left right". nullopt: not two parts.
std::optional<std::pair<std::string_view, std::string_view>> ParseMerge(std::string_view line);

}  // namespace sirocco
