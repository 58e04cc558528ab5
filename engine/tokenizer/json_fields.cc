#include "engine/tokenizer/json_fields.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/tokenizer/pipeline.h"

namespace sirocco {

using nlohmann::json;

absl::Status Malformed(const std::string& where, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", std::string(what)));
}

absl::Status Unsupported(const std::string& where, std::string_view what,
                         std::string_view supported) {
  return absl::UnimplementedError(absl::StrCat(
      where, ": ", std::string(what), " is not supported; supported: ", std::string(supported)));
}

absl::Status CheckFields(const json& object, const std::string& where,
                         std::initializer_list<std::string_view> known) {
  if (!object.is_object()) return Malformed(where, "not an object");
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    std::string supported;
    for (std::string_view field : known) {
      absl::StrAppend(&supported, supported.empty() ? "" : ", ", std::string(field));
    }
    return Unsupported(where, absl::StrCat("field ", Shown(name)), supported);
  }
  return absl::OkStatus();
}

const json* Field(const json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<bool> BoolField(const json& object, const char* name, bool missing,
                               const std::string& where) {
  const json* value = Field(object, name);
  if (value == nullptr) return missing;
  if (!value->is_boolean())
    return Malformed(where, absl::StrCat(name, " is neither true nor false"));
  return value->get<bool>();
}

absl::StatusOr<std::string> StringField(const json& object, const char* name,
                                        const std::string& where) {
  const json* value = Field(object, name);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return Malformed(where, absl::StrCat(name, " is no string"));
  return value->get<std::string>();
}

absl::StatusOr<const json*> ArrayField(const json& object, const char* name,
                                       const std::string& where) {
  const json* value = Field(object, name);
  if (value == nullptr || !value->is_array()) {
    return Malformed(where, absl::StrCat(name, " is no array"));
  }
  return value;
}

absl::StatusOr<int32_t> TokenId(const json* value, const std::string& where) {
  if (value == nullptr || !value->is_number_integer()) return Malformed(where, "no token id");
  // Beyond int64 an unsigned number would turn negative, which is refused as well.
  const auto id = value->get<int64_t>();
  if (id < 0 || id >= kMaxVocabularySize) {
    return Malformed(where,
                     absl::StrCat("id ", id, " is out of range: 0 to ", kMaxVocabularySize - 1));
  }
  return static_cast<int32_t>(id);
}

absl::Status At(const std::string& where, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(where, ": ", std::string(status.message())));
}

}  // namespace sirocco
