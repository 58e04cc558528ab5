#include "server/bench/made_tokenizer.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/byte_level.h"

namespace sirocco {
namespace {

using nlohmann::ordered_json;

constexpr int32_t kBytes = 256;
constexpr char kEnd[] = "<|end|>";
constexpr char kChatTemplate[] =
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

// " aaaa", " aaab", ...: all of one length, so that none is another.
std::string Word(int32_t number, int letters) {
  std::string word(letters, 'a');
  for (int i = letters - 1; i >= 0; --i, number /= 26) {
    word[i] = static_cast<char>('a' + number % 26);
  }
  return ByteLevelCharacter(' ') + word;
}

int LettersFor(int32_t words) {
  int letters = 2;
  for (int64_t spelled = 26 * 26; spelled < words; spelled *= 26) ++letters;
  return letters;
}

ordered_json ByteLevel() {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", true}};
}

}  // namespace

absl::StatusOr<MadeTokenizer> MakeTokenizerFiles(int32_t vocab_size) {
  if (vocab_size <= kBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary of ", vocab_size,
                                                   " ids is too small for a byte-level tokenizer, "
                                                   "which needs ",
                                                   kBytes + 1));
  }
  ordered_json vocabulary = ordered_json::object();
  // Appended, not looked up: an ordered object would look through all of its keys each time.
  auto& entries = vocabulary.get_ref<ordered_json::object_t&>();
  for (int32_t id = 0; id < kBytes; ++id) {
    entries.emplace_back(ByteLevelCharacter(static_cast<uint8_t>(id)), id);
  }
  const int32_t words = vocab_size - 1 - kBytes;
  const int letters = LettersFor(words);
  for (int32_t word = 0; word < words; ++word) {
    entries.emplace_back(Word(word, letters), kBytes + word);
  }
  const ordered_json end = {{"id", vocab_size - 1}, {"content", kEnd}, {"single_word", false},
                            {"lstrip", false},      {"rstrip", false}, {"normalized", false},
                            {"special", true}};
  const ordered_json model = {{"type", "BPE"},
                              {"dropout", nullptr},
                              {"unk_token", nullptr},
                              {"vocab", std::move(vocabulary)},
                              {"merges", ordered_json::array()}};
  const ordered_json tokenizer = {{"version", "1.0"},
                                  {"added_tokens", ordered_json::array({end})},
                                  {"normalizer", nullptr},
                                  {"pre_tokenizer", ByteLevel()},
                                  {"post_processor", nullptr},
                                  {"decoder", ByteLevel()},
                                  {"model", model}};
  const ordered_json config = {{"eos_token", kEnd}, {"chat_template", kChatTemplate}};
  return MadeTokenizer{tokenizer.dump(), config.dump(2)};
}

}  // namespace sirocco
