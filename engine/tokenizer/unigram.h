// The entries that a word most probably consists of, by a probability for each entry alone (Kudo
// 2018, arXiv:1804.10959), as Hugging Face's Unigram and SentencePiece find them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/piece_trie.h"

namespace sirocco {

// What stands in place of merges.
struct UnigramScores {
  // The logarithm of each entry's probability, by entry, whose place is its id here. NaN: no text
  // becomes it.
  std::vector<double> of_entries;
  // Of a character without an entry; how much below the least of all is the same everywhere.
  double of_unknown = 0;
  static constexpr double kUnknownPenalty = 10;
  // Sums are rounded to float, as SentencePiece's are; Hugging Face's are double.
  bool float_sums = false;
};

// Immutable; any thread.
class Unigram {
 public:
  // `vocabulary`: its entries, its unknown token and whether characters become bytes. `exempt[id]`:
  // an entry that no text becomes (control tokens: text cannot forge them). INVALID_ARGUMENT: no
  // unknown token; scores that are not finite; ids that are not in order; entries that PieceTrie
  // does not take.
  static absl::StatusOr<Unigram> Make(const BpeVocabulary& vocabulary, UnigramScores scores,
                                      const std::vector<bool>& exempt);

  // Room that Encode needs, to be used again: one a thread.
  struct Scratch {
    struct Path {
      double score;   // of the best entries up to here
      int32_t begin;  // of the last of them; -1: none yet
      int32_t id;
    };
    std::vector<Path> paths;  // by where they end
    std::vector<int32_t> ends;
  };

  // Appends the ids of a word, valid UTF-8 of less than 2^31 bytes. A run of characters without
  // entries is one unknown token or, with byte fallback, its bytes. O(n) steps of the trie, of
  // PieceTrie::kMaxPiece at most from each character.
  void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* out) const;

 private:
  Unigram() = default;
  void FindPaths(std::string_view word, std::vector<Scratch::Path>* paths) const;
  void AppendUnknown(std::string_view run, std::vector<int32_t>* out) const;
  double Rounded(double sum) const { return scores_.float_sums ? static_cast<float>(sum) : sum; }

  PieceTrie trie_;
  std::array<int32_t, 256> byte_ids_;  // -1: none
  int32_t unk_id_ = 0;
  UnigramScores scores_;
};

}  // namespace sirocco
