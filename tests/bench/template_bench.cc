// A conversation of a megabyte through every golden chat template, and the rendered chat through a
// tokenizer. Started from the workspace root:
//
//     bazel run --config=opt //tests/bench:template_bench
//
// Doubling the size must about double the time; a conversation whose rendering would take too long
// meets the limits of ChatLimits, and its line says so. What was measured:
// tests/bench/results/text.md.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "engine/chat/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/testing/paths.h"

namespace sirocco {
namespace {

// Turns of `bytes` each, `size` bytes in all.
ChatInput Conversation(size_t size, size_t bytes) {
  const std::string unit = "The <quick> brown fox & 'he' \"jumps\" over 42 dogs.\n";
  std::string content;
  while (content.size() < bytes) content += unit;
  ChatInput input;
  const size_t turns = std::max<size_t>(size / content.size(), 1);
  for (size_t i = 0; i < turns; ++i) {
    input.messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", content}});
  }
  return input;
}

std::string ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::unique_ptr<ChatTemplate> Open(benchmark::State& state, const std::string& name) {
  absl::StatusOr<std::unique_ptr<ChatTemplate>> made =
      ChatTemplate::Parse(ReadFile(GoldenPath("chat/templates/" + name)), "<s>", "</s>");
  if (made.ok()) return *std::move(made);
  state.SkipWithError(made.status().ToString().c_str());
  return nullptr;
}

void BM_Render(benchmark::State& state, const std::string& name) {
  const std::unique_ptr<ChatTemplate> chat_template = Open(state, name);
  if (chat_template == nullptr) return;
  const ChatInput input =
      Conversation(static_cast<size_t>(state.range(0)), static_cast<size_t>(state.range(1)));
  for (auto _ : state) {
    absl::StatusOr<ProvenText> text = chat_template->Render(input);
    if (!text.ok()) {
      state.SkipWithError(text.status().ToString().c_str());
      return;
    }
    benchmark::DoNotOptimize(text->text.data());
  }
}

void BM_EncodeChat(benchmark::State& state, const std::string& folder) {
  const std::unique_ptr<ChatTemplate> chat_template = Open(state, "chatml.jinja");
  if (chat_template == nullptr) return;
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      OpenTokenizer(GoldenPath("tokenizers/" + folder));
  absl::StatusOr<ProvenText> text = chat_template->Render(
      Conversation(static_cast<size_t>(state.range(0)), static_cast<size_t>(state.range(1))));
  if (!tokenizer.ok() || !text.ok()) {
    state.SkipWithError("no tokenizer or no text");
    return;
  }
  for (auto _ : state) {
    absl::StatusOr<std::vector<int32_t>> ids = (*tokenizer)->EncodeChat(*text);
    if (!ids.ok()) {
      state.SkipWithError(ids.status().ToString().c_str());
      return;
    }
    benchmark::DoNotOptimize(ids->data());
  }
}

// Half a megabyte and one, in turns of 16 KiB and of 50 bytes.
void Sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"bytes", "turn"})->Unit(benchmark::kMillisecond);
  for (const int64_t turn : {16 << 10, 1}) {
    for (const int64_t bytes : {1 << 19, 1 << 20}) benchmark->Args({bytes, turn});
  }
}

std::vector<std::string> Templates() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(GoldenPath("chat/templates"), error)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace
}  // namespace sirocco

int main(int argc, char** argv) {
  for (const std::string& name : sirocco::Templates()) {
    benchmark::RegisterBenchmark(("render/" + name).c_str(), sirocco::BM_Render, name)
        ->Apply(sirocco::Sizes);
  }
  for (const char* folder : {"llama3_style", "digits_style", "qwen2_style"}) {
    benchmark::RegisterBenchmark((std::string("encode_chat/") + folder).c_str(),
                                 sirocco::BM_EncodeChat, folder)
        ->Apply(sirocco::Sizes);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
