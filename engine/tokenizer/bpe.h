// Byte pair encoding of one word: a token for each byte, then the best-ranked pair of neighbours is
// joined until no pair is left that the merges name (Sennrich et al. 2016, arXiv:1508.07909).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/vocabulary.h"

namespace sirocco {

// Entries as the file spells them, in the byte-level alphabet (byte_level.h).
struct BpeVocabulary {
  Vocabulary ids;
  MergeList merges;
  // A word that is an entry is that entry, whatever merges would make of it.
  bool ignore_merges = false;
};

// Immutable; any thread.
class Bpe {
 public:
  // `exempt[id]`: an entry that whole words are not looked up as (control tokens: text cannot forge
  // them). INVALID_ARGUMENT: a merge of, or to, what is not an entry.
  static absl::StatusOr<Bpe> Make(const BpeVocabulary& vocabulary, const std::vector<bool>& exempt);

  // Room that Encode needs, to be used again: one a thread.
  struct Scratch {
    std::vector<int32_t> ids;
    std::vector<uint32_t> ranks;
    std::vector<int32_t> next;
    std::vector<int32_t> previous;
    std::vector<uint64_t> sorted;
    std::vector<uint64_t> heap;
    uint64_t lookups = 0;  // of pairs, ever: the work that was done
  };

  // Appends the ids of a word of any bytes. Bytes without a token are dropped, as Hugging Face's
  // BPE drops them where it has no unknown token. O(n log n) in the word's length, which must be
  // below 2^31.
  void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* out) const;

 private:
  Bpe() = default;
  uint32_t Rank(int32_t left, int32_t right, Scratch* scratch) const;
  void MergeShort(Scratch* scratch, std::vector<int32_t>* out) const;
  void MergeLong(Scratch* scratch, std::vector<int32_t>* out) const;

  std::array<int32_t, 256> byte_ids_;
  absl::flat_hash_map<uint64_t, uint32_t> ranks_;  // by both ids
  std::vector<int32_t> merged_;                    // id by rank
  Vocabulary whole_words_;                         // by their bytes
};

}  // namespace sirocco
