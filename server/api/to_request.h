// GenerateRequest -> the engine's Request: every rule of the public API is checked here.
#pragma once

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "server/model/served_model.h"
#include "sirocco/v1/inference.pb.h"

namespace sirocco {

inline constexpr int kMaxStopStrings = 16;
inline constexpr int kMaxRequestIdBytes = 256;

// Validates, tokenises and resolves what is unset; the deadline is the caller's to set. Takes as
// long as tokenising the prompt takes: not for gRPC's threads.
//
// NOT_FOUND: another model's name. UNIMPLEMENTED: names the field of a feature that is not there.
// FAILED_PRECONDITION: text, chat or stop strings asked of a model without tokenizer or template.
// INVALID_ARGUMENT: names field, value and what is allowed.
absl::StatusOr<Request> ToRequest(const v1::GenerateRequest& request, const ModelFacts& model);

}  // namespace sirocco
