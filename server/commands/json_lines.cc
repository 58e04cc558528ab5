#include "server/commands/json_lines.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace sirocco {
namespace {

using nlohmann::ordered_json;

constexpr int kMaxDepth = 100;

}  // namespace

absl::StatusOr<ordered_json> ParseJsonObject(const std::string& line) {
  bool too_deep = false;
  const ordered_json::parser_callback_t bound = [&](int depth, ordered_json::parse_event_t,
                                                    ordered_json&) {
    if (depth > kMaxDepth) too_deep = true;
    return !too_deep;
  };
  try {
    ordered_json value = ordered_json::parse(line, bound);
    if (too_deep) {
      return absl::InvalidArgumentError(
          absl::StrCat("JSON is nested deeper than ", kMaxDepth, " levels"));
    }
    if (!value.is_object()) return absl::InvalidArgumentError("the line is no JSON object");
    return value;
  } catch (const ordered_json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("the line is no JSON: ", error.what()));
  }
}

std::string ErrorLine(const absl::Status& status) {
  const ordered_json line = {{"error", std::string(status.message())}};
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

bool NextLine(std::istream& in, size_t max_bytes, std::string* line, absl::Status* status) {
  *status = absl::OkStatus();
  while (in.good()) {
    line->clear();
    bool blank = true, too_long = false;
    std::streambuf& buffer = *in.rdbuf();
    int c = buffer.sbumpc();
    if (c == EOF) break;
    for (; c != EOF && c != '\n'; c = buffer.sbumpc()) {
      if (c != ' ' && c != '\t' && c != '\r') blank = false;
      if (line->size() < max_bytes) {
        line->push_back(static_cast<char>(c));
      } else {
        too_long = true;
      }
    }
    if (too_long) {
      *status = absl::ResourceExhaustedError(
          absl::StrCat("the line is longer than ", max_bytes, " bytes"));
      return true;
    }
    if (!blank) return true;
  }
  return false;
}

}  // namespace sirocco
