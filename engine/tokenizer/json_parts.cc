#include "engine/tokenizer/json_parts.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/oniguruma.h"

namespace sirocco {

using nlohmann::json;

std::string TypeOf(const json& component) {
  const json* type = Field(component, "type");
  return type != nullptr && type->is_string() ? type->get<std::string>() : std::string();
}

absl::Status UnsupportedType(const json& component, const std::string& where,
                             std::string_view supported) {
  return Unsupported(where, absl::StrCat("type ", Shown(TypeOf(component))), supported);
}

std::string Element(const std::string& where, std::string_view name, size_t i) {
  return absl::StrCat(where, ".", std::string(name), "[", i, "]");
}

absl::StatusOr<AddedToken> ReadAddedToken(const json& entry, const std::string& where) {
  absl::Status status = CheckFields(
      entry, where, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  if (!status.ok()) return status;
  AddedToken token;
  absl::StatusOr<std::string> content = StringField(entry, "content", where);
  if (!content.ok()) return content.status();
  token.content = *std::move(content);
  const std::pair<const char*, bool*> flags[] = {{"single_word", &token.single_word},
                                                 {"lstrip", &token.lstrip},
                                                 {"rstrip", &token.rstrip},
                                                 {"special", &token.special},
                                                 {"normalized", &token.normalized}};
  for (const auto& [name, flag] : flags) {
    absl::StatusOr<bool> value = BoolField(entry, name, false, where);
    if (!value.ok()) return value.status();
    *flag = *value;
  }
  return token;
}

absl::Status CheckByteLevel(const json& part, const std::string& where) {
  absl::Status status =
      CheckFields(part, where, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  for (const char* name : {"add_prefix_space", "trim_offsets", "use_regex"}) {
    if (status.ok()) status = BoolField(part, name, false, where).status();
  }
  return status;
}

absl::StatusOr<Regex> CompileOniguruma(std::string_view pattern) {
  absl::StatusOr<std::string> translated = TranslateOniguruma(pattern);
  if (!translated.ok()) return translated.status();
  return Regex::Compile(*translated);
}

absl::StatusOr<Regex> ReadPattern(const json& part, const std::string& where) {
  const json* pattern = Field(part, "pattern");
  if (pattern == nullptr) return Malformed(where, "no pattern");
  absl::Status status = CheckFields(*pattern, where + ".pattern", {"Regex", "String"});
  if (!status.ok()) return status;
  const json* regex = Field(*pattern, "Regex");
  const json* literal = Field(*pattern, "String");
  const json* source = regex != nullptr ? regex : literal;
  if ((regex != nullptr) == (literal != nullptr) || !source->is_string()) {
    return Malformed(where + ".pattern", "needs one of Regex and String, with a string");
  }
  absl::StatusOr<Regex> compiled = regex != nullptr
                                       ? CompileOniguruma(regex->get<std::string>())
                                       : Regex::CompileLiteral(literal->get<std::string>());
  if (!compiled.ok()) return At(where + ".pattern", compiled.status());
  return compiled;
}

absl::StatusOr<std::string> WrittenField(const json& part, const char* name,
                                         const std::string& where) {
  absl::StatusOr<std::string> text = StringField(part, name, where);
  if (text.ok() && text->size() > kMaxWritten) {
    return Malformed(where,
                     absl::StrCat(name, " has ", text->size(), " bytes; allowed: ", kMaxWritten));
  }
  return text;
}

}  // namespace sirocco
