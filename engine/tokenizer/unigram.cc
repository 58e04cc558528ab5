#include "engine/tokenizer/unigram.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {

absl::StatusOr<Unigram> Unigram::Make(const BpeVocabulary& vocabulary, UnigramScores scores,
                                      const std::vector<bool>& exempt) {
  const Vocabulary& ids = vocabulary.ids;
  if (scores.of_entries.size() != ids.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(scores.of_entries.size(), " scores for ", ids.size(), " entries"));
  }
  const std::optional<int32_t> unknown = ids.Find(vocabulary.unk_token);
  if (vocabulary.unk_token.empty() || !unknown) {
    return absl::InvalidArgumentError("its Unigram vocabulary has no unknown token");
  }
  Unigram unigram;
  unigram.unk_id_ = *unknown;
  unigram.byte_ids_.fill(-1);
  for (int b = 0; vocabulary.byte_fallback && b < 256; ++b) {
    unigram.byte_ids_[b] = ids.Find(ByteFallbackToken(static_cast<uint8_t>(b))).value_or(-1);
  }
  std::vector<uint32_t> made;
  made.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const double score = scores.of_entries[i];
    if (std::isinf(score) || ids.id(i) != static_cast<int32_t>(i)) {
      return absl::InvalidArgumentError(absl::StrCat("entry ", Shown(ids.text(i)),
                                                     " has the score ", score, " and id ",
                                                     ids.id(i), "; allowed: finite, and ", i));
    }
    const bool is_exempt = i < exempt.size() && exempt[i];
    if (is_exempt || std::isnan(score) || ids.text(i).empty()) continue;
    made.push_back(static_cast<uint32_t>(i));
  }
  unigram.scores_ = std::move(scores);
  absl::StatusOr<PieceTrie> trie = PieceTrie::Make(ids, std::move(made));
  if (!trie.ok()) return trie.status();
  unigram.trie_ = *std::move(trie);
  return unigram;
}

// paths[i] is the best way to write word[0, i): of equal ones the one whose last entry is longest.
// There is one for each end of a character.
void Unigram::FindPaths(std::string_view word, std::vector<Scratch::Path>* paths) const {
  paths->assign(word.size() + 1, {0, -1, -1});
  // SentencePiece compares before it rounds.
  const auto offer = [this, paths](size_t begin, size_t end, double score, int32_t id) {
    Scratch::Path& path = (*paths)[end];
    if (path.begin >= 0 && score <= path.score) return;
    path = {Rounded(score), static_cast<int32_t>(begin), id};
  };
  for (size_t begin = 0; begin < word.size();) {
    size_t character_end = begin;
    ReadUtf8(word, &character_end);
    const double before = (*paths)[begin].score;
    bool has_character = false;
    uint32_t node = 0;
    for (size_t at = begin; at < word.size() && trie_.Step(word[at], &node);) {
      ++at;
      const int32_t entry = trie_.Entry(node);
      if (entry < 0) continue;
      has_character |= at == character_end;
      offer(begin, at, scores_.of_entries[entry] + before, entry);
    }
    if (!has_character) offer(begin, character_end, Rounded(scores_.of_unknown + before), unk_id_);
    begin = character_end;
  }
}

// A run may be an entry that was less probable than its characters one by one.
void Unigram::AppendUnknown(std::string_view run, std::vector<int32_t>* out) const {
  uint32_t node = 0;
  const bool is_whole =
      std::all_of(run.begin(), run.end(), [&](char byte) { return trie_.Step(byte, &node); });
  const auto id_of = [this](char byte) { return byte_ids_[static_cast<uint8_t>(byte)]; };
  if (is_whole && trie_.Entry(node) >= 0) {
    out->push_back(trie_.Entry(node));
  } else if (std::all_of(run.begin(), run.end(), [&](char byte) { return id_of(byte) >= 0; })) {
    for (const char byte : run) out->push_back(id_of(byte));
  } else {
    out->push_back(unk_id_);
  }
}

void Unigram::Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* out) const {
  FindPaths(word, &scratch->paths);
  const std::vector<Scratch::Path>& paths = scratch->paths;
  std::vector<int32_t>& ends = scratch->ends;
  ends.clear();
  for (auto end = static_cast<int32_t>(word.size()); end > 0; end = paths[end].begin) {
    ends.push_back(end);
  }
  size_t run = 0;    // where a run of unknown characters begins
  size_t begin = 0;  // of the next piece
  for (auto end = ends.rbegin(); end != ends.rend(); begin = static_cast<size_t>(*end++)) {
    if (paths[*end].id == unk_id_) continue;
    if (run < begin) AppendUnknown(word.substr(run, begin - run), out);
    out->push_back(paths[*end].id);
    run = static_cast<size_t>(*end);
  }
  if (run < word.size()) AppendUnknown(word.substr(run), out);
}

}  // namespace sirocco
