// Regular expressions as tokenizer files write them (Oniguruma with Ruby's syntax, which Hugging
// Face's tokenizers are built on), rewritten for PCRE2 with the same meaning.
// https://github.com/kkos/oniguruma/blob/master/doc/RE
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sirocco {

// UNIMPLEMENTED names the construct and its offset: whatever could mean something else to PCRE2 is
// refused. Syntax errors that PCRE2 finds by itself pass through.
absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern);

}  // namespace sirocco
