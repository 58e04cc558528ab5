#include "server/api/json.h"

#include <charconv>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"

namespace sirocco {
namespace {

bool IsNumberByte(char c) {
  return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

// Whether an integer's text fits; texts with a fraction or exponent are no integers.
bool FitsIn64Bits(std::string_view number) {
  if (number.find_first_of(".eE") != std::string_view::npos) return true;
  int64_t negative = 0;
  uint64_t positive = 0;
  const char* end = number.data() + number.size();
  const std::errc error = number.front() == '-' ? std::from_chars(number.data(), end, negative).ec
                                                : std::from_chars(number.data(), end, positive).ec;
  return error != std::errc::result_out_of_range;
}

// Looks at brackets and numbers outside strings; whether the text is JSON is the parser's to say.
absl::Status CheckBounds(std::string_view field, std::string_view text) {
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i) {
        if (text[i] == '\\') ++i;
      }
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxJsonDepth) {
        return InvalidField(field, absl::StrCat("is nested too deeply; allowed: ", kMaxJsonDepth));
      }
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (IsNumberByte(c)) {
      const size_t begin = i;
      while (i + 1 < text.size() && IsNumberByte(text[i + 1])) ++i;
      const std::string_view number = text.substr(begin, i + 1 - begin);
      if (!FitsIn64Bits(number)) {
        return InvalidField(
            field, "holds the integer " + Shortened(number, 40) + "; allowed: integers of 64 bits");
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OrderedJson> ParseJsonField(std::string_view field, std::string_view text,
                                           JsonKind kind) {
  if (absl::Status status = CheckBounds(field, text); !status.ok()) return status;
  const std::string_view wanted = kind == JsonKind::kObject ? "a JSON object" : "a JSON array";
  OrderedJson json;
  try {
    json = OrderedJson::parse(text);
  } catch (const OrderedJson::parse_error& error) {
    return InvalidField(field, absl::StrCat("is not valid JSON at byte ", error.byte,
                                            "; allowed: ", std::string(wanted)));
  } catch (const OrderedJson::exception&) {  // a number beyond double's range
    return InvalidField(field, "holds a number out of range; allowed: " + std::string(wanted));
  }
  if (kind == JsonKind::kObject ? !json.is_object() : !json.is_array()) {
    return InvalidField(field, std::string("a JSON ") + json.type_name(), wanted);
  }
  return json;
}

}  // namespace sirocco
