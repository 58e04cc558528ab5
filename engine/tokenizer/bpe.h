// Byte pair encoding of one word: a token for each byte or character, then the best-ranked pair of
// neighbours is joined until no pair is left that may be (Sennrich et al. 2016, arXiv:1508.07909).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/vocabulary.h"

namespace sirocco {

struct BpeVocabulary {
  Vocabulary ids;  // as the file spells them
  MergeList merges;
  // In place of merges, by entry (not by id): two tokens join where their text is that of an entry,
  // the best score first, as SentencePiece has it. NaN: the entry is neither joined nor made so.
  std::vector<float> scores;
  // A word that is an entry is that entry, whatever merges would make of it.
  bool ignore_merges = false;
  // Entries are spelt in the byte-level alphabet (byte_level.h), and words begin as bytes; else as
  // text, and words begin as characters. What follows is for characters without an entry.
  bool byte_level = true;
  bool byte_fallback = false;  // become their bytes, where these all have entries (byte_level.h)
  std::string unk_token;       // else become this; empty: nothing
  bool fuse_unk = false;       // one for a run of them
};

// Immutable; any thread.
class Bpe {
 public:
  // `exempt[id]`: an entry that whole words are not looked up as (control tokens: text cannot forge
  // them). INVALID_ARGUMENT: a merge of, or to, what is not an entry; an unknown token that is
  // none; pieces with scores that can be made in too many ways.
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

  // Appends the ids of a word: of any bytes, or of valid UTF-8 where words begin as characters.
  // What has no token and becomes nothing else is dropped, as Hugging Face's BPE drops it where it
  // has no unknown token. O(n log n) in the word's length, which must be below 2^31.
  void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* out) const;

 private:
  Bpe() = default;
  void FindFirstTokens(const BpeVocabulary& vocabulary);
  absl::Status ReadMerges(const BpeVocabulary& vocabulary);
  absl::Status ReadScores(const BpeVocabulary& vocabulary);
  absl::Status AddSplits(const BpeVocabulary& vocabulary, const std::vector<bool>& joins,
                         size_t entry, uint32_t rank, bool is_tied);
  void AppendCharacters(std::string_view word, std::vector<int32_t>* ids) const;
  bool AppendBytes(std::string_view character, std::vector<int32_t>* ids) const;
  uint32_t Rank(int32_t left, int32_t right, Scratch* scratch) const;
  int32_t Merged(uint32_t rank, int32_t left, int32_t right) const;
  void MergeShort(Scratch* scratch, std::vector<int32_t>* out) const;
  void MergeLong(Scratch* scratch, std::vector<int32_t>* out) const;

  bool byte_level_ = true;
  bool fuse_unk_ = false;
  int32_t unk_id_ = -1;                // -1: none
  std::array<int32_t, 256> byte_ids_;  // -1: none
  absl::flat_hash_map<char32_t, int32_t> characters_;
  absl::flat_hash_map<uint64_t, uint32_t> ranks_;  // by both ids
  std::vector<int32_t> merged_;                    // id by rank; -1: several, in tied_
  absl::flat_hash_map<uint64_t, int32_t> tied_;    // id by both ids, where scores are equal
  Vocabulary whole_words_;                         // by their bytes
};

}  // namespace sirocco
