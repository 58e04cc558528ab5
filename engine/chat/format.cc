#include "engine/chat/format.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/chat/attributes.h"
#include "engine/chat/format_spec.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/strings.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

bool IsDigitByte(char byte) { return byte >= '0' && byte <= '9'; }

// Reads along a format; every read checks the end.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}
  bool done() const { return position_ >= text_.size(); }
  size_t position() const { return position_; }
  char peek() const { return done() ? '\0' : text_[position_]; }
  char Next() { return done() ? '\0' : text_[position_++]; }
  bool Skip(char byte) {
    if (done() || text_[position_] != byte) return false;
    ++position_;
    return true;
  }
  std::string_view Until(std::string_view stops) {
    const size_t begin = position_;
    position_ = std::min(text_.find_first_of(stops, begin), text_.size());
    return text_.substr(begin, position_ - begin);
  }
  // A number below 10^9, or nullopt where there are no digits; more digits than nine are left over.
  std::optional<int64_t> Number() {
    if (!IsDigitByte(peek())) return std::nullopt;
    int64_t number = 0;
    for (int digits = 0; digits < 9 && IsDigitByte(peek()); ++digits) {
      number = number * 10 + (Next() - '0');
    }
    return number;
  }
  Character NextCharacter() {
    const Character character = CharacterAt(text_, position_);
    position_ += character.size;
    return character;
  }

 private:
  std::string_view text_;
  size_t position_ = 0;
};

absl::Status TakePrecision(Cursor* cursor, FormatSpec* spec) {
  if (!cursor->Skip('.')) return absl::OkStatus();
  const int64_t precision = cursor->Number().value_or(0);
  if (precision > kMaxPrecision && spec->type != 's') {
    return TemplateError(
        absl::StrCat("a format asks for ", precision, " digits; at most ", kMaxPrecision));
  }
  spec->precision = static_cast<int>(precision);
  return absl::OkStatus();
}

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const Text& format, const Value& values)
      : runtime_(runtime),
        format_(format),
        cursor_(format.bytes()),
        values_(values),
        out_(runtime) {}

  ValueOr Run();

 private:
  absl::Status Directive();
  absl::StatusOr<Value> NextValue();
  absl::Status Convert(const Value& value, char conversion, FormatSpec spec);

  Runtime& runtime_;
  const Text& format_;
  Cursor cursor_;
  const Value& values_;
  TextBuilder out_;
  size_t next_ = 0;
  bool by_name_ = false;
};

absl::StatusOr<Value> PercentFormatter::NextValue() {
  const bool tuple = values_.is(Kind::kTuple);
  if (next_ >= (tuple ? values_.items().size() : 1)) {
    return TemplateError("not enough arguments for format string");
  }
  return tuple ? values_.items()[next_++] : (++next_, values_);
}

absl::Status PercentFormatter::Convert(const Value& value, char conversion, FormatSpec spec) {
  const bool trusted = format_.TrustedAt(cursor_.position() - 1);
  if (spec.align == 0) spec.align = '>';
  switch (conversion) {
    case 's':
    case 'r': {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(
          const Value shown, conversion == 's' ? Str(runtime_, value) : Repr(runtime_, value));
      spec.fill = " ";
      if (spec.align == '=') spec.align = '>';
      AppendPadded(shown.text(), spec, trusted, &out_);
      return absl::OkStatus();
    }
    case 'd':
    case 'i':
    case 'u': {
      spec.type = 'd';
      if (!value.is_number()) break;
      if (!value.is(Kind::kFloat)) return AppendFormatted(runtime_, value, spec, trusted, &out_);
      const double whole = std::trunc(value.real());
      if (!(std::fabs(whole) < 9.2e18)) return TemplateError("a float is too large for %d");
      return AppendFormatted(runtime_, Value::Int(static_cast<int64_t>(whole), value.trusted()),
                             spec, trusted, &out_);
    }
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G':
      spec.type = conversion;
      if (!value.is_number()) break;
      return AppendFormatted(runtime_, value, spec, trusted, &out_);
    case 'x':
    case 'X':
    case 'o':
    case 'c':
      spec.type = conversion;
      if (conversion == 'c' && value.is_string()) spec.type = 's';
      if (!value.is_integral() && spec.type != 's') break;
      return AppendFormatted(runtime_, value, spec, trusted, &out_);
    default:
      return TemplateError(absl::StrCat("unsupported format character at byte ",
                                        cursor_.position() - 1, " of a format string"));
  }
  if (value.is_undefined()) return UndefinedError(value);
  return TemplateError(absl::StrCat("%", std::string(1, conversion),
                                    " format: a number is required, not ",
                                    std::string(TypeName(value))));
}

