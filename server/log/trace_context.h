// W3C Trace Context: which trace a call belongs to, as its client says in `traceparent`
// (https://www.w3.org/TR/trace-context/, version 00).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sirocco {

struct TraceContext {
  std::string trace_id;   // 32 hexadecimal digits
  std::string parent_id;  // 16
};

// None: `traceparent` is not what the standard allows.
std::optional<TraceContext> ParseTraceparent(std::string_view traceparent);

}  // namespace sirocco
