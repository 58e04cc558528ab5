// What the engine is asked: resolved and validated, with nothing of the wire in it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/lanes.h"

namespace sirocco {

using Clock = std::chrono::steady_clock;

// The order in which they act: SampleParams in kernels/params.h. Off: the defaults here.
struct SamplingParams {
  float temperature = 0;  // 0: greedy
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  int32_t min_new_tokens = 0;
  int32_t no_repeat_ngram_size = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_token_ids;  // empty: all
  std::vector<int32_t> banned_token_ids;

  bool HasPenalties() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
};

// Whether ids are chosen by anything but the raw logits, min_new_tokens aside.
bool ChangesLogits(const SamplingParams& sampling);

struct StopOptions {
  std::vector<std::string> strings;
  std::vector<int32_t> token_ids;
  bool ignore_eos = false;
  bool include_stop_in_output = false;
};

struct LogprobOptions {
  int32_t top = 0;
  bool prompt = false;
};

// Beam search as in Hugging Face's generate(num_beams): engine/beam_search.h.
struct BeamOptions {
  int32_t num_beams = 2;        // 2 ... kMaxBeams, at most max_batch_size
  float length_penalty = 1;     // a finished beam's score is its logprob / length ^ this
  bool early_stopping = false;  // the search ends as soon as num_beams beams have finished
};

// The range of length_penalty, both signs.
inline constexpr float kMaxLengthPenalty = 10;

// A step tells of each beam as many continuations as there are beams and ids that end one, and
// twice as many as beams at least: of them so many go on whichever end.
inline constexpr int32_t kMaxBeams = kMaxTopLogprobs / 2;

// The ranges of sampling values, and ids below the vocabulary, are the caller's duty.
struct Request {
  std::string id;
  std::vector<int32_t> prompt;  // 1 ... max_length - 1 ids (max_length if max_new_tokens is 0)
  SamplingParams sampling;
  StopOptions stop;
  std::optional<LogprobOptions> logprobs;
  int32_t priority = 0;  // the higher is served first
  std::string client;    // who asks: clients of one priority get fair shares
  // Sequences returned: 1 ... max_batch_size; of a beam search, its best, at most num_beams.
  int32_t n = 1;
  std::optional<BeamOptions> beam;
  int32_t max_new_tokens = 0;  // at most max_length - prompt.size()
  std::optional<Clock::time_point> deadline;
  std::string cache_salt;  // requests share cached blocks only within one salt
  // Valid UTF-8 that each sequence's text begins with; `prompt` ends with its tokens.
  std::string answer_prefix;
};

// INVALID_ARGUMENT names what the engine could not run, its value and the allowed range.
absl::Status ValidateRequest(const Request& request, int32_t max_length, int32_t max_batch_size);

// KV slots that a sequence of the request takes at most: the last token's KV is never needed.
int32_t SlotsOf(const Request& request);

}  // namespace sirocco
