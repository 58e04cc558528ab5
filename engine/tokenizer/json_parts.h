// The parts of a tokenizer.json, each in a file of its own; what they share. A part is the root's
// field of its name; errors name the place and what is supported.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/json_fields.h"
#include "engine/tokenizer/pipeline.h"
#include "engine/tokenizer/regex.h"

namespace sirocco {

// After the model was read: whether its vocabulary is byte-level is the pre-tokenizer's to say.
absl::Status ReadNormalizer(const nlohmann::json& root, TokenizerParts* parts);
absl::Status ReadPreTokenizer(const nlohmann::json& root, TokenizerParts* parts);
absl::Status ReadPostProcessor(const nlohmann::json& root, TokenizerParts* parts);
absl::Status ReadDecoder(const nlohmann::json& root, TokenizerParts* parts);

// Text that a part may write in place of a character, or of a match, of a text.
inline constexpr size_t kMaxWritten = 64;
// Parts of one sequence; those in use have up to five.
inline constexpr size_t kMaxParts = 64;

std::string TypeOf(const nlohmann::json& component);
absl::Status UnsupportedType(const nlohmann::json& component, const std::string& where,
                             std::string_view supported);
std::string Element(const std::string& where, std::string_view name, size_t i);

// An added token's content and rules, without its id.
absl::StatusOr<AddedToken> ReadAddedToken(const nlohmann::json& entry, const std::string& where);
// Settings of ByteLevel, as any kind of part.
absl::Status CheckByteLevel(const nlohmann::json& part, const std::string& where);
// {"Regex": ...} or {"String": ...} under "pattern".
absl::StatusOr<Regex> ReadPattern(const nlohmann::json& part, const std::string& where);
absl::StatusOr<Regex> CompileOniguruma(std::string_view pattern);
// Metaspace, as a pre-tokenizer or as a decoder.
struct MetaspaceSettings {
  std::string mark;  // one character
  std::string prepend_scheme;
  bool split;
};
absl::StatusOr<MetaspaceSettings> ReadMetaspaceSettings(const nlohmann::json& part,
                                                        const std::string& where);
// A string field of at most kMaxWritten bytes.
absl::StatusOr<std::string> WrittenField(const nlohmann::json& part, const char* name,
                                         const std::string& where);

// A part of a file that is alone, or several in a Sequence: calls read(part, its place) for each.
// Sequences do not stand in sequences.
template <typename Read>
absl::Status ForEachPart(const nlohmann::json& component, const std::string& where,
                         const char* list, Read read) {
  if (TypeOf(component) != "Sequence") return read(component, where);
  absl::Status status = CheckFields(component, where, {"type", list});
  if (!status.ok()) return status;
  absl::StatusOr<const nlohmann::json*> parts = ArrayField(component, list, where);
  if (!parts.ok()) return parts.status();
  for (size_t i = 0; i < (*parts)->size(); ++i) {
    const std::string at = Element(where, list, i);
    if (i == kMaxParts) {
      return Malformed(at, "a part after " + std::to_string(kMaxParts) + " others");
    }
    status = read((**parts)[i], at);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace sirocco
