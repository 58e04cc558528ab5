// Filters of numbers, and those that take any value.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/chat/attributes.h"
#include "engine/chat/filters.h"
#include "engine/chat/operators.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"

namespace sirocco::jinja {
namespace {

// Without the underscores that Python allows between digits; nullopt where one is elsewhere.
std::optional<std::string> WithoutUnderscores(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      result.push_back(text[i]);
      continue;
    }
    const bool between = i > 0 && i + 1 < text.size() &&
                         absl::ascii_isalnum(static_cast<unsigned char>(text[i - 1])) &&
                         absl::ascii_isalnum(static_cast<unsigned char>(text[i + 1]));
    if (!between) return std::nullopt;
  }
  return result;
}

std::string_view Stripped(std::string_view text) {
  const auto [begin, end] = StripRange(text, std::nullopt, true, true);
  return text.substr(begin, end - begin);
}

// float(text), nullopt where Python raises ValueError.
std::optional<double> ParseFloat(std::string_view raw) {
  const std::string_view stripped = Stripped(raw);
  const bool negative = !stripped.empty() && stripped[0] == '-';
  const bool sign = negative || (!stripped.empty() && stripped[0] == '+');
  const std::string_view magnitude = stripped.substr(sign ? 1 : 0);
  const std::string word = absl::AsciiStrToLower(std::string(magnitude.substr(0, 9)));
  double value = 0;
  if (word == "inf" || word == "infinity") {
    value = HUGE_VAL;
  } else if (word == "nan") {
    value = NAN;
  } else {
    const std::optional<std::string> digits = WithoutUnderscores(magnitude);
    if (!digits.has_value() || digits->empty()) return std::nullopt;
    const bool decimal = digits->find_first_not_of("0123456789.eE+-") == std::string::npos;
    if (!decimal || (*digits)[0] == '-' || (*digits)[0] == '+') return std::nullopt;
    // strtod, for its results beyond the range: infinity and zero, as Python's are.
    char* end = nullptr;
    value = std::strtod(digits->c_str(), &end);
    if (end != digits->c_str() + digits->size()) return std::nullopt;
  }
  return negative ? -value : value;
}

enum class Parsed { kValue, kNotANumber, kTooLarge };

// int(text, base).
Parsed ParseInteger(std::string_view raw, int64_t base, int64_t* result) {
  std::string_view text = Stripped(raw);
  const bool negative = !text.empty() && text[0] == '-';
  if (negative || (!text.empty() && text[0] == '+')) text.remove_prefix(1);
  const char marker = text.size() > 2 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : '\0';
  const int64_t marked = marker == 'x' ? 16 : marker == 'o' ? 8 : marker == 'b' ? 2 : 0;
  if (marked != 0 && (base == 0 || base == marked)) {
    text.remove_prefix(text[2] == '_' ? 3 : 2);
    base = marked;
  } else if (base == 0) {
    base = 10;
  }
  const std::optional<std::string> digits = WithoutUnderscores(text);
  if (base < 2 || base > 36 || !digits.has_value() || digits->empty()) return Parsed::kNotANumber;
  if ((*digits)[0] == '-') return Parsed::kNotANumber;
  uint64_t magnitude = 0;
  const auto [end, error] = std::from_chars(digits->data(), digits->data() + digits->size(),
                                            magnitude, static_cast<int>(base));
  if (end != digits->data() + digits->size()) return Parsed::kNotANumber;
  constexpr uint64_t kLargest = INT64_MAX;
  if (error == std::errc::result_out_of_range || magnitude > kLargest) return Parsed::kTooLarge;
  *result = negative ? -static_cast<int64_t>(magnitude) : static_cast<int64_t>(magnitude);
  return Parsed::kValue;
}

// int(value) of a float.
ValueOr Truncated(double value, bool trusted, const Value& absent) {
  if (std::isnan(value)) return absent;
  if (!(std::fabs(value) < 9223372036854775808.0)) {
    return TemplateError("int(): the number does not fit into 64 bits");
  }
  return Value::Int(static_cast<int64_t>(value), trusted);
}

ValueOr IntFilter(Runtime& runtime, const Value& subject, const Args& args) {
  const Value absent = args[0] == nullptr ? Value::Int(0, true) : *args[0];
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t base, IntegerArgument(args[1], 10, "base"));
  if (subject.is_undefined()) return UndefinedError(subject);
  if (subject.is_integral()) return Value::Int(subject.integer(), subject.trusted());
  if (subject.is(Kind::kFloat)) return Truncated(subject.real(), subject.trusted(), absent);
  if (!subject.is_string()) return absent;
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(subject.bytes().size()));
  int64_t value = 0;
  switch (ParseInteger(subject.bytes(), base, &value)) {
    case Parsed::kValue:
      return Value::Int(value, subject.trusted());
    case Parsed::kTooLarge:
      return TemplateError("int(): the number does not fit into 64 bits");
    case Parsed::kNotANumber:
      break;
  }
  const std::optional<double> real = ParseFloat(subject.bytes());
  if (!real.has_value() || std::isinf(*real)) return absent;
  return Truncated(*real, subject.trusted(), absent);
}

