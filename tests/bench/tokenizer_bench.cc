// A megabyte of text of one kind, hostile kinds included, through a golden tokenizer. Started from
// the workspace root:
//
//     bazel run -c opt //tests/bench:tokenizer_bench
//
// Every kind must stay below half a second on one core; doubling the size must about double the
// time.
#include <benchmark/benchmark.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
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
          {"line_breaks", repeat("\r\n")},
          {"one_letter", repeat("a")},
          {"one_word", Letters},
          {"digits", repeat("1234567890")},
          {"space_and_digit", repeat(" 1")},
          {"punctuation", repeat("!?")},
          {"apostrophes", repeat("'s")},
          {"cjk", repeat("\u65e5\u672c\u8a9e")},
          {"marks", [](size_t size) { return "a" + Repeat("\u0301\u0327", size); }},
          {"control_tokens", repeat("<|im_start|>")},
          {"almost_control_tokens", repeat("<|im_start|")},
      };
  return kinds;
}

void BM_Encode(benchmark::State& state, const std::string& folder,
               const std::function<std::string(size_t)>& make) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      OpenTokenizer(GoldenPath("tokenizers/" + folder));
  if (!tokenizer.ok()) {
    state.SkipWithError(tokenizer.status().ToString().c_str());
    return;
  }
  const std::string text = make(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    absl::StatusOr<std::vector<int32_t>> ids =
        (*tokenizer)->Encode(text, {.parse_special_tokens = true});
    if (!ids.ok()) {
      state.SkipWithError(ids.status().ToString().c_str());
      return;
    }
    benchmark::DoNotOptimize(ids->data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(text.size()) * state.iterations());
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) {
  for (const char* folder : {"llama3_style", "digits_style", "qwen2_style"}) {
    for (const auto& [name, make] : sirocco::Kinds()) {
      benchmark::RegisterBenchmark((std::string(folder) + "/" + name).c_str(), sirocco::BM_Encode,
                                   std::string(folder), make)
          ->Arg(1 << 19)
          ->Arg(1 << 20)
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
