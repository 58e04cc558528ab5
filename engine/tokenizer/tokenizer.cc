#include "engine/tokenizer/tokenizer.h"

#include "engine/tokenizer/detokenizer.h"

namespace sirocco {

const DecodeRules& Tokenizer::decode_rules() const {
  static const DecodeRules& none = *new DecodeRules;
  return none;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(*this, skip_special_tokens, /*continues=*/false);
  std::string text;
  for (int32_t id : ids) text += detokenizer.Append(id);
  text += detokenizer.Finish();
  return text;
}

}  // namespace sirocco
