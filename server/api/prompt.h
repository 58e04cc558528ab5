// What a request gives the model to read, as token ids.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/model/served_model.h"
#include "sirocco/v1/inference.pb.h"

namespace sirocco {

inline constexpr int kMaxMessages = 32768;  // of a chat

// A chat as templates see it. INVALID_ARGUMENT names the field, "chat.messages[1].role" say.
absl::StatusOr<ChatInput> ToChatInput(const v1::Chat& chat);

// Rendered by the model's template and tokenised, as one text with the beginning of the answer,
// which is text as contents are. FAILED_PRECONDITION: no tokenizer or template. INVALID_ARGUMENT:
// what the template says of its input, or a limit of rendering it reached.
absl::StatusOr<std::vector<int32_t>> EncodeChat(const ChatInput& chat,
                                                std::string_view answer_prefix,
                                                const ModelFacts& model);

// FAILED_PRECONDITION: no tokenizer.
absl::StatusOr<std::vector<int32_t>> EncodeText(std::string_view field, std::string_view text,
                                                const TokenizerOptions& options,
                                                const ModelFacts& model);

// FAILED_PRECONDITION that names `field` where the model has no tokenizer.
absl::Status NeedTokenizer(std::string_view field, const ModelFacts& model);

// Checked against the vocabulary: INVALID_ARGUMENT names the element.
absl::StatusOr<std::vector<int32_t>> ToTokenIds(
    std::string_view field, const google::protobuf::RepeatedField<uint32_t>& ids,
    const ModelFacts& model);

// The ids of `prompt` or `chat` with `answer_prefix` behind it, or `prompt_token_ids`; never empty.
// INVALID_ARGUMENT: an answer_prefix behind ids, which are not to be tokenised anew.
absl::StatusOr<std::vector<int32_t>> PromptIds(const v1::GenerateRequest& request,
                                               const ModelFacts& model);

// The beginning of what was asked, for the log: the text, the ids, or each message as "role: text".
// At most kMaxLoggedPromptBytes, and "..." where it is cut.
inline constexpr size_t kMaxLoggedPromptBytes = 4096;
std::string PromptForLog(const v1::GenerateRequest& request);

// The set field's name: "prompt", "prompt_token_ids" or "chat".
std::string_view InputField(const v1::GenerateRequest& request);

}  // namespace sirocco
