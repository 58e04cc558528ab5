#include "tests/engine/fake_tokenizer.h"

#include <algorithm>

#include "tests/engine/fake_model.h"

namespace sirocco {

FakeTokenizer::FakeTokenizer() {
  bytes_ = {"<end>", "<special>"};
  for (char letter = 'a'; letter <= 'z'; ++letter) bytes_.emplace_back(1, letter);
  for (const char* piece :
       {"\xc3\xa9", "\xc3", "\xa9", "\xe2", "\x82", "\xac", "\xe2\x82", "\xf0\x9f\x98\x80",
        "\xf0\x9f", "\x98", "\x80", "\xff", " ", ".", "the", " and", "ab", "ba", "aba"}) {
    bytes_.emplace_back(piece);
  }
  // The rest says "a" and "b" often, so that stop strings of them are met.
  while (bytes_.size() < kFakeVocabulary) bytes_.emplace_back(bytes_.size() % 2 == 0 ? "a" : "b");
}

std::string_view FakeTokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return "";
  return bytes_[id];
}

int32_t FakeTokenizer::IdOf(std::string_view bytes) const {
  return static_cast<int32_t>(std::find(bytes_.begin(), bytes_.end(), bytes) - bytes_.begin());
}

std::vector<int32_t> FakeTokenizer::Spell(std::string_view text) const {
  std::vector<int32_t> ids;
  for (char letter : text) ids.push_back(IdOf(std::string_view(&letter, 1)));
  return ids;
}

}  // namespace sirocco
