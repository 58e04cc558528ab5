// The methods that need no engine: GetModel, Tokenize, Detokenize.
#pragma once

#include "absl/status/statusor.h"
#include "server/model/served_model.h"
#include "sirocco/v1/inference.pb.h"

namespace sirocco {

v1::Model ToModel(const ModelFacts& model);

// FAILED_PRECONDITION: no tokenizer, or a chat without a template. INVALID_ARGUMENT names the
// field; an id must be below the vocabulary.
absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                              const ModelFacts& model);
absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                  const ModelFacts& model);

}  // namespace sirocco
