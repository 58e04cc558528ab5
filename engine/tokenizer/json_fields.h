// Reading the objects of a tokenizer's JSON files: every field is checked before it is believed,
// and a field that nobody reads is an error.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sirocco {

// `where` is the object's place in its file ("pre_tokenizer.pretokenizers[1]"), for messages.

// INVALID_ARGUMENT: not an object. UNIMPLEMENTED: a field that is not among `known`.
absl::Status CheckFields(const nlohmann::json& object, const std::string& where,
                         std::initializer_list<std::string_view> known);

// nullptr: there is none, or it is null, or `object` is no object.
const nlohmann::json* Field(const nlohmann::json& object, const char* name);

absl::StatusOr<bool> BoolField(const nlohmann::json& object, const char* name, bool missing,
                               const std::string& where);
// Empty where missing or null.
absl::StatusOr<std::string> StringField(const nlohmann::json& object, const char* name,
                                        const std::string& where);
// The elements of an array field, which must be there.
absl::StatusOr<const nlohmann::json*> ArrayField(const nlohmann::json& object, const char* name,
                                                 const std::string& where);
// An id of a vocabulary.
absl::StatusOr<int32_t> TokenId(const nlohmann::json* value, const std::string& where);

absl::Status Malformed(const std::string& where, std::string_view what);
absl::Status Unsupported(const std::string& where, std::string_view what,
                         std::string_view supported);

// `status` with its place in front.
absl::Status At(const std::string& where, const absl::Status& status);

}  // namespace sirocco