absl::Status PercentFormatter::Directive() {
  if (cursor_.Skip('%')) {
    out_.Append(format_, cursor_.position() - 1, cursor_.position());
    return absl::OkStatus();
  }
  std::optional<Value> named;
  if (cursor_.Skip('(')) {
    const std::string_view name = cursor_.Until(")");
    if (!cursor_.Skip(')')) return TemplateError("incomplete format key");
    if (!values_.is(Kind::kDict)) return TemplateError("format requires a mapping");
    const Value* found = values_.dict().Find(name);
    if (found == nullptr) {
      return TemplateError(absl::StrCat("no value for the format key '", Shortened(name), "'"));
    }
    named = *found;
    by_name_ = true;
  }
  FormatSpec spec;
  bool zero = false;
  bool left = false;
  for (bool flag = true; flag;) {
    flag = true;
    if (cursor_.Skip('-')) {
      left = true;
    } else if (cursor_.Skip('0')) {
      zero = true;
    } else if (cursor_.Skip('+')) {
      spec.sign = '+';
    } else if (cursor_.Skip(' ')) {
      if (spec.sign == '-') spec.sign = ' ';
    } else if (cursor_.Skip('#')) {
      spec.alternate = true;
    } else {
      flag = false;
    }
  }
  if (left) {
    spec.align = '<';
  } else if (zero) {
    spec.align = '=';
    spec.fill = "0";
  }
  if (cursor_.peek() == '*') {
    return absl::UnimplementedError("a width of '*' in a format is not supported");
  }
  spec.width = cursor_.Number().value_or(0);
  SIROCCO_CHAT_RETURN_IF_ERROR(TakePrecision(&cursor_, &spec));
  if (cursor_.done()) return TemplateError("incomplete format");
  const char conversion = cursor_.Next();
  if (!named.has_value()) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(named, NextValue());
  }
  return Convert(*named, conversion, spec);
}

ValueOr PercentFormatter::Run() {
  while (!cursor_.done() && out_.ok()) {
    const size_t begin = cursor_.position();
    cursor_.Until("%");
    out_.Append(format_, begin, cursor_.position());
    if (!cursor_.Skip('%')) break;
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime_.meter().Step());
    SIROCCO_CHAT_RETURN_IF_ERROR(Directive());
  }
  const bool tuple = values_.is(Kind::kTuple);
  const bool unused =
      tuple ? next_ < values_.items().size() : next_ == 0 && !by_name_ && !values_.is(Kind::kDict);
  if (unused) {
    return TemplateError("not all arguments converted during string formatting");
  }
  return out_.Finish();
}

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Text& format, const CallArgs& args)
      : runtime_(runtime), format_(format), cursor_(format.bytes()), args_(args), out_(runtime) {}

  ValueOr Run();

 private:
  absl::Status Field();
  ValueOr Argument(std::string_view name);
  ValueOr Path(Value value);
  absl::StatusOr<FormatSpec> Spec();

  Runtime& runtime_;
  const Text& format_;
  Cursor cursor_;
  const CallArgs& args_;
  TextBuilder out_;
  size_t next_ = 0;
};

ValueOr BraceFormatter::Argument(std::string_view name) {
  size_t index = 0;
  if (name.empty()) {
    index = next_++;
  } else if (IsDigitByte(name[0])) {
    if (!absl::SimpleAtoi(std::string(name), &index)) index = args_.positional.size();
  } else {
    for (const auto& [key, value] : args_.named) {
      if (key == name) return value;
    }
    return TemplateError(absl::StrCat("format() has no argument '", Shortened(name), "'"));
  }
  if (index >= args_.positional.size()) {
    return TemplateError(absl::StrCat("format() has no argument ", index));
  }
  return args_.positional[index];
}

