#include "engine/request.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/lanes.h"

namespace sirocco {
namespace {

absl::Status OutOfRange(const char* what, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", value, " is not in ", low, " ... ", high));
}

absl::Status ValidateIds(const char* what, const std::vector<int32_t>& ids) {
  for (int32_t id : ids) {
    if (id < 0) return absl::InvalidArgumentError(absl::StrCat(what, ": ", id, " is negative"));
  }
  return absl::OkStatus();
}

absl::Status ValidateLengths(const Request& request, int32_t max_length) {
  if (request.prompt.empty()) return absl::InvalidArgumentError("prompt: is empty");
  const auto prompt_length = static_cast<int64_t>(request.prompt.size());
  const int32_t at_least_new = request.max_new_tokens == 0 ? 0 : 1;
  if (prompt_length > int64_t{max_length} - at_least_new) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt: ", prompt_length, " tokens, and ", at_least_new,
                     " to generate, do not fit max_length ", max_length));
  }
  if (auto status =
          OutOfRange("max_new_tokens", request.max_new_tokens, 0, max_length - prompt_length);
      !status.ok()) {
    return status;
  }
  return OutOfRange("min_new_tokens", request.sampling.min_new_tokens, 0, request.max_new_tokens);
}

absl::Status BesideBeams(const char* what) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": cannot be combined with a beam search"));
}

absl::Status ValidateBeam(const Request& request, int32_t max_batch_size) {
  const BeamOptions& beam = *request.beam;
  const SamplingParams& sampling = request.sampling;
  absl::Status status =
      OutOfRange("num_beams", beam.num_beams, 2, std::min(kMaxBeams, max_batch_size));
  if (status.ok()) status = OutOfRange("n", request.n, 1, beam.num_beams);
  if (!status.ok()) return status;
  if (!(std::abs(beam.length_penalty) <= kMaxLengthPenalty)) {
    return absl::InvalidArgumentError(absl::StrCat("length_penalty: ", beam.length_penalty,
                                                   " is not in ", -kMaxLengthPenalty, " ... ",
                                                   kMaxLengthPenalty));
  }
  if (sampling.temperature > 0) return BesideBeams("temperature");
  if (!request.stop.strings.empty()) return BesideBeams("stop.strings");
  // What a step tells of the candidates is then not of the raw logits.
  if (request.logprobs && ChangesLogits(sampling)) {
    return BesideBeams("logprobs with penalties, biased, allowed or banned ids or n-grams");
  }
  return absl::OkStatus();
}

}  // namespace

bool ChangesLogits(const SamplingParams& sampling) {
  return sampling.HasPenalties() || sampling.no_repeat_ngram_size != 0 ||
         !sampling.logit_bias.empty() || !sampling.allowed_token_ids.empty() ||
         !sampling.banned_token_ids.empty();
}

absl::Status ValidateRequest(const Request& request, int32_t max_length, int32_t max_batch_size) {
  if (auto status = ValidateLengths(request, max_length); !status.ok()) return status;
  if (auto status = OutOfRange("n", request.n, 1, max_batch_size); !status.ok()) return status;
  if (request.beam) {
    if (auto status = ValidateBeam(request, max_batch_size); !status.ok()) return status;
  }
  if (request.logprobs) {
    auto status = OutOfRange("logprobs.top", request.logprobs->top, 0, kMaxTopLogprobs);
    if (!status.ok()) return status;
  }
  if (request.max_new_tokens == 0 && !(request.logprobs && request.logprobs->prompt)) {
    return absl::InvalidArgumentError("max_new_tokens: 0 needs logprobs.prompt");
  }
  for (const std::string& stop : request.stop.strings) {
    if (stop.empty()) return absl::InvalidArgumentError("stop.strings: one is empty");
  }
  for (const auto& [name, ids] :
       {std::pair{"prompt", &request.prompt}, std::pair{"stop.token_ids", &request.stop.token_ids},
        std::pair{"allowed_token_ids", &request.sampling.allowed_token_ids},
        std::pair{"banned_token_ids", &request.sampling.banned_token_ids}}) {
    if (auto status = ValidateIds(name, *ids); !status.ok()) return status;
  }
  return absl::OkStatus();
}

int32_t SlotsOf(const Request& request) {
  return static_cast<int32_t>(request.prompt.size()) + std::max(request.max_new_tokens, 1) - 1;
}

}  // namespace sirocco
