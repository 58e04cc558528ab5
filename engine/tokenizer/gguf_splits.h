// The rules by which byte-level models of GGUF files split text. A file holds only a name
// (tokenizer.ggml.pre); the rules are those of the models that it was given for.
// https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf_update.py names the models.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/pipeline.h"

namespace sirocco {

struct SplitRules {
  std::vector<std::string_view> names;
  std::vector<std::string_view> patterns;  // Oniguruma's syntax, one step after the other
  bool ignore_merges = false;
  bool add_bos = false;  // where the file does not say
  bool nfc = false;      // text is brought to this form first
};

// nullptr: unknown.
const SplitRules* FindSplitRules(std::string_view name);
// All names, for a message.
std::string KnownSplitRules();

absl::StatusOr<PreTokenizer> MakePreTokenizer(const SplitRules& rules);

}  // namespace sirocco