ValueOr BraceFormatter::Path(Value value) {
  while (cursor_.peek() == '.' || cursor_.peek() == '[') {
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime_.meter().Step());
    if (cursor_.Skip('.')) {
      SIROCCO_CHAT_ASSIGN_OR_RETURN(value, GetAttribute(runtime_, value, cursor_.Until(".[!:}")));
      continue;
    }
    cursor_.Skip('[');
    const std::string_view key = cursor_.Until("]");
    if (!cursor_.Skip(']')) return TemplateError("missing ']' in format string");
    int64_t index = 0;
    const bool number = absl::SimpleAtoi(std::string(key), &index);
    SIROCCO_CHAT_ASSIGN_OR_RETURN(
        const Value wanted, number ? ValueOr(Value::Int(index)) : runtime_.String(key, false));
    SIROCCO_CHAT_ASSIGN_OR_RETURN(value, GetItem(runtime_, value, wanted));
  }
  return value;
}

absl::StatusOr<FormatSpec> BraceFormatter::Spec() {
  FormatSpec spec;
  const auto is_align = [](char byte) {
    return byte == '<' || byte == '>' || byte == '^' || byte == '=';
  };
  Cursor ahead = cursor_;
  if (!ahead.done()) {
    const size_t begin = ahead.position();
    ahead.NextCharacter();
    if (is_align(ahead.peek())) {
      spec.fill = std::string(format_.bytes().substr(begin, ahead.position() - begin));
      spec.align = ahead.Next();
      cursor_ = ahead;
    } else if (is_align(cursor_.peek())) {
      spec.align = cursor_.Next();
    }
  }
  for (const char sign : {'-', '+', ' '}) {
    if (cursor_.Skip(sign)) spec.sign = sign;
  }
  spec.alternate = cursor_.Skip('#');
  if (cursor_.peek() == '0' && spec.align == 0) {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = cursor_.Number().value_or(0);
  for (const char grouping : {',', '_'}) {
    if (cursor_.Skip(grouping)) spec.grouping = grouping;
  }
  SIROCCO_CHAT_RETURN_IF_ERROR(TakePrecision(&cursor_, &spec));
  if (std::string_view("sdfFeEgGxXob%c").find(cursor_.peek()) != std::string_view::npos &&
      !cursor_.done()) {
    spec.type = cursor_.Next();
  }
  return spec;
}

absl::Status BraceFormatter::Field() {
  const size_t begin = cursor_.position();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Value value, Argument(cursor_.Until(".[!:}{")));
  SIROCCO_CHAT_ASSIGN_OR_RETURN(value, Path(std::move(value)));
  if (cursor_.Skip('!')) {
    const char conversion = cursor_.Next();
    if (conversion != 's' && conversion != 'r') {
      return TemplateError("a format conversion is !s or !r");
    }
    SIROCCO_CHAT_ASSIGN_OR_RETURN(value,
                                  conversion == 's' ? Str(runtime_, value) : Repr(runtime_, value));
  }
  FormatSpec spec;
  if (cursor_.Skip(':')) {
    SIROCCO_CHAT_ASSIGN_OR_RETURN(spec, Spec());
  }
  if (!cursor_.Skip('}')) {
    return TemplateError(
        absl::StrCat("cannot read the replacement field at byte ", begin, " of a format string"));
  }
  return AppendFormatted(runtime_, value, spec, format_.TrustedAt(cursor_.position() - 1), &out_);
}

ValueOr BraceFormatter::Run() {
  while (!cursor_.done() && out_.ok()) {
    const size_t begin = cursor_.position();
    cursor_.Until("{}");
    out_.Append(format_, begin, cursor_.position());
    if (cursor_.done()) break;
    const char brace = cursor_.Next();
    if (cursor_.Skip(brace)) {
      out_.Append(format_, cursor_.position() - 1, cursor_.position());
      continue;
    }
    if (brace == '}') return TemplateError("single '}' encountered in format string");
    SIROCCO_CHAT_RETURN_IF_ERROR(runtime_.meter().Step());
    SIROCCO_CHAT_RETURN_IF_ERROR(Field());
  }
  return out_.Finish();
}

}  // namespace

ValueOr FormatPercent(Runtime& runtime, const Text& format, const Value& values) {
  return PercentFormatter(runtime, format, values).Run();
}

ValueOr FormatBraces(Runtime& runtime, const Text& format, const CallArgs& args) {
  return BraceFormatter(runtime, format, args).Run();
}

}  // namespace sirocco::jinja
