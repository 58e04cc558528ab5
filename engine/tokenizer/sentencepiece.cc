#include "engine/tokenizer/sentencepiece.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

// Bytes of an entry; SentencePiece makes none of more than 16 characters unless it is told to.
constexpr size_t kMaxPiece = 64 << 10;

absl::Status Wrong(size_t i, std::string_view text, std::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("token ", i, ", ", Shown(text), ", ", std::string(what)));
}

absl::Status CheckPiece(size_t i, std::string_view text, float score, int64_t type) {
  if (type < static_cast<int64_t>(PieceType::kNormal) ||
      type > static_cast<int64_t>(PieceType::kByte)) {
    return Wrong(i, text, absl::StrCat("has type ", type, "; allowed: 1 to 6"));
  }
  if (text.size() > kMaxPiece) {
    return Wrong(i, text, absl::StrCat("has ", text.size(), " bytes; allowed: ", kMaxPiece));
  }
  if (std::isnan(score)) return Wrong(i, text, "has a score that is no number");
  if (FindInvalidUtf8(text) != text.size()) return Wrong(i, text, "is not UTF-8");
  if (type == static_cast<int64_t>(PieceType::kByte) && !ByteFallbackDecode(text)) {
    return Wrong(i, text, "is of type byte; allowed: <0x00> to <0xFF>");
  }
  return absl::OkStatus();
}

absl::StatusOr<NormalizerStep> Replacing(absl::StatusOr<Regex> pattern, std::string_view text) {
  if (!pattern.ok()) return pattern.status();
  return NormalizerStep{.kind = NormalizerStep::Kind::kReplace,
                        .text = std::string(text),
                        .pattern = *std::move(pattern)};
}

// The contents of user-defined tokens: the charsmap leaves them as they are.
absl::StatusOr<std::shared_ptr<const PieceTrie>> UserDefined(const TokenizerParts& parts) {
  Vocabulary contents;
  for (const AddedToken& token : parts.added_tokens) {
    if (!token.special) contents.Add(token.content, token.id);
  }
  std::vector<uint32_t> entries(contents.size());
  std::iota(entries.begin(), entries.end(), 0);
  absl::StatusOr<PieceTrie> trie = PieceTrie::Make(contents, std::move(entries));
  if (!trie.ok()) return trie.status();
  return std::make_shared<const PieceTrie>(*std::move(trie));
}

// Where a model is Unigram, user-defined tokens compete with other entries, by a score that makes
// them win nearly always; they are not found beforehand.
void MakeUnigram(TokenizerParts* parts) {
  std::vector<float>& scores = parts->vocabulary.scores;
  UnigramScores unigram{.of_entries = {scores.begin(), scores.end()}, .float_sums = true};
  float least = FLT_MAX;
  float most = FLT_MIN;  // so that it is never below 0
  for (const float score : scores) {
    if (std::isnan(score)) continue;
    least = std::min(least, score);
    most = std::max(most, score);
  }
  unigram.of_unknown = least - static_cast<float>(UnigramScores::kUnknownPenalty);
  for (const AddedToken& token : parts->added_tokens) {
    if (token.special) continue;
    unigram.of_entries[static_cast<size_t>(token.id)] =
        static_cast<float>(token.content.size()) * most - 0.1;
  }
  std::erase_if(parts->added_tokens, [](const AddedToken& token) { return !token.special; });
  parts->unigram = std::move(unigram);
  scores = std::vector<float>();  // `= {}` would keep its memory
}

}  // namespace

