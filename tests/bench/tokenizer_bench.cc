// A megabyte of text of one kind, hostile kinds included, through golden tokenizers: to ids, and
// back. Started from the workspace root:
//
//     bazel run --config=opt //tests/bench:tokenizer_bench
//
// With SIROCCO_TEST_MODEL, a GGUF file, its tokenizer too, whose vocabulary is of a real size.
// Every kind must stay below half a second on one core; doubling the size must about double the
// time. What was measured: tests/bench/results/text.md.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

std::string Repeat(const std::string& unit, size_t size) {
  std::string text;
  text.reserve(size + unit.size());
  while (text.size() < size) text += unit;
  return text;
}

std::string Letters(size_t size) {
  std::mt19937 random(7);
  std::string text;
  while (text.size() < size) text.push_back("etaoinshr"[random() % 9]);
  return text;
}

// Any assigned and unassigned characters, so that nearly every byte begins or ends a word.
std::string AnyCharacters(size_t size) {
  std::mt19937 random(7);
  std::string text;
  while (text.size() < size) {
    const auto c = static_cast<char32_t>(random() % 0x110000);
    if (c < 0xD800 || c > 0xDFFF) AppendUtf8(c, &text);
  }
  return text;
}

// Words of letters, of any length up to `longest`.
std::string Words(size_t size, size_t longest) {
  std::mt19937 random(7);
  std::string text;
  while (text.size() < size) text += Letters(1 + random() % longest) + " ";
  return text;
}

// Names and makers; sizes in bytes, about.
const std::vector<std::pair<const char*, std::function<std::string(size_t)>>>& Kinds() {
  const auto repeat = [](const char* unit) {
    return [unit](size_t size) { return Repeat(unit, size); };
  };
  static const auto& kinds =
      *new std::vector<std::pair<const char*, std::function<std::string(size_t)>>>{
          {"prose", repeat("The quick brown fox, aged 42, doesn't jump over \"lazy\" dogs.\n")},
          {"spaces", repeat(" ")},
          {"spaces_then_letter", [](size_t size) { return Repeat(" ", size) + "x"; }},
          {"spaces_and_line_break", [](size_t size) { return Repeat(" ", size) + "\nx"; }},
          {"space_runs", repeat("                                x")},
          {"no_break_spaces", repeat("\u00a0")},
          {"space_mixture", repeat(" \u00a0\t\u202f\u2060 \u3000\u200b")},
          {"line_breaks", repeat("\r\n")},
          {"one_letter", repeat("a")},
          {"one_word", Letters},
          {"long_words", [](size_t size) { return Words(size, 20000); }},
          {"capitals", repeat("McDONALDsAaAaA")},
          {"digits", repeat("1234567890")},
          {"space_and_digit", repeat(" 1")},
          {"punctuation", repeat("!?")},
          {"apostrophes", repeat("'s")},
          {"cjk", repeat("\u65e5\u672c\u8a9e")},
          {"emoji", repeat("\U0001f600")},
          {"joined_emoji",
           repeat("\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\ufe0f")},
          {"flags", repeat("\U0001f1e9\U0001f1ea")},
          {"any_characters", AnyCharacters},
          {"marks", [](size_t size) { return "a" + Repeat("\u0301\u0327", size); }},
          {"hangul_parts", repeat("\u1112\u1161\u11ab")},
          {"control_tokens", repeat("<|im_start|>")},
          {"almost_control_tokens", repeat("<|im_start|")},
      };
  return kinds;
}

// Opened once; nullptr after an error.
const Tokenizer* Open(benchmark::State& state, const std::string& path) {
  static auto& opened = *new std::map<std::string, std::unique_ptr<Tokenizer>>();
  std::unique_ptr<Tokenizer>& tokenizer = opened[path];
  if (tokenizer != nullptr) return tokenizer.get();
  absl::StatusOr<std::unique_ptr<Tokenizer>> made = OpenTokenizer(path);
  if (made.ok()) tokenizer = *std::move(made);
  if (tokenizer == nullptr) state.SkipWithError(("cannot open " + path).c_str());
  return tokenizer.get();
}

void BM_Encode(benchmark::State& state, const std::string& path,
               const std::function<std::string(size_t)>& make) {
  const Tokenizer* tokenizer = Open(state, path);
  if (tokenizer == nullptr) return;
  const std::string text = make(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    absl::StatusOr<std::vector<int32_t>> ids =
        tokenizer->Encode(text, {.parse_special_tokens = true});
    if (!ids.ok()) {
      state.SkipWithError(ids.status().ToString().c_str());
      return;
    }
    benchmark::DoNotOptimize(ids->data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(text.size()) * state.iterations());
}

// As many ids as the argument says, of any token each.
void BM_Decode(benchmark::State& state, const std::string& path) {
  const Tokenizer* tokenizer = Open(state, path);
  if (tokenizer == nullptr) return;
  std::mt19937 random(7);
  std::vector<int32_t> ids(static_cast<size_t>(state.range(0)));
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(random() % static_cast<uint32_t>(tokenizer->vocab_size()));
  }
  for (auto _ : state) {
    std::string text = tokenizer->Decode(ids, /*skip_special_tokens=*/false);
    benchmark::DoNotOptimize(text.data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(ids.size()) * state.iterations());
}

// By the goldens' names, and `model`, the file of SIROCCO_TEST_MODEL.
std::vector<std::pair<std::string, std::string>> Tokenizers() {
  std::vector<std::pair<std::string, std::string>> tokenizers;
  for (const char* folder : {"llama3_style", "digits_style", "qwen2_style", "unigram_style"}) {
    tokenizers.emplace_back(folder, GoldenPath(std::string("tokenizers/") + folder));
  }
  if (const char* model = std::getenv("SIROCCO_TEST_MODEL"))
    tokenizers.emplace_back("model", model);
  return tokenizers;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) {
  for (const auto& [tokenizer, path] : sirocco::Tokenizers()) {
    for (const auto& [name, make] : sirocco::Kinds()) {
      benchmark::RegisterBenchmark((tokenizer + "/" + name).c_str(), sirocco::BM_Encode, path, make)
          ->Arg(1 << 19)
          ->Arg(1 << 20)
          ->Unit(benchmark::kMillisecond);
    }
    benchmark::RegisterBenchmark((tokenizer + "/decode").c_str(), sirocco::BM_Decode, path)
        ->Arg(1 << 19)
        ->Arg(1 << 20)
        ->Unit(benchmark::kMillisecond);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
