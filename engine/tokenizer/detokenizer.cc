#include "engine/tokenizer/detokenizer.h"

#include <utility>

#include "absl/strings/match.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens, bool continues)
    : tokenizer_(tokenizer),
      rules_(tokenizer.decode_rules()),
      skip_special_tokens_(skip_special_tokens),
      first_(!continues),
      strip_left_(continues ? 0 : rules_.strip_count) {}

std::string Detokenizer::Append(int32_t id) {
  std::string text;
  if (skip_special_tokens_ && tokenizer_.IsSpecial(id)) return text;
  const std::string_view bytes = tokenizer_.TokenBytes(id);
  held_.append(bytes);
  if (first_ && rules_.bare_first_token) std::erase(held_, ' ');
  if (!bytes.empty()) first_ = false;
  TakeWholeUtf8(rules_.replace_each_byte, &held_, &text);
  return Strip(std::move(text));
}

std::string Detokenizer::Finish() {
  std::string text;
  // What is held is the beginning of one character: one maximal subpart.
  const size_t count = rules_.replace_each_byte ? held_.size() : held_.empty() ? 0 : 1;
  for (size_t i = 0; i < count; ++i) AppendUtf8(0xFFFD, &text);
  held_.clear();
  return text;
}

// Text is whole characters, as is what is taken off.
std::string Detokenizer::Strip(std::string text) {
  while (strip_left_ > 0 && !text.empty()) {
    if (!absl::StartsWith(text, rules_.strip)) {
      strip_left_ = 0;
      break;
    }
    text.erase(0, rules_.strip.size());
    --strip_left_;
  }
  return text;
}

}  // namespace sirocco