absl::Status AddPiece(std::string_view text, float score, int64_t type, TokenizerParts* parts) {
  BpeVocabulary& vocabulary = parts->vocabulary;
  const size_t i = vocabulary.ids.size();
  absl::Status status = CheckPiece(i, text, score, type);
  if (!status.ok()) return status;
  const auto kind = static_cast<PieceType>(type);
  std::string content(text);
  if (!vocabulary.ids.Add(content, static_cast<int32_t>(i))) {
    return vocabulary.ids.full() ? absl::InvalidArgumentError(absl::StrCat(
                                       "has more than ", kMaxVocabularySize, " tokens"))
                                 : Wrong(i, text, "is there twice");
  }
  // SentencePiece makes unused entries, and takes them apart again; here none is made.
  vocabulary.scores.push_back(kind == PieceType::kNormal ? score
                                                         : std::numeric_limits<float>::quiet_NaN());
  if (kind == PieceType::kByte) vocabulary.byte_fallback = true;
  if (kind == PieceType::kUnknown) {
    if (!vocabulary.unk_token.empty()) return Wrong(i, text, "is a second unknown token");
    vocabulary.unk_token = content;
  }
  const bool special = kind == PieceType::kControl || kind == PieceType::kUnknown;
  if ((!special && kind != PieceType::kUserDefined) || content.empty()) return absl::OkStatus();
  if (parts->added_tokens.size() >= kMaxAddedTokens) {
    return absl::InvalidArgumentError(absl::StrCat("has more than ", kMaxAddedTokens,
                                                   " control, unknown and user-defined tokens"));
  }
  // Control tokens are no text; user-defined ones are found in the text that the model sees.
  parts->added_tokens.push_back({.id = static_cast<int32_t>(i),
                                 .content = std::move(content),
                                 .special = special,
                                 .normalized = !special});
  return absl::OkStatus();
}

absl::Status FinishPieces(const SentencePieceSettings& settings, TokenizerParts* parts) {
  std::vector<absl::StatusOr<NormalizerStep>> steps;
  if (!settings.charsmap.empty()) {
    absl::StatusOr<std::shared_ptr<const Charsmap>> charsmap = Charsmap::Parse(settings.charsmap);
    if (!charsmap.ok()) return charsmap.status();
    absl::StatusOr<std::shared_ptr<const PieceTrie>> kept = UserDefined(*parts);
    if (!kept.ok()) return kept.status();
    steps.push_back(NormalizerStep{.kind = NormalizerStep::Kind::kCharsmap,
                                   .charsmap = *std::move(charsmap),
                                   .kept = *std::move(kept)});
  }
  if (settings.remove_extra_whitespaces) {
    steps.push_back(Replacing(Regex::Compile(R"(\A +)"), ""));
    steps.push_back(Replacing(Regex::Compile(R"( {2,})"), " "));
  }
  if (settings.add_dummy_prefix) {
    steps.push_back(NormalizerStep{.kind = NormalizerStep::Kind::kPrepend, .text = kSpaceMark});
  }
  steps.push_back(Replacing(Regex::CompileLiteral(" "), kSpaceMark));
  if (settings.remove_extra_whitespaces) {  // at the end marks too, whoever wrote them
    steps.push_back(Replacing(Regex::Compile(R"((?<!\x{2581})\x{2581}++\z)"), ""));
  }
  std::vector<NormalizerStep> normalizer;
  for (absl::StatusOr<NormalizerStep>& step : steps) {
    if (!step.ok()) return step.status();
    normalizer.push_back(*std::move(step));
  }
  parts->normalizer = Normalizer(std::move(normalizer));
  if (settings.unigram) MakeUnigram(parts);
  parts->vocabulary.byte_level = false;
  parts->vocabulary.fuse_unk = true;
  parts->added_tokens_are_normal = true;
  parts->decoder.byte_level = false;
  parts->decoder.byte_fallback = parts->vocabulary.byte_fallback;
  parts->decoder.replacements = {{kSpaceMark, " "}};
  parts->decoder.rules.replace_each_byte = true;
  if (settings.add_dummy_prefix || settings.remove_extra_whitespaces) {
    parts->decoder.rules.strip = std::string(" ");
    parts->decoder.rules.strip_count =
        settings.remove_extra_whitespaces ? std::numeric_limits<int>::max() : 1;
  }
  return absl::OkStatus();
}

}  // namespace sirocco
