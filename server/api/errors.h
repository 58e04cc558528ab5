// Errors as clients see them: absl::Status with google.rpc details, and its way onto the wire.
//
// Messages and details travel in HTTP/2 trailers, of which many clients take 8 KiB in all: whatever
// came from a request is shortened before it is quoted.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace sirocco {

// INVALID_ARGUMENT "FIELD is VALUE; allowed: ALLOWED" with a google.rpc.BadRequest that names the
// field. A field is a path as the proto has it: "sampling.top_p", "chat.messages[2].role".
absl::Status InvalidField(std::string_view field, std::string_view value, std::string_view allowed);

// The same for what is wrong in another way: "FIELD: DESCRIPTION".
absl::Status InvalidField(std::string_view field, std::string_view description);

// UNIMPLEMENTED: a field of a feature that this server does not have.
absl::Status UnsupportedField(std::string_view field);

// Adds a google.rpc.RetryInfo.
absl::Status WithRetryInfo(absl::Status status, std::chrono::milliseconds delay);

// `text` in quotes, shortened to at most 64 bytes (on a character's boundary), control characters
// escaped.
std::string Quoted(std::string_view text);

// `text`, valid UTF-8, cut on a character's boundary to at most `max_bytes`, and "..." where cut.
std::string Shortened(std::string_view text, size_t max_bytes);

// What a client may know of a status: of INTERNAL nothing but that. Its message speaks of devices,
// files and what else is the operator's, who has it in the log.
absl::Status ForClient(const absl::Status& status);

// Code, message and details; what is sent as `grpc-status-details-bin`.
google::rpc::Status ToRpcStatus(const absl::Status& status);
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace sirocco
