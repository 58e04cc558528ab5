#include "engine/tokenizer/gguf_splits.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/json_parts.h"

namespace sirocco {
namespace {

// Words of Llama 3, with up to three digits together, and of Qwen 2, with each alone.
constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen2Pattern[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                                 R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words that begin anew where small letters end.
constexpr char kTekkenPattern[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kGpt4oPattern[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kDeepSeekIdeographs[] = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
constexpr char kDeepSeekPattern[] =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Digits alone before anything else: of "\n\n 12" the space stays with the line breaks.
constexpr char kDigit[] = R"(\p{N})";

const std::vector<SplitRules>& KnownRules() {
  static const auto& rules = *new std::vector<SplitRules>{
      {.names = {"default", "gpt-2", "phi-2", "olmo"}, .patterns = {kGpt2Pattern}},
      {.names = {"llama-bpe", "llama3", "llama-v3"},
       .patterns = {kLlama3Pattern},
       .ignore_merges = true,
       .add_bos = true},
      {.names = {"dbrx", "smaug-bpe"}, .patterns = {kLlama3Pattern}},
      {.names = {"qwen2", "deepseek-r1-qwen"}, .patterns = {kQwen2Pattern}, .nfc = true},
      {.names = {"tekken"}, .patterns = {kTekkenPattern}, .ignore_merges = true, .add_bos = true},
      {.names = {"gpt-4o"}, .patterns = {kGpt4oPattern}},
      {.names = {"deepseek-v3"},
       .patterns = {R"(\p{N}{1,3})", kDeepSeekIdeographs, kDeepSeekPattern}},
      {.names = {"smollm", "refact"}, .patterns = {kDigit, kGpt2Pattern}}};
  return rules;
}

}  // namespace

const SplitRules* FindSplitRules(std::string_view name) {
  for (const SplitRules& rules : KnownRules()) {
    if (std::find(rules.names.begin(), rules.names.end(), name) != rules.names.end()) return &rules;
  }
  return nullptr;
}

std::string KnownSplitRules() {
  std::string names;
  for (const SplitRules& rules : KnownRules()) {
    for (std::string_view name : rules.names) {
      absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(name));
    }
  }
  return names;
}

absl::StatusOr<PreTokenizer> MakePreTokenizer(const SplitRules& rules) {
  std::vector<PreTokenizerStep> steps;
  for (std::string_view pattern : rules.patterns) {
    absl::StatusOr<Regex> compiled = CompileOniguruma(pattern);
    if (!compiled.ok()) return compiled.status();
    steps.push_back(SplitStep{*std::move(compiled)});
  }
  return PreTokenizer(std::move(steps), /*add_prefix_space=*/false, std::nullopt);
}

}  // namespace sirocco
