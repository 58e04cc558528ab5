// Reference answers of beam searches (tests/goldens/beams; make_beams.py says how they were made).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sirocco {

struct BeamGolden {
  std::vector<int32_t> prompt;
  int32_t num_beams = 0;
  int32_t max_new_tokens = 0;
  float length_penalty = 1;
  bool early_stopping = false;
  int32_t min_new_tokens = 0;
  float repetition_penalty = 1;
  int32_t no_repeat_ngram_size = 0;
  std::vector<int32_t> ends;    // end tokens
  std::vector<int32_t> banned;  // tokens that may not come

  struct Answer {
    std::vector<int32_t> ids;
    double score = 0;  // logprob / length ^ length_penalty
  };
  std::vector<Answer> answers;  // the best first
};

absl::StatusOr<std::vector<BeamGolden>> ReadBeamGoldens(const std::string& path);

}  // namespace sirocco
