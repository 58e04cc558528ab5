#include "engine/chat/print.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/chat/operators.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

// The text of a container, in one provenance for all of it: that of the whole value.
class ReprWriter {
 public:
  ReprWriter(Runtime& runtime, bool trusted, TextBuilder* out)
      : runtime_(runtime), trusted_(trusted), out_(*out) {}

  absl::Status Write(const Value& value);

 private:
  void Put(std::string_view bytes) { out_.Append(bytes, trusted_); }
  absl::Status WriteString(std::string_view text);
  absl::Status WriteItems(const std::vector<Value>& items);
  absl::Status WriteDict(const DictObject& dict);
  absl::Status WriteView(const Value& value);

  Runtime& runtime_;
  const bool trusted_;
  TextBuilder& out_;
};

void AppendEscape(int32_t code, std::string* out) {
  std::array<char, 16> buffer;
  const char* format = code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x";
  std::snprintf(buffer.data(), buffer.size(), format, static_cast<unsigned>(code));
  out->append(buffer.data());
}

absl::Status ReprWriter::WriteString(std::string_view text) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime_.meter().StepCharacters(text.size()));
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  const std::string_view quote_text(&quote, 1);
  Put(quote_text);
  std::string escaped;
  for (size_t offset = 0; offset < text.size() && out_.ok();) {
    const Character character = CharacterAt(text, offset);
    escaped.clear();
    if (character.code == quote || character.code == '\\') {
      escaped = {'\\', static_cast<char>(character.code)};
    } else if (character.code == '\n') {
      escaped = "\\n";
    } else if (character.code == '\r') {
      escaped = "\\r";
    } else if (character.code == '\t') {
      escaped = "\\t";
    } else if (IsPrintable(character.code)) {
      escaped = text.substr(offset, character.size);
    } else {
      AppendEscape(character.code, &escaped);
    }
    Put(escaped);
    offset += character.size;
  }
  Put(quote_text);
  return absl::OkStatus();
}

absl::Status ReprWriter::WriteItems(const std::vector<Value>& items) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) Put(", ");
    SIROCCO_CHAT_RETURN_IF_ERROR(Write(items[i]));
  }
  return absl::OkStatus();
}

absl::Status ReprWriter::WriteDict(const DictObject& dict) {
  Put("{");
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i > 0) Put(", ");
    SIROCCO_CHAT_RETURN_IF_ERROR(Write(dict.entries[i].first));
    Put(": ");
    SIROCCO_CHAT_RETURN_IF_ERROR(Write(dict.entries[i].second));
  }
  Put("}");
  return absl::OkStatus();
}

absl::Status ReprWriter::WriteView(const Value& value) {
  SIROCCO_CHAT_ASSIGN_OR_RETURN(const SequenceRef items, Iterate(runtime_, value));
  Put(TypeName(value));
  Put("([");
  SIROCCO_CHAT_RETURN_IF_ERROR(WriteItems(items->items));
  Put("])");
  return absl::OkStatus();
}

absl::Status ReprWriter::Write(const Value& value) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime_.meter().Step());
  switch (value.kind()) {
    case Kind::kUndefined:
      Put("Undefined");
      break;
    case Kind::kNone:
      Put("None");
      break;
    case Kind::kBool:
      Put(value.boolean() ? "True" : "False");
      break;
    case Kind::kInt:
      Put(absl::StrCat(value.integer()));
      break;
    case Kind::kFloat:
      Put(FloatRepr(value.real()));
      break;
    case Kind::kString:
      return WriteString(value.bytes());
    case Kind::kList:
      Put("[");
      SIROCCO_CHAT_RETURN_IF_ERROR(WriteItems(value.items()));
      Put("]");
      break;
    case Kind::kTuple:
      Put("(");
      SIROCCO_CHAT_RETURN_IF_ERROR(WriteItems(value.items()));
      Put(value.items().size() == 1 ? ",)" : ")");
      break;
    case Kind::kDict:
      return WriteDict(value.dict());
    case Kind::kDictView:
      return WriteView(value);
    case Kind::kRange: {
      const RangeObject& range = value.range();
      Put(absl::StrCat("range(", range.start, ", ", range.stop));
      Put(range.step == 1 ? std::string(")") : absl::StrCat(", ", range.step, ")"));
      break;
    }
    default:
      Put(absl::StrCat("<", std::string(TypeName(value)), " object>"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 32> buffer;
  // The shortest digits, then Python's choice of notation.
  const auto scientific = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                        std::chars_format::scientific);
  const std::string_view text(buffer.data(), static_cast<size_t>(scientific.ptr - buffer.data()));
  const size_t e = text.find('e');
  int exponent = 0;
  const size_t digits_at = text[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(text.data() + digits_at, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  std::array<char, 64> fixed;
  const auto end =
      std::to_chars(fixed.data(), fixed.data() + fixed.size(), value, std::chars_format::fixed);
  std::string result(fixed.data(), end.ptr);
  if (result.find('.') == std::string::npos) result += ".0";
  return result;
}

absl::Status AppendStr(Runtime& runtime, const Value& value, TextBuilder* out) {
  if (value.is_string()) {
    out->Append(value.text());
    return absl::OkStatus();
  }
  if (value.is_undefined()) return absl::OkStatus();
  return ReprWriter(runtime, value.trusted(), out).Write(value);
}

absl::StatusOr<Text> StrText(Runtime& runtime, const Value& value) {
  TextBuilder builder(runtime);
  SIROCCO_CHAT_RETURN_IF_ERROR(AppendStr(runtime, value, &builder));
  return builder.FinishText();
}

ValueOr Str(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value;
  SIROCCO_CHAT_ASSIGN_OR_RETURN(Text text, StrText(runtime, value));
  return runtime.String(std::move(text));
}

ValueOr Repr(Runtime& runtime, const Value& value) {
  TextBuilder builder(runtime);
  SIROCCO_CHAT_RETURN_IF_ERROR(ReprWriter(runtime, value.trusted(), &builder).Write(value));
  return builder.Finish();
}

}  // namespace sirocco::jinja
