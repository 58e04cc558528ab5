#include "server/commands/json_lines.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace sirocco {

std::string ErrorLine(const absl::Status& status) {
  const nlohmann::ordered_json line = {{"error", std::string(status.message())}};
  return line.dump(-1, ' ', /*ensure_ascii=*/true,
                   nlohmann::ordered_json::error_handler_t::replace);
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
