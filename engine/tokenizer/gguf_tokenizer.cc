#include "engine/tokenizer/gguf_tokenizer.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/gguf_splits.h"
#include "engine/tokenizer/json_fields.h"
#include "engine/tokenizer/json_tree.h"
#include "engine/tokenizer/sentencepiece.h"

namespace sirocco {
namespace {

// Many times that of the longest in use.
constexpr size_t kMaxTemplate = 4 << 20;

// A list that a tokenizer needs, if it is no longer than `most`.
absl::StatusOr<std::vector<std::string_view>> ReadList(const GgufFile& file, const char* key,
                                                       uint64_t most) {
  const uint64_t size = file.GetArraySize(key).value_or(0);
  if (size > most) {
    return InvalidFile(file.path(), absl::StrCat(key, " has ", size, " entries; allowed: ", most));
  }
  auto list = file.GetStrings(key);
  if (!list) {
    return InvalidFile(file.path(), absl::StrCat(key, " is missing or no list of strings"));
  }
  return *std::move(list);
}

constexpr char kTypes[] = "tokenizer.ggml.token_type";

// tokenizer.ggml.token_type: PieceType's numbers; all normal where there is none.
absl::StatusOr<std::vector<int64_t>> ReadTypes(const GgufFile& file, size_t tokens) {
  const std::optional<uint64_t> size = file.GetArraySize(kTypes);
  if (!size) return std::vector<int64_t>(tokens, static_cast<int64_t>(PieceType::kNormal));
  if (*size != tokens) {
    return InvalidFile(file.path(),
                       absl::StrCat(kTypes, " has ", *size, " entries for ", tokens, " tokens"));
  }
  auto stored = file.GetInts(kTypes);
  if (!stored) return InvalidFile(file.path(), absl::StrCat(kTypes, " is no list of integers"));
  return *std::move(stored);
}

absl::Status AddByteLevelToken(const GgufFile& file, int32_t id, std::string_view content,
                               int64_t type, TokenizerParts* parts) {
  constexpr auto kFirst = static_cast<int64_t>(PieceType::kNormal);
  constexpr auto kLast = static_cast<int64_t>(PieceType::kByte);
  if (type < kFirst || type > kLast) {
    return InvalidFile(file.path(),
                       absl::StrCat("token ", id, " has type ", type, "; allowed: 1 to 6"));
  }
  const auto kind = static_cast<PieceType>(type);
  if (kind == PieceType::kByte) {
    return UnsupportedFile(file.path(),
                           absl::StrCat("token ", id,
                                        " is of type byte, which is not "
                                        "supported in a gpt2 vocabulary; supported: "
                                        "normal, unknown, control, user-defined, unused"));
  }
  if (!parts->vocabulary.ids.Add(content, id)) {
    return InvalidFile(file.path(),
                       absl::StrCat("token ", id, ", ", Shown(content), ", is there twice"));
  }
  const bool special = kind == PieceType::kControl || kind == PieceType::kUnknown;
  if ((!special && kind != PieceType::kUserDefined) || content.empty()) return absl::OkStatus();
  if (parts->added_tokens.size() >= kMaxAddedTokens) {
    return InvalidFile(file.path(), absl::StrCat(kTypes, " has more than ", kMaxAddedTokens,
                                                 " control, unknown and user-defined tokens"));
  }
  parts->added_tokens.push_back({.id = id, .content = std::string(content), .special = special});
  return absl::OkStatus();
}

absl::Status ReadMerges(const GgufFile& file, TokenizerParts* parts) {
  const auto lines = ReadList(file, "tokenizer.ggml.merges", kMaxMerges);
  if (!lines.ok()) return lines.status();
  for (std::string_view line : *lines) {
    const auto merge = ParseMerge(line);
    if (!merge) {
      return InvalidFile(file.path(),
                         absl::StrCat("merge ", Shown(line), " does not have two parts"));
    }
    parts->vocabulary.merges.Add(merge->first, merge->second);
  }
  return absl::OkStatus();
}

// The id under `key`, if the file has it.
absl::StatusOr<std::optional<int32_t>> ReadId(const GgufFile& file, const char* key, size_t size) {
  const std::optional<int64_t> id = file.GetInt(key);
  if (!id) return std::nullopt;
  if (*id < 0 || static_cast<uint64_t>(*id) >= size) {
    return InvalidFile(file.path(), absl::StrCat(key, " is ", *id, "; allowed: 0 to ", size - 1));
  }
  return static_cast<int32_t>(*id);
}

// `add_bos`, `add_eos`: where the file does not say.
absl::Status ReadEnds(const GgufFile& file, bool add_bos, bool add_eos,
                      const std::vector<std::string_view>& tokens, TokenizerParts* parts) {
  struct End {
    const char* id_key;
    const char* add_key;
    bool add;
    std::string* text;
    std::vector<int32_t>* added;
  };
  const End ends[] = {{"tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token", add_bos,
                       &parts->bos_token, &parts->prefix},
                      {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token", add_eos,
                       &parts->eos_token, &parts->suffix}};
  for (const End& end : ends) {
    absl::StatusOr<std::optional<int32_t>> id = ReadId(file, end.id_key, tokens.size());
    if (!id.ok()) return id.status();
    const std::optional<bool> asked = file.GetBool(end.add_key);
    if (id->has_value()) {
      *end.text = std::string(tokens[**id]);
      if (asked.value_or(end.add)) end.added->push_back(**id);
    } else if (asked.value_or(false)) {
      return InvalidFile(file.path(), absl::StrCat(end.add_key, " is true without ", end.id_key));
    }
  }
  return absl::OkStatus();
}

// Byte-level, with merges and the name of its rules.
absl::Status ReadByteLevel(const GgufFile& file, const std::vector<std::string_view>& tokens,
                           TokenizerParts* parts) {
  const std::string name(file.GetString("tokenizer.ggml.pre").value_or(""));
  const SplitRules* rules = FindSplitRules(name);
  if (rules == nullptr) {
    return UnsupportedFile(file.path(),
                           absl::StrCat("tokenizer.ggml.pre ", Shown(name),
                                        " is not supported; supported: ", KnownSplitRules()));
  }
  absl::StatusOr<PreTokenizer> pre_tokenizer = MakePreTokenizer(*rules);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  parts->pre_tokenizer = *std::move(pre_tokenizer);
  if (rules->nfc) parts->normalizer = Normalizer({{.kind = NormalizerStep::Kind::kNfc}});
  parts->vocabulary.ignore_merges = rules->ignore_merges;
  const auto types = ReadTypes(file, tokens.size());
  if (!types.ok()) return types.status();
  for (size_t i = 0; i < tokens.size(); ++i) {
    absl::Status status =
        AddByteLevelToken(file, static_cast<int32_t>(i), tokens[i], (*types)[i], parts);
    if (!status.ok()) return status;
  }
  absl::Status status = ReadMerges(file, parts);
  if (!status.ok()) return status;
  return ReadEnds(file, rules->add_bos, /*add_eos=*/false, tokens, parts);
}

// The bytes of a charsmap, which is a list of integers; empty where there is none.
absl::StatusOr<std::string> ReadCharsmap(const GgufFile& file) {
  constexpr char kKey[] = "tokenizer.ggml.precompiled_charsmap";
  const uint64_t size = file.GetArraySize(kKey).value_or(0);
  if (size > Charsmap::kMaxBytes) {
    return InvalidFile(
        file.path(), absl::StrCat(kKey, " has ", size, " entries; allowed: ", Charsmap::kMaxBytes));
  }
  std::string bytes;
  if (size == 0) return bytes;
  const auto stored = file.GetInts(kKey);
  if (!stored) return InvalidFile(file.path(), absl::StrCat(kKey, " is no list of integers"));
  for (const int64_t byte : *stored) bytes.push_back(static_cast<char>(byte));
  return bytes;
}

// With scores and types.
absl::Status AddPieces(const GgufFile& file, const std::vector<std::string_view>& tokens,
                       TokenizerParts* parts) {
  constexpr char kScores[] = "tokenizer.ggml.scores";
  const uint64_t size = file.GetArraySize(kScores).value_or(0);
  if (size != tokens.size()) {
    return InvalidFile(file.path(), absl::StrCat(kScores, " has ", size, " entries for ",
                                                 tokens.size(), " tokens"));
  }
  const auto scores = file.GetFloats(kScores);
  if (!scores) return InvalidFile(file.path(), absl::StrCat(kScores, " is no list of floats"));
  const auto types = ReadTypes(file, tokens.size());
  if (!types.ok()) return types.status();
  parts->vocabulary.scores.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    // Of user-defined tokens these files have the spaces as they are.
    const bool user_defined = (*types)[i] == static_cast<int64_t>(PieceType::kUserDefined);
    const std::string text = user_defined
                                 ? absl::StrReplaceAll(std::string(tokens[i]), {{" ", kSpaceMark}})
                                 : std::string(tokens[i]);
    absl::Status status = AddPiece(text, (*scores)[i], (*types)[i], parts);
    if (!status.ok()) return At(file.path(), status);
  }
  return absl::OkStatus();
}

// SentencePiece's. The lists of a file of many tokens take more memory than it: they are gone
// before the tables are made.
absl::Status ReadPieces(const GgufFile& file, bool unigram, std::vector<std::string_view> tokens,
                        TokenizerParts* parts) {
  absl::Status status = AddPieces(file, tokens, parts);
  if (status.ok()) {
    status = ReadEnds(file, /*add_bos=*/!unigram, /*add_eos=*/unigram, tokens, parts);
  }
  if (!status.ok()) return status;
  tokens = std::vector<std::string_view>();
  const absl::StatusOr<std::string> charsmap = ReadCharsmap(file);
  if (!charsmap.ok()) return charsmap.status();
  const SentencePieceSettings settings = {
      .unigram = unigram,
      .charsmap = *charsmap,
      .add_dummy_prefix = file.GetBool("tokenizer.ggml.add_space_prefix").value_or(true),
      .remove_extra_whitespaces =
          file.GetBool("tokenizer.ggml.remove_extra_whitespaces").value_or(false)};
  status = FinishPieces(settings, parts);
  return status.ok() ? status : At(file.path(), status);
}

}  // namespace

