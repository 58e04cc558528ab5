#include "server/log/trace_context.h"

#include <algorithm>

namespace sirocco {
namespace {

// version "-" trace-id "-" parent-id "-" trace-flags
constexpr size_t kLength = 2 + 1 + 32 + 1 + 16 + 1 + 2;

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsId(std::string_view text) {
  return IsHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::optional<TraceContext> ParseTraceparent(std::string_view traceparent) {
  if (traceparent.size() < kLength) return std::nullopt;
  const std::string_view version = traceparent.substr(0, 2);
  const std::string_view trace_id = traceparent.substr(3, 32);
  const std::string_view parent_id = traceparent.substr(36, 16);
  const bool dashes = traceparent[2] == '-' && traceparent[35] == '-' && traceparent[52] == '-';
  if (!dashes || !IsHex(version) || version == "ff" || !IsHex(traceparent.substr(53, 2))) {
    return std::nullopt;
  }
  // A later version may have more, after another dash.
  const std::string_view more = traceparent.substr(kLength);
  if (!more.empty() && (version == "00" || more.front() != '-')) return std::nullopt;
  if (!IsId(trace_id) || !IsId(parent_id)) return std::nullopt;
  return TraceContext{std::string(trace_id), std::string(parent_id)};
}

}  // namespace sirocco
