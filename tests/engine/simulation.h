// The answer to a request by its definition: one sequence alone, its whole text looked at after
// every token. Shares no code with the engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/token_stream.h"
#include "kernels/lanes.h"
#include "tests/engine/fake_tokenizer.h"

namespace sirocco {

struct Answer {
  std::vector<int32_t> token_ids;
  std::string text;
  FinishReason finish_reason = FinishReason::kNone;
  std::string stop_reason;
  double cumulative_logprob = 0;
};

// `tokenizer` may be null.
Answer Simulate(const Request& request, int32_t index, const std::vector<int32_t>& end_token_ids,
                const FakeTokenizer* tokenizer);

// As Hugging Face decodes bytes: each maximal invalid part is one U+FFFD. `whole_only`: without
// what may still become a character at the end.
std::string NaiveText(const std::string& bytes, bool whole_only);

}  // namespace sirocco
