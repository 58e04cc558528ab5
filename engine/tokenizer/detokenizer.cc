#include "engine/tokenizer/detokenizer.h"

#include "engine/tokenizer/utf8.h"

namespace sirocco {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string Detokenizer::Append(int32_t id) {
  std::string text;
  if (skip_special_tokens_ && tokenizer_.IsSpecial(id)) return text;
  held_.append(tokenizer_.TokenBytes(id));
  TakeWholeUtf8(&held_, &text);
  return text;
}

std::string Detokenizer::Finish() {
  std::string text;
  // What is held is the beginning of one character: one maximal subpart, one U+FFFD.
  if (!held_.empty()) AppendUtf8(0xFFFD, &text);
  held_.clear();
  return text;
}

}  // namespace sirocco
