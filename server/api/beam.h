// BeamOptions of a request.
#pragma once

#include "absl/status/status.h"
#include "engine/request.h"
#include "server/model/served_model.h"
#include "sirocco/v1/inference.pb.h"

namespace sirocco {

// Sets `beam` and `n` of `out`, whose sampling, stop options and logprobs are set already; one beam
// is no search but greedy. What of the model's own defaults samples is left out. INVALID_ARGUMENT
// names what is out of range, or cannot be combined with a search.
absl::Status ResolveBeam(const v1::GenerateRequest& request, const ModelFacts& model, Request& out);

}  // namespace sirocco
