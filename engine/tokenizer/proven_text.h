// Text with a record of where its bytes came from: the seam between chat templates and tokenizers.
#pragma once

#include <string>
#include <vector>

namespace sirocco {

// Where a byte of a rendered chat came from: only control tokens written by the template itself
// are control tokens (the chat cannot forge one).
struct ProvenText {
  std::string text;
  std::vector<bool> trusted;  // [text.size()]: from the template or its bos/eos variables
};

}  // namespace sirocco
