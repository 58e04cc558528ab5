// SamplingParams of the wire, resolved: the request's own, else the model's
// generation_config.json's, else off.
#pragma once

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "server/model/served_model.h"
#include "sirocco/v1/inference.pb.h"

namespace sirocco {

// INVALID_ARGUMENT names the field, also where its value came from generation_config.json. Draws a
// seed where none is given. Greedy requests come out with the filters off, which cannot change the
// most probable id. min_new_tokens is checked against max_new_tokens by the caller.
absl::StatusOr<SamplingParams> ToSamplingParams(const v1::SamplingParams& given,
                                                const ModelFacts& model);

}  // namespace sirocco
