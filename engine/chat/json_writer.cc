#include "engine/chat/json_writer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/chat/operators.h"
#include "engine/chat/print.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/unicode.h"

namespace sirocco::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonOptions& options, bool trusted)
      : runtime_(runtime), options_(options), trusted_(trusted), out_(runtime) {}

  absl::Status Write(const Value& value, int32_t level);
  ValueOr Finish() { return out_.Finish(); }

 private:
  void Put(std::string_view bytes) { out_.Append(bytes, trusted_); }
  // A new line at `level`, where there is an indent at all.
  void Break(int32_t level);
  void Separate(bool first, int32_t level);
  absl::Status WriteString(std::string_view text);
  absl::Status WriteArray(const std::vector<Value>& items, int32_t level);
  absl::Status WriteObject(const DictObject& dict, int32_t level);
  absl::StatusOr<std::string> Key(const Value& key);
  void PutEscaped(const Character& character, std::string_view bytes);

  Runtime& runtime_;
  const JsonOptions& options_;
  const bool trusted_;
  TextBuilder out_;
};

std::string FloatJson(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return FloatRepr(value);
}

std::string UnicodeEscape(uint32_t unit) {
  std::array<char, 8> buffer;
  std::snprintf(buffer.data(), buffer.size(), "\\u%04x", unit);
  return buffer.data();
}

void JsonWriter::Break(int32_t level) {
  if (!options_.indent.has_value()) return;
  Put("\n");
  for (int32_t i = 0; i < level && out_.ok(); ++i) Put(*options_.indent);
}

void JsonWriter::Separate(bool first, int32_t level) {
  if (!first) Put(options_.item_separator);
  Break(level);
}

void JsonWriter::PutEscaped(const Character& character, std::string_view bytes) {
  switch (character.code) {
    case '"':
      return Put("\\\"");
    case '\\':
      return Put("\\\\");
    case '\n':
      return Put("\\n");
    case '\r':
      return Put("\\r");
    case '\t':
      return Put("\\t");
    case '\f':
      return Put("\\f");
    case '\b':
      return Put("\\b");
    default:
      break;
  }
  const auto code = static_cast<uint32_t>(character.code);
  if (code < 0x20) return Put(UnicodeEscape(code));
  if (!options_.ensure_ascii || code < 0x7F || code == 0x7F) return Put(bytes);
  if (code < 0x10000) return Put(UnicodeEscape(code));
  Put(UnicodeEscape(0xD800 + ((code - 0x10000) >> 10)));
  Put(UnicodeEscape(0xDC00 + ((code - 0x10000) & 0x3FF)));
}

absl::Status JsonWriter::WriteString(std::string_view text) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime_.meter().StepCharacters(text.size()));
  Put("\"");
  for (size_t offset = 0; offset < text.size() && out_.ok();) {
    const Character character = CharacterAt(text, offset);
    PutEscaped(character, text.substr(offset, character.size));
    offset += character.size;
  }
  Put("\"");
  return absl::OkStatus();
}

absl::Status JsonWriter::WriteArray(const std::vector<Value>& items, int32_t level) {
  Put("[");
  for (size_t i = 0; i < items.size(); ++i) {
    Separate(i == 0, level + 1);
    SIROCCO_CHAT_RETURN_IF_ERROR(Write(items[i], level + 1));
  }
  if (!items.empty()) Break(level);
  Put("]");
  return absl::OkStatus();
}

absl::StatusOr<std::string> JsonWriter::Key(const Value& key) {
  switch (key.kind()) {
    case Kind::kString:
      return std::string(key.bytes());
    case Kind::kBool:
      return std::string(key.boolean() ? "true" : "false");
    case Kind::kInt:
      return absl::StrCat(key.integer());
    case Kind::kFloat:
      return FloatJson(key.real());
    default:  // all other keys a dict can have
      return std::string("null");
  }
}

absl::Status JsonWriter::WriteObject(const DictObject& dict, int32_t level) {
  std::vector<const DictObject::Entry*> entries;
  entries.reserve(dict.entries.size());
  for (const auto& entry : dict.entries) entries.push_back(&entry);
  if (options_.sort_keys) {
    absl::Status status;
    std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
      const absl::StatusOr<bool> less =
          status.ok() ? Less(runtime_, a->first, b->first) : absl::StatusOr<bool>(false);
      if (!less.ok()) status = less.status();
      return less.ok() && *less;
    });
    SIROCCO_CHAT_RETURN_IF_ERROR(status);
  }
  Put("{");
  for (size_t i = 0; i < entries.size(); ++i) {
    Separate(i == 0, level + 1);
    SIROCCO_CHAT_ASSIGN_OR_RETURN(const std::string key, Key(entries[i]->first));
    SIROCCO_CHAT_RETURN_IF_ERROR(WriteString(key));
    Put(options_.key_separator);
    SIROCCO_CHAT_RETURN_IF_ERROR(Write(entries[i]->second, level + 1));
  }
  if (!entries.empty()) Break(level);
  Put("}");
  return absl::OkStatus();
}

absl::Status JsonWriter::Write(const Value& value, int32_t level) {
  SIROCCO_CHAT_RETURN_IF_ERROR(runtime_.meter().Step());
  switch (value.kind()) {
    case Kind::kNone:
      Put("null");
      break;
    case Kind::kBool:
      Put(value.boolean() ? "true" : "false");
      break;
    case Kind::kInt:
      Put(absl::StrCat(value.integer()));
      break;
    case Kind::kFloat:
      Put(FloatJson(value.real()));
      break;
    case Kind::kString:
      return WriteString(value.bytes());
    case Kind::kList:
    case Kind::kTuple:
      return WriteArray(value.items(), level);
    case Kind::kDict:
      return WriteObject(value.dict(), level);
    default:
      return TemplateError(absl::StrCat("Object of type ", std::string(TypeName(value)),
                                        " is not JSON serializable"));
  }
  return absl::OkStatus();
}

}  // namespace

ValueOr ToJson(Runtime& runtime, const Value& value, const JsonOptions& options) {
  JsonWriter writer(runtime, options, value.trusted());
  SIROCCO_CHAT_RETURN_IF_ERROR(writer.Write(value, 0));
  return writer.Finish();
}

}  // namespace sirocco::jinja