ValueOr FloatFilter(Runtime& runtime, const Value& subject, const Args& args) {
  if (subject.is_undefined()) return UndefinedError(subject);
  if (subject.is_number()) return Value::Float(subject.real(), subject.trusted());
  const Value absent = args[0] == nullptr ? Value::Float(0, true) : *args[0];
  if (!subject.is_string()) return absent;
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().StepCharacters(subject.bytes().size()));
  const std::optional<double> value = ParseFloat(subject.bytes());
  return value.has_value() ? Value::Float(*value, subject.trusted()) : absent;
}

absl::Status RequireNumber(const Value& value, const char* filter) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_number()) return absl::OkStatus();
  return TemplateError(
      absl::StrCat(filter, "() takes a number, not '", std::string(TypeName(value)), "'"));
}

ValueOr Abs(Runtime&, const Value& subject, const Args&) {
  SIROCCO_CHAT_RETURN_IF_ERROR(RequireNumber(subject, "abs"));
  if (subject.is(Kind::kFloat)) return Value::Float(std::fabs(subject.real()), subject.trusted());
  return subject.integer() < 0 ? Negate(subject) : Plus(subject);
}

// round(value, digits): half to even of the decimal expansion that the float truly has.
double RoundReal(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 308) return value;
  if (digits < -308) return std::copysign(0.0, value);
  if (digits < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(value / scale) * scale;
  }
  std::array<char, 640> buffer;  // 309 digits before the point and as many behind it
  std::snprintf(buffer.data(), buffer.size(), "%.*f", static_cast<int>(digits), value);
  return std::strtod(buffer.data(), nullptr);
}

// round(value, digits) for digits below 0: to tens, hundreds, ..., half to even.
ValueOr RoundInteger(int64_t value, int64_t digits, bool trusted) {
  if (digits < -18) return Value::Int(0, trusted);
  int64_t unit = 1;
  for (; digits < 0; ++digits) unit *= 10;
  int64_t quotient = value / unit;
  const int64_t rest = value % unit;
  const int64_t distance = rest < 0 ? -rest : rest;
  const bool up = distance > unit - distance || (distance == unit - distance && quotient % 2 != 0);
  if (up) quotient += value < 0 ? -1 : 1;
  int64_t result = 0;
  if (__builtin_mul_overflow(quotient, unit, &result)) {
    return TemplateError("round(): the number does not fit into 64 bits");
  }
  return Value::Int(result, trusted);
}

ValueOr Round(Runtime&, const Value& subject, const Args& args) {
  SIROCCO_CHAT_RETURN_IF_ERROR(RequireNumber(subject, "round"));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t digits, IntegerArgument(args[0], 0, "precision"));
  std::string_view method = "common";
  if (args[1] != nullptr) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* name, TextArgument(args[1], "method"));
    method = name->bytes();
  }
  const bool trusted = subject.trusted();
  if (method == "common") {
    if (subject.is(Kind::kFloat)) return Value::Float(RoundReal(subject.real(), digits), trusted);
    if (digits >= 0) return Value::Int(subject.integer(), trusted);
    return RoundInteger(subject.integer(), digits, trusted);
  }
  if (method != "ceil" && method != "floor") {
    return TemplateError("method must be common, ceil or floor");
  }
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = subject.real() * scale;
  return Value::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale, trusted);
}

ValueOr Sum(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime, subject));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const AttributePath path, AttributePath::Parse(runtime, args[0]));
  Value sum = args[1] == nullptr ? Value::Int(0, true) : *args[1];
  if (sum.is_string()) return TemplateError("sum() can't sum strings");
  for (const Value& item : items->items) {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime.meter().Step());
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Value addend, path.Get(runtime, item));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(sum, Binary(runtime, BinaryOperator::kAdd, sum, addend));
  }
  return sum;
}

ValueOr Default(Runtime&, const Value& subject, const Args& args) {
  const bool falsy_too = args[1] != nullptr && IsTrue(*args[1]);
  if (!subject.is_undefined() && !(falsy_too && !IsTrue(subject))) return subject;
  return args[0] != nullptr ? *args[0]
                            : Value(Kind::kString, std::make_shared<StringObject>(Text()));
}

ValueOr LengthFilter(Runtime& runtime, const Value& subject, const Args&) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, subject));
  return Value::Int(length);
}

ValueOr Attr(Runtime& runtime, const Value& subject, const Args& args) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text* name, TextArgument(args[0], "name"));
  // Attributes only: the keys of a dict are not among them.
  if (subject.is(Kind::kDict) && FindMethod(subject, name->bytes()) == nullptr) {
    return UndefinedElement(runtime, subject, *args[0]);
  }
  return GetAttribute(runtime, subject, name->bytes());
}

constexpr Function kFilters[] = {
    {"abs", Abs},
    {"attr", Attr, {"name"}, 1},
    {"count", LengthFilter},
    {"d", Default, {"default_value", "boolean"}},
    {"default", Default, {"default_value", "boolean"}},
    {"float", FloatFilter, {"default"}},
    {"int", IntFilter, {"default", "base"}},
    {"length", LengthFilter},
    {"round", Round, {"precision", "method"}},
    {"sum", Sum, {"attribute", "start"}},
};

}  // namespace

const Function* FindValueFilter(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                   [&](const Function& filter) { return filter.name == name; });
  return found == std::end(kFilters) ? nullptr : found;
}

}  // namespace sirocco::jinja
