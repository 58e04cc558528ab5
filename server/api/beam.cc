#include "server/api/beam.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"

namespace sirocco {
namespace {

absl::Status CheckRanges(const v1::GenerateRequest& request, const ModelFacts& model) {
  const v1::BeamOptions& beam = request.beam();
  const auto most = static_cast<uint32_t>(std::min(kMaxBeams, model.max_batch_size));
  if (beam.num_beams() < 1 || beam.num_beams() > most) {
    return InvalidField("beam.num_beams", absl::StrCat(beam.num_beams()),
                        absl::StrCat("1 ... ", most));
  }
  if (beam.num_return_sequences() > beam.num_beams()) {
    return InvalidField("beam.num_return_sequences", absl::StrCat(beam.num_return_sequences()),
                        absl::StrCat("at most ", beam.num_beams(), " (num_beams)"));
  }
  // Written so that NaN fails.
  if (!(std::abs(beam.length_penalty()) <= kMaxLengthPenalty)) {
    return InvalidField("beam.length_penalty", absl::StrCat(beam.length_penalty()),
                        absl::StrCat(-kMaxLengthPenalty, " ... ", kMaxLengthPenalty));
  }
  return absl::OkStatus();
}

absl::Status CheckBeside(const v1::GenerateRequest& request, const Request& out) {
  if (out.n > 1) {
    return InvalidField("n", absl::StrCat(out.n), "1 beside beam, which has num_return_sequences");
  }
  if (request.sampling().temperature() > 0) {
    return InvalidField("sampling.temperature", absl::StrCat(request.sampling().temperature()),
                        "0 beside beam");
  }
  if (!out.stop.strings.empty()) {
    return InvalidField("stop.strings", "cannot be combined with beam; stop.token_ids can");
  }
  if (out.logprobs && ChangesLogits(out.sampling)) {
    return InvalidField("logprobs",
                        "cannot be combined with beam where penalties, logit_bias, "
                        "no_repeat_ngram_size, allowed_token_ids or banned_token_ids apply");
  }
  return absl::OkStatus();
}

// Each step tells of so many ids of a beam.
absl::Status CheckEnds(const ModelFacts& model, const Request& out) {
  std::set<int32_t> ends(model.end_token_ids.begin(), model.end_token_ids.end());
  ends.insert(out.stop.token_ids.begin(), out.stop.token_ids.end());
  const auto count = static_cast<int32_t>(ends.size());
  if (out.beam->num_beams + count <= kMaxTopLogprobs) return absl::OkStatus();
  return InvalidField("beam.num_beams", absl::StrCat(out.beam->num_beams),
                      absl::StrCat("with ", count, " end and stop tokens at most ",
                                   std::max(0, kMaxTopLogprobs - count)));
}

}  // namespace

absl::Status ResolveBeam(const v1::GenerateRequest& request, const ModelFacts& model,
                         Request& out) {
  if (!request.has_beam()) return absl::OkStatus();
  absl::Status status = CheckRanges(request, model);
  if (status.ok()) status = CheckBeside(request, out);
  if (!status.ok()) return status;
  out.sampling.temperature = 0;
  out.sampling.top_k = 0;
  out.sampling.top_p = 1;
  out.sampling.min_p = 0;
  const v1::BeamOptions& beam = request.beam();
  if (beam.num_beams() == 1) return absl::OkStatus();
  out.n = static_cast<int32_t>(std::max(1u, beam.num_return_sequences()));
  out.beam = BeamOptions{.num_beams = static_cast<int32_t>(beam.num_beams()),
                         .early_stopping = beam.early_stopping()};
  if (beam.has_length_penalty()) out.beam->length_penalty = beam.length_penalty();
  return CheckEnds(model, out);
}

}  // namespace sirocco
