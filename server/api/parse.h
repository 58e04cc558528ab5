// From bytes on the wire to a message, with errors that say what is wrong.
//
// gRPC's generated callback methods answer UNIMPLEMENTED to bytes that do not parse; ours are
// registered raw and parse here.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace sirocco {

// In a request, on all levels; a map's entry is three, a packed list one. Two bytes of a request
// would else become a message of 80 in memory.
inline constexpr int64_t kMaxRequestFields = 1 << 20;

// Fills `message`. INVALID_ARGUMENT: the bytes are no message of its type or have more than
// kMaxRequestFields, or a string in them is not valid UTF-8; then the error names the field
// ("chat.messages[2].content").
absl::Status ParseMessage(std::string_view bytes, google::protobuf::Message& message);

// The path of the first string field in the bytes of a `descriptor` message that is not valid
// UTF-8. Unknown fields are skipped; the search ends at bytes that are no field, and below a
// nesting of 100.
std::optional<std::string> FindInvalidUtf8(std::string_view bytes,
                                           const google::protobuf::Descriptor& descriptor);

}  // namespace sirocco