bool HasGgufTokenizer(const GgufFile& file) {
  return file.GetString("tokenizer.ggml.model").has_value();
}

absl::StatusOr<TokenizerParts> ParseGgufTokenizer(const GgufFile& file) {
  const std::string model(file.GetString("tokenizer.ggml.model").value_or(""));
  if (model != "gpt2" && model != "llama" && model != "t5") {
    return UnsupportedFile(file.path(),
                           absl::StrCat("tokenizer.ggml.model ", Shown(model),
                                        " is not supported; supported: gpt2, llama, t5"));
  }
  auto tokens = ReadList(file, "tokenizer.ggml.tokens", kMaxVocabularySize);
  if (!tokens.ok()) return tokens.status();
  TokenizerParts parts;
  absl::Status status = model == "gpt2"
                            ? ReadByteLevel(file, *tokens, &parts)
                            : ReadPieces(file, model == "t5", *std::move(tokens), &parts);
  if (!status.ok()) return status;
  if (const auto chat_template = file.GetString("tokenizer.chat_template")) {
    if (chat_template->size() > kMaxTemplate) {
      return InvalidFile(file.path(),
                         absl::StrCat("tokenizer.chat_template has ", chat_template->size(),
                                      " bytes; allowed: ", kMaxTemplate));
    }
    parts.chat_template = std::string(*chat_template);
  }
  return parts;
}

}  // namespace sirocco
