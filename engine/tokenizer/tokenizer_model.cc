#include "engine/tokenizer/tokenizer_model.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/json_file.h"
#include "engine/model/mapped_file.h"
#include "engine/tokenizer/json_parts.h"
#include "engine/tokenizer/sentencepiece.h"
#include "engine/tokenizer/tokenizer_config.h"
#include "engine/tokenizer/wire_reader.h"

namespace sirocco {
namespace {

using nlohmann::json;
using Kind = WireField::Kind;

// Fields of ModelProto.
constexpr uint64_t kPieces = 1;
constexpr uint64_t kTrainerSpec = 2;
constexpr uint64_t kNormalizerSpec = 3;
// TrainerSpec.ModelType.
constexpr int64_t kUnigram = 1;
constexpr int64_t kBpe = 2;

struct Settings {
  int64_t model_type = kUnigram;  // TrainerSpec: where the file does not say
  bool whitespace_as_suffix = false;
  int32_t bos_id = 1;
  int32_t eos_id = 2;
  bool escape_whitespaces = true;
  SentencePieceSettings pieces = {.add_dummy_prefix = true, .remove_extra_whitespaces = true};
};

absl::Status NotTheFormat() {
  return absl::InvalidArgumentError("is no SentencePiece model: not in protocol buffers' format");
}

absl::Status ReadPiece(std::string_view message, TokenizerParts* parts) {
  std::string_view text;
  float score = 0;
  int64_t type = 1;
  WireReader reader(message);
  while (const std::optional<WireField> field = reader.Next()) {
    if (field->number == 1 && field->kind == Kind::kBytes) text = field->bytes;
    if (field->number == 2 && field->kind == Kind::kFixed32) {
      score = std::bit_cast<float>(static_cast<uint32_t>(field->value));
    }
    if (field->number == 3 && field->kind == Kind::kVarint) {
      type = static_cast<int64_t>(field->value);
    }
  }
  if (!reader.ok()) return NotTheFormat();
  return AddPiece(text, score, type, parts);
}

absl::Status ReadTrainerSpec(std::string_view message, Settings* settings) {
  WireReader reader(message);
  while (const std::optional<WireField> field = reader.Next()) {
    if (field->kind != Kind::kVarint) continue;
    if (field->number == 3) settings->model_type = static_cast<int64_t>(field->value);
    if (field->number == 24) settings->whitespace_as_suffix = field->value != 0;
    if (field->number == 41) settings->bos_id = static_cast<int32_t>(field->value);
    if (field->number == 42) settings->eos_id = static_cast<int32_t>(field->value);
  }
  return reader.ok() ? absl::OkStatus() : NotTheFormat();
}

absl::Status ReadNormalizerSpec(std::string_view message, Settings* settings) {
  WireReader reader(message);
  while (const std::optional<WireField> field = reader.Next()) {
    if (field->kind == Kind::kBytes && field->number == 2) {
      settings->pieces.charsmap = field->bytes;
    }
    if (field->kind != Kind::kVarint) continue;
    if (field->number == 3) settings->pieces.add_dummy_prefix = field->value != 0;
    if (field->number == 4) settings->pieces.remove_extra_whitespaces = field->value != 0;
    if (field->number == 5) settings->escape_whitespaces = field->value != 0;
  }
  return reader.ok() ? absl::OkStatus() : NotTheFormat();
}

absl::Status CheckSupported(const Settings& settings) {
  constexpr std::string_view kTypes[] = {"UNIGRAM", "BPE", "WORD", "CHAR"};
  if (settings.model_type != kUnigram && settings.model_type != kBpe) {
    const bool known = settings.model_type >= 1 && settings.model_type <= 4;
    return Unsupported(
        "trainer_spec.model_type",
        known ? std::string(kTypes[settings.model_type - 1]) : absl::StrCat(settings.model_type),
        "UNIGRAM, BPE");
  }
  if (settings.whitespace_as_suffix) {
    return Unsupported("trainer_spec", "treat_whitespace_as_suffix", "false");
  }
  if (!settings.escape_whitespaces) {
    return Unsupported("normalizer_spec", "escape_whitespaces of false", "true");
  }
  return absl::OkStatus();
}

// The content of a token that may not be there: -1, or an id without an entry.
std::string ContentOf(const TokenizerParts& parts, int32_t id) {
  const bool is_there = id >= 0 && static_cast<size_t>(id) < parts.vocabulary.ids.size();
  return is_there ? std::string(parts.vocabulary.ids.text(static_cast<size_t>(id))) : std::string();
}

// {"32000": {"content": ..., "special": ...}, ...}
absl::Status ReadDecoderTokens(const json& tokens, TokenizerParts* parts) {
  const std::string where = "added_tokens_decoder";
  if (!tokens.is_object()) return Malformed(where, "not an object");
  for (const auto& [key, value] : tokens.items()) {
    const std::string at = absl::StrCat(where, ".", Shown(key));
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 ||
        id >= kMaxVocabularySize) {
      return Malformed(at, absl::StrCat("no id of 0 to ", kMaxVocabularySize - 1));
    }
    absl::StatusOr<AddedToken> token = ReadAddedToken(value, at);
    if (!token.ok()) return token.status();
    token->id = id;
    const auto same = std::find_if(parts->added_tokens.begin(), parts->added_tokens.end(),
                                   [id](const AddedToken& known) { return known.id == id; });
    if (same == parts->added_tokens.end()) {
      parts->added_tokens.push_back(*std::move(token));
    } else if (same->content == token->content) {
      *same = *std::move(token);
    } else {
      return Malformed(at, absl::StrCat("is ", Shown(token->content), ", and ",
                                        Shown(same->content), " in tokenizer.model"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> IdOf(const TokenizerParts& parts, const std::string& content) {
  for (const AddedToken& token : parts.added_tokens) {
    if (token.content == content) return token.id;
  }
  if (const auto id = parts.vocabulary.ids.Find(content)) return *id;
  return absl::InvalidArgumentError(
      absl::StrCat("token ", Shown(content), " is not in the vocabulary"));
}

}  // namespace

absl::StatusOr<TokenizerParts> ParseTokenizerModel(std::string_view bytes) {
  TokenizerParts parts;
  Settings settings;
  parts.vocabulary.ids.Reserve(bytes.size());
  // Address space for all that there can be: a piece has five bytes at least.
  parts.vocabulary.scores.reserve(std::min<size_t>(bytes.size() / 5, kMaxVocabularySize));
  WireReader reader(bytes);
  while (const std::optional<WireField> field = reader.Next()) {
    if (field->kind != Kind::kBytes) continue;
    absl::Status status;
    if (field->number == kPieces) status = ReadPiece(field->bytes, &parts);
    if (field->number == kTrainerSpec) status = ReadTrainerSpec(field->bytes, &settings);
    if (field->number == kNormalizerSpec) status = ReadNormalizerSpec(field->bytes, &settings);
    if (!status.ok()) return status;
  }
  if (!reader.ok()) return NotTheFormat();
  if (parts.vocabulary.ids.size() == 0) {
    return absl::InvalidArgumentError("is no SentencePiece model: it has no tokens");
  }
  absl::Status status = CheckSupported(settings);
  settings.pieces.unigram = settings.model_type == kUnigram;
  if (status.ok()) status = FinishPieces(settings.pieces, &parts);
  if (!status.ok()) return status;
  parts.bos_token = ContentOf(parts, settings.bos_id);
  parts.eos_token = ContentOf(parts, settings.eos_id);
  return parts;
}

absl::Status ReadTokenizerModelConfig(const std::string& folder, TokenizerParts* parts) {
  const std::string path = folder + "/tokenizer_config.json";
  absl::StatusOr<json> config = ReadConfigObject(path);
  if (!config.ok()) return config.status();
  if (const json* tokens = Field(*config, "added_tokens_decoder")) {
    absl::Status status = ReadDecoderTokens(*tokens, parts);
    if (!status.ok()) return At(path, status);
  } else if (IsPresent(folder + "/added_tokens.json")) {
    return UnsupportedFile(folder + "/added_tokens.json",
                           "further tokens without their rules are not supported; supported: "
                           "added_tokens_decoder in tokenizer_config.json");
  }
  struct End {
    const char* key;
    bool missing;
    const std::string& token;
    std::vector<int32_t>* added;
  };
  for (const End& end : {End{"add_bos_token", true, parts->bos_token, &parts->prefix},
                         End{"add_eos_token", false, parts->eos_token, &parts->suffix}}) {
    absl::StatusOr<bool> add = BoolField(*config, end.key, end.missing, path);
    if (!add.ok()) return add.status();
    if (!*add || end.token.empty()) continue;
    absl::StatusOr<int32_t> id = IdOf(*parts, end.token);
    if (!id.ok()) return At(path, id.status());
    end.added->push_back(*id);
  }
  return absl::OkStatus();
}

}  // namespace sirocco
