// Token ids to text as they come: every piece returned is whole, valid UTF-8.
#pragma once

#include <cstdint>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace sirocco {

// One a sequence; one thread at a time.
class Detokenizer {
 public:
  // `continues`: the tokens follow others, so that nothing is taken off as from the beginning of a
  // text: what a model writes after a prompt keeps its first space.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens, bool continues);
  // Text that has become whole with this token; an unfinished character is held back. The pieces
  // of a sequence and Finish() joined are, but for `continues`, Tokenizer::Decode of its ids.
  std::string Append(int32_t id);
  // What was held back, as U+FFFD.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  std::string Strip(std::string text);

  const DecodeRules& rules_;
  const bool skip_special_tokens_;
  bool first_;        // no token has come
  int strip_left_;    // times
  std::string held_;  // at most 3 bytes
};

}  // namespace sirocco
