#include "engine/chat/format_spec.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

// A number taken apart: padding with '=' goes between prefix and digits.
struct NumberText {
  std::string prefix;  // sign and base
  std::string digits;
};

bool IsRealType(char type) { return std::string_view("eEfFgG%").find(type) != std::string::npos; }

std::string Group(const std::string& digits, char separator) {
  const size_t whole =
      std::find_if(digits.begin(), digits.end(), [](char c) { return c < '0' || c > '9'; }) -
      digits.begin();
  std::string grouped;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % 3 == 0) grouped.push_back(separator);
    grouped.push_back(digits[i]);
  }
  return grouped + digits.substr(whole);
}

std::string SignOf(bool negative, const FormatSpec& spec) {
  if (negative) return "-";
  return spec.sign == '-' ? "" : std::string(1, spec.sign);
}

NumberText IntegerText(int64_t value, const FormatSpec& spec) {
  int base = 10;
  const char* prefix = "";
  if (spec.type == 'x' || spec.type == 'X') {
    base = 16;
    prefix = spec.type == 'x' ? "0x" : "0X";
  } else if (spec.type == 'o') {
    base = 8;
    prefix = "0o";
  } else if (spec.type == 'b') {
    base = 2;
    prefix = "0b";
  }
  const uint64_t magnitude =
      value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
  std::array<char, 64> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), magnitude, base);
  NumberText text;
  text.prefix = SignOf(value < 0, spec);
  if (spec.alternate) text.prefix += prefix;
  text.digits.assign(buffer.data(), end.ptr);
  if (spec.type == 'X') {
    for (char& digit : text.digits) digit = static_cast<char>(std::toupper(digit));
  }
  return text;
}

NumberText RealText(double value, const FormatSpec& spec) {
  NumberText text;
  text.prefix = SignOf(std::signbit(value) && !std::isnan(value), spec);
  const double magnitude = std::fabs(spec.type == '%' ? value * 100 : value);
  if (spec.type == 0 && spec.precision < 0) {
    text.digits = FloatRepr(magnitude);
    return text;
  }
  const char conversion = spec.type == '%' ? 'f' : spec.type == 0 ? 'g' : spec.type;
  const char format[] = {'%', '.', '*', conversion, '\0'};
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  std::array<char, 1024> buffer;  // 309 digits before the point and kMaxPrecision behind it
  const int size = std::snprintf(buffer.data(), buffer.size(), format, precision, magnitude);
  text.digits.assign(buffer.data(), static_cast<size_t>(std::max(size, 0)));
  const bool plain = text.digits.find_first_not_of("0123456789") == std::string::npos;
  if (spec.type == 0 && plain) text.digits += ".0";
  if (spec.type == '%') text.digits += '%';
  return text;
}

void AppendFill(const FormatSpec& spec, int64_t times, bool trusted, TextBuilder* out) {
  out->AppendRepeated(Text(spec.fill, trusted), times);
}

void AppendNumber(const NumberText& number, const FormatSpec& spec, bool trusted,
                  bool format_trusted, TextBuilder* out) {
  const int64_t room =
      spec.width - static_cast<int64_t>(number.prefix.size() + number.digits.size());
  const char align = spec.align == 0 ? '>' : spec.align;
  const int64_t before = align == '>' ? room : align == '^' ? room / 2 : 0;
  AppendFill(spec, before, format_trusted, out);
  out->Append(number.prefix, trusted);
  if (align == '=') AppendFill(spec, room, format_trusted, out);
  out->Append(number.digits, trusted);
  if (align == '<' || align == '^') AppendFill(spec, room - before, format_trusted, out);
}

absl::Status WrongType(const FormatSpec& spec, const Value& value) {
  return TemplateError(absl::StrCat("format type '", std::string(1, spec.type),
                                    "' does not go with '", std::string(TypeName(value)), "'"));
}

}  // namespace

void AppendPadded(const Text& text, const FormatSpec& spec, bool format_trusted, TextBuilder* out) {
  size_t end = text.size();
  if (spec.precision >= 0) {
    end = CharacterOffset(text.bytes(), static_cast<size_t>(spec.precision));
  }
  const auto length = static_cast<int64_t>(CountCharacters(text.bytes().substr(0, end)));
  const int64_t room = std::max<int64_t>(0, spec.width - length);
  const int64_t before = spec.align == '>' ? room : spec.align == '^' ? room / 2 : 0;
  AppendFill(spec, before, format_trusted, out);
  out->Append(text, 0, end);
  AppendFill(spec, room - before, format_trusted, out);
}

absl::Status AppendFormatted(Runtime& runtime, const Value& value, const FormatSpec& spec,
                             bool format_trusted, TextBuilder* out) {
  const bool plain_bool = value.is(Kind::kBool) && spec.type == 0;
  if (!value.is_number() || plain_bool || spec.type == 's') {
    if (spec.type != 0 && spec.type != 's') return WrongType(spec, value);
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const Text text, StrText(runtime, value));
    AppendPadded(text, spec, format_trusted, out);
    return absl::OkStatus();
  }
  if (spec.type == 'c') {
    if (!value.is_integral() || !IsScalarValue(value.integer())) return WrongType(spec, value);
    std::string character;
    AppendUtf8(static_cast<int32_t>(value.integer()), &character);
    AppendPadded(Text(character, value.trusted()), spec, format_trusted, out);
    return absl::OkStatus();
  }
  const bool real = value.is(Kind::kFloat) || IsRealType(spec.type);
  if (real && spec.type != 0 && !IsRealType(spec.type)) return WrongType(spec, value);
  NumberText number = real ? RealText(value.real(), spec) : IntegerText(value.integer(), spec);
  if (spec.grouping != 0) number.digits = Group(number.digits, spec.grouping);
  AppendNumber(number, spec, value.trusted(), format_trusted, out);
  return absl::OkStatus();
}

}  // namespace sirocco::jinja
