#include "engine/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"

namespace sirocco {
namespace {

struct Piece {
  std::string_view text;
  bool is_match;
};

// Matches and what lies between them, in order; empty pieces are left out.
absl::Status FindPieces(std::string_view text, bool invert, Regex::Finder& finder,
                        std::vector<Piece>* pieces) {
  pieces->clear();
  finder.Start(text);
  size_t end = 0;
  while (true) {
    absl::StatusOr<std::optional<Regex::Span>> found = finder.Next();
    if (!found.ok()) return found.status();
    const std::optional<Regex::Span>& span = *found;
    const size_t next = span ? span->begin : text.size();
    if (next > end) pieces->push_back({text.substr(end, next - end), invert});
    if (!span) return absl::OkStatus();
    pieces->push_back({text.substr(span->begin, span->end - span->begin), !invert});
    end = span->end;
  }
}

// Two pieces that stand side by side in one text.
std::string_view Join(std::string_view left, std::string_view right) {
  return {left.data(), left.size() + right.size()};
}

void Combine(SplitBehavior behavior, const std::vector<Piece>& pieces,
             std::vector<std::string_view>* out) {
  const size_t first = out->size();
  bool previous_match = false;
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const Piece& piece : pieces) out->push_back(piece.text);
      return;
    case SplitBehavior::kRemoved:
      for (const Piece& piece : pieces) {
        if (!piece.is_match) out->push_back(piece.text);
      }
      return;
    case SplitBehavior::kContiguous:
    case SplitBehavior::kMergedWithPrevious:
      for (const Piece& piece : pieces) {
        const bool joins = behavior == SplitBehavior::kContiguous
                               ? piece.is_match == previous_match
                               : piece.is_match && !previous_match;
        if (joins && out->size() > first) {
          out->back() = Join(out->back(), piece.text);
        } else {
          out->push_back(piece.text);
        }
        previous_match = piece.is_match;
      }
      return;
    case SplitBehavior::kMergedWithNext:
      for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
        if (piece->is_match && !previous_match && out->size() > first) {
          out->back() = Join(piece->text, out->back());
        } else {
          out->push_back(piece->text);
        }
        previous_match = piece->is_match;
      }
      std::reverse(out->begin() + static_cast<ptrdiff_t>(first), out->end());
      return;
  }
}

absl::Status Cut(const SplitStep& step, std::vector<std::string_view>* words) {
  std::vector<std::string_view> out;
  std::vector<Piece> pieces;
  Regex::Finder finder(step.pattern);
  for (std::string_view word : *words) {
    absl::Status status = FindPieces(word, step.invert, finder, &pieces);
    if (!status.ok()) return status;
    Combine(step.behavior, pieces, &out);
  }
  *words = std::move(out);
  return absl::OkStatus();
}

absl::Status ApplyMetaspace(const MetaspaceStep& step, std::string_view text, bool is_first,
                            PreTokenizer::Words* words) {
  for (std::string_view& word : words->words) {
    const bool first = is_first && word.data() == text.data();
    const bool prefix = step.prefix == MetaspaceStep::Prefix::kAlways ||
                        (step.prefix == MetaspaceStep::Prefix::kFirst && first);
    std::string marked;
    marked.reserve(word.size() + step.mark.size());
    for (const char c : word) {
      if (c == ' ') {
        marked += step.mark;
      } else {
        marked.push_back(c);
      }
    }
    if (prefix && !absl::StartsWith(marked, step.mark)) marked.insert(0, step.mark);
    word = words->storage.emplace_back(std::move(marked));
  }
  if (!step.split) return absl::OkStatus();
  return Cut({*step.split, SplitBehavior::kMergedWithNext}, &words->words);
}

}  // namespace

const char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps, bool add_prefix_space,
                           std::optional<SplitStep> byte_level_split)
    : steps_(std::move(steps)),
      add_prefix_space_(add_prefix_space),
      byte_level_split_(std::move(byte_level_split)) {}

absl::Status PreTokenizer::Split(std::string_view text, bool is_first, Words* words) const {
  words->words.clear();
  words->storage.clear();
  if (text.empty()) return absl::OkStatus();
  words->words.push_back(text);
  for (const PreTokenizerStep& step : steps_) {
    const auto* metaspace = std::get_if<MetaspaceStep>(&step);
    absl::Status status = metaspace != nullptr ? ApplyMetaspace(*metaspace, text, is_first, words)
                                               : Cut(std::get<SplitStep>(step), &words->words);
    if (!status.ok()) return status;
  }
  if (add_prefix_space_) {
    for (std::string_view& word : words->words) {
      if (word.front() == ' ') continue;
      word = words->storage.emplace_back(" " + std::string(word));
    }
  }
  return byte_level_split_ ? Cut(*byte_level_split_, &words->words) : absl::OkStatus();
}

}  // namespace sirocco
