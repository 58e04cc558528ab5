#include "engine/tokenizer/tokenizer_config.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/model/file_error.h"
#include "engine/model/json_file.h"
#include "engine/model/mapped_file.h"
#include "engine/tokenizer/json_fields.h"
#include "engine/tokenizer/utf8.h"

namespace sirocco {
namespace {

using nlohmann::json;

constexpr size_t kMaxBytes = 32u << 20;

// A token is a string, or an object with its content. The first file that has the key decides, also
// with null: none.
absl::Status ReadToken(const json& config, const json& map, const char* name,
                       const std::string& folder, std::string* token) {
  const bool in_config = config.contains(name);
  const json* value = Field(in_config ? config : map, name);
  if (value != nullptr && value->is_object()) value = Field(*value, "content");
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_string()) {
    return InvalidFile(
        absl::StrCat(folder, in_config ? "/tokenizer_config.json" : "/special_tokens_map.json"),
        absl::StrCat(name, " is neither a string nor an object with its content"));
  }
  *token = value->get<std::string>();
  return absl::OkStatus();
}

// A template, or several by name, of which "default" is for chats.
absl::Status ReadConfigTemplate(const json& config, const std::string& path,
                                std::optional<std::string>* chat_template) {
  const json* value = Field(config, "chat_template");
  if (value == nullptr) return absl::OkStatus();
  if (value->is_string()) {
    *chat_template = value->get<std::string>();
    return absl::OkStatus();
  }
  if (!value->is_array()) return InvalidFile(path, "chat_template is neither a string nor a list");
  for (const json& entry : *value) {
    const json* name = Field(entry, "name");
    const json* source = Field(entry, "template");
    if (name == nullptr || source == nullptr || !name->is_string() || !source->is_string()) {
      return InvalidFile(path, "an entry of chat_template lacks its name or its template");
    }
    if (*name == "default") *chat_template = source->get<std::string>();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<json> ReadConfigObject(const std::string& path) {
  return IsPresent(path) ? ReadJsonObject(path, kMaxBytes) : json::object();
}

absl::Status ReadTokenizerConfig(const std::string& folder, TokenizerParts* parts) {
  const std::string config_path = folder + "/tokenizer_config.json";
  const std::string template_path = folder + "/chat_template.jinja";
  absl::StatusOr<json> config = ReadConfigObject(config_path);
  if (!config.ok()) return config.status();
  absl::StatusOr<json> map = ReadConfigObject(folder + "/special_tokens_map.json");
  if (!map.ok()) return map.status();
  absl::Status status = ReadToken(*config, *map, "bos_token", folder, &parts->bos_token);
  if (status.ok()) status = ReadToken(*config, *map, "eos_token", folder, &parts->eos_token);
  if (status.ok()) status = ReadConfigTemplate(*config, config_path, &parts->chat_template);
  if (!status.ok()) return status;
  // A template in a file of its own is the newer way, and stands above the other.
  if (!IsPresent(template_path)) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(template_path);
  if (!file.ok()) return file.status();
  const std::string_view text = (*file)->text();
  if (text.size() > kMaxBytes) {
    return InvalidFile(template_path,
                       absl::StrCat("has ", text.size(), " bytes; allowed: ", kMaxBytes));
  }
  if (FindInvalidUtf8(text) != text.size()) return InvalidFile(template_path, "not UTF-8");
  parts->chat_template = std::string(text);
  return absl::OkStatus();
}

}  // namespace sirocco
