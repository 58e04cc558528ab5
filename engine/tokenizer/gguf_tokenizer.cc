#include "engine/tokenizer/gguf_tokenizer.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/json_tree.h"
#include "engine/tokenizer/oniguruma.h"

namespace sirocco {
namespace {

// tokenizer.ggml.token_type
enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// Many times that of the longest in use.
constexpr size_t kMaxTemplate = 4 << 20;

// What a name in tokenizer.ggml.pre stands for. The file holds the name alone; the rules are those
// of the models that it was given for.
struct SplitRules {
  std::string_view name;
  std::vector<std::string_view> patterns;  // Oniguruma's syntax, one step after the other
  bool ignore_merges = false;
  bool add_bos = false;  // where the file does not say
  Normalizer::Form normalizer = Normalizer::Form::kNone;
};

const std::vector<SplitRules>& KnownRules() {
  // Digits alone before anything else: of "\n\n 12" the space stays with the line breaks.
  static const auto& rules = *new std::vector<SplitRules>{
      {.name = "default", .patterns = {kGpt2Pattern}},
      {.name = "gpt-2", .patterns = {kGpt2Pattern}},
      {.name = "llama-bpe",
       .patterns = {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       .ignore_merges = true,
       .add_bos = true},
      {.name = "qwen2",
       .patterns = {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
       .normalizer = Normalizer::Form::kNfc},
      {.name = "smollm", .patterns = {R"(\p{N})", kGpt2Pattern}}};
  return rules;
}

absl::StatusOr<const SplitRules*> FindRules(const GgufFile& file) {
  const std::string name(file.GetString("tokenizer.ggml.pre").value_or(""));
  std::string known;
  for (const SplitRules& rules : KnownRules()) {
    if (rules.name == name) return &rules;
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(rules.name));
  }
  return UnsupportedFile(file.path(), absl::StrCat("tokenizer.ggml.pre ", Shown(name),
                                                   " is not supported; supported: ", known));
}

absl::Status ReadPreTokenizer(const SplitRules& rules, TokenizerParts* parts) {
  std::vector<SplitStep> steps;
  for (std::string_view pattern : rules.patterns) {
    absl::StatusOr<std::string> translated = TranslateOniguruma(pattern);
    if (!translated.ok()) return translated.status();
    absl::StatusOr<Regex> compiled = Regex::Compile(*translated);
    if (!compiled.ok()) return compiled.status();
    steps.push_back({*std::move(compiled)});
  }
  parts->pre_tokenizer.emplace(std::move(steps), /*add_prefix_space=*/false, std::nullopt);
  parts->normalizer = rules.normalizer;
  return absl::OkStatus();
}

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

absl::Status ReadTokens(const GgufFile& file, const std::vector<std::string_view>& tokens,
                        TokenizerParts* parts) {
  constexpr char kTypes[] = "tokenizer.ggml.token_type";
  std::vector<int64_t> types(tokens.size(), kNormal);
  if (const std::optional<uint64_t> size = file.GetArraySize(kTypes)) {
    if (*size != tokens.size()) {
      return InvalidFile(file.path(), absl::StrCat(kTypes, " has ", *size, " entries for ",
                                                   tokens.size(), " tokens"));
    }
    auto stored = file.GetInts(kTypes);
    if (!stored) return InvalidFile(file.path(), absl::StrCat(kTypes, " is no list of integers"));
    types = *std::move(stored);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const std::string_view content = tokens[i];
    const int64_t type = types[i];
    if (type < kNormal || type > kByte) {
      return InvalidFile(file.path(),
                         absl::StrCat("token ", i, " has type ", type, "; allowed: 1 to 6"));
    }
    if (type == kByte) {
      return UnsupportedFile(file.path(),
                             absl::StrCat("token ", i,
                                          " is of type byte, which is not "
                                          "supported in a gpt2 vocabulary; supported: "
                                          "normal, unknown, control, user-defined, unused"));
    }
    if (!parts->vocabulary.ids.Add(content, id)) {
      return InvalidFile(file.path(),
                         absl::StrCat("token ", i, ", ", Shown(content), ", is there twice"));
    }
    const bool special = type == kControl || type == kUnknown;
    if ((special || type == kUserDefined) && !content.empty()) {
      if (parts->added_tokens.size() >= kMaxAddedTokens) {
        return InvalidFile(file.path(), absl::StrCat(kTypes, " has more than ", kMaxAddedTokens,
                                                     " control, unknown and user-defined tokens"));
      }
      parts->added_tokens.push_back(
          {.id = id, .content = std::string(content), .special = special});
    }
  }
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

absl::Status ReadEnds(const GgufFile& file, const SplitRules& rules,
                      const std::vector<std::string_view>& tokens, TokenizerParts* parts) {
  struct End {
    const char* id_key;
    const char* add_key;
    bool add;
    std::string* text;
    std::vector<int32_t>* added;
  };
  const End ends[] = {{"tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token", rules.add_bos,
                       &parts->bos_token, &parts->prefix},
                      {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token", false,
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

}  // namespace

bool HasGgufTokenizer(const GgufFile& file) {
  return file.GetString("tokenizer.ggml.model").has_value();
}

absl::StatusOr<TokenizerParts> ParseGgufTokenizer(const GgufFile& file) {
  const std::string model(file.GetString("tokenizer.ggml.model").value_or(""));
  if (model != "gpt2") {
    return UnsupportedFile(file.path(), absl::StrCat("tokenizer.ggml.model ", Shown(model),
                                                     " is not supported; supported: gpt2"));
  }
  absl::StatusOr<const SplitRules*> rules = FindRules(file);
  if (!rules.ok()) return rules.status();
  const auto tokens = ReadList(file, "tokenizer.ggml.tokens", kMaxVocabularySize);
  if (!tokens.ok()) return tokens.status();
  TokenizerParts parts;
  parts.vocabulary.ignore_merges = (*rules)->ignore_merges;
  for (const absl::Status& read :
       {ReadPreTokenizer(**rules, &parts), ReadTokens(file, *tokens, &parts),
        ReadMerges(file, &parts), ReadEnds(file, **rules, *tokens, &parts)}) {
    if (!read.ok()) return read;
  }
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
