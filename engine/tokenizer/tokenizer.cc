#include "engine/tokenizer/tokenizer.h"

#include "engine/tokenizer/detokenizer.h"

namespace sirocco {

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(*this, skip_special_tokens);
  std::string text;
  for (int32_t id : ids) text += detokenizer.Append(id);
  text += detokenizer.Finish();
  return text;
}

}  // namespace sirocco
