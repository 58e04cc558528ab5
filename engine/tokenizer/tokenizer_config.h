// What stands beside a tokenizer.json: tokenizer_config.json, chat_template.jinja and
// special_tokens_map.json. Of these only the names of bos and eos and the chat template are asked:
// how text becomes ids is tokenizer.json's to say.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/pipeline.h"

namespace sirocco {

// Sets bos_token, eos_token and chat_template from what is found in `folder`. Files that are
// missing are no error; errors name the file.
absl::Status ReadTokenizerConfig(const std::string& folder, TokenizerParts* parts);

// An object of a file beside a tokenizer; empty where there is no such file.
absl::StatusOr<nlohmann::json> ReadConfigObject(const std::string& path);

}  // namespace sirocco
