#include "server/api/json.h"

#include <array>
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

// Counts while a text is read. A value is the first of all or of its container, or behind a comma;
// a colon outside strings stands behind a key.
class Counts {
 public:
  Counts(std::string_view field, int64_t& values_left) : field_(field), values_left_(values_left) {}

  absl::Status Count(char c) {
    if (c == '{' || c == '[') {
      if (++depth_ > kMaxFieldDepth) return TooMuch("is nested too deeply", kMaxFieldDepth);
      keys_[depth_] = 0;
      return Value();
    }
    if (c == ',') return Value();
    if (depth_ == 0) return absl::OkStatus();  // no JSON, as the parser will say
    if (c == '}' || c == ']') --depth_;
    if (c == ':' && ++keys_[depth_] > kMaxFieldKeys) {
      return TooMuch("has an object of too many keys", kMaxFieldKeys);
    }
    return absl::OkStatus();
  }

  absl::Status Value() {
    if (--values_left_ >= 0) return absl::OkStatus();
    return TooMuch("holds too many values, with those of other fields", kMaxFieldValues);
  }

 private:
  absl::Status TooMuch(std::string_view what, int64_t allowed) const {
    return InvalidField(field_, absl::StrCat(std::string(what), "; allowed: ", allowed));
  }

  const std::string_view field_;
  int64_t& values_left_;
  int depth_ = 0;
  std::array<int, kMaxFieldDepth + 1> keys_{};
};

// Looks at brackets, commas, colons and numbers outside strings; whether the text is JSON is the
// parser's to say.
absl::Status CheckBounds(std::string_view field, std::string_view text, int64_t& values_left) {
  Counts counts(field, values_left);
  if (absl::Status status = counts.Value(); !status.ok()) return status;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i) {
        if (text[i] == '\\') ++i;
      }
    } else if (IsNumberByte(c)) {
      const size_t begin = i;
      while (i + 1 < text.size() && IsNumberByte(text[i + 1])) ++i;
      const std::string_view number = text.substr(begin, i + 1 - begin);
      if (!FitsIn64Bits(number)) {
        return InvalidField(
            field, "holds the integer " + Shortened(number, 40) + "; allowed: integers of 64 bits");
      }
    } else if (absl::Status status = counts.Count(c); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OrderedJson> ParseJsonField(std::string_view field, std::string_view text,
                                           JsonKind kind, int64_t& values_left) {
  if (absl::Status status = CheckBounds(field, text, values_left); !status.ok()) return status;
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
