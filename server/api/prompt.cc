#include "server/api/prompt.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"
#include "server/api/json.h"

namespace sirocco {
namespace {

constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                    "tool"};
// Variables of a template that have fields of their own.
constexpr std::array<std::string_view, 4> kOwnVariables = {"messages", "add_generation_prompt",
                                                           "tools", "documents"};

absl::StatusOr<OrderedJson> ToMessage(const v1::ChatMessage& message, const std::string& path,
                                      int64_t& values_left) {
  if (std::find(kRoles.begin(), kRoles.end(), message.role()) == kRoles.end()) {
    return InvalidField(path + ".role", Quoted(message.role()),
                        "system, developer, user, assistant, tool");
  }
  OrderedJson out = OrderedJson::object();
  out["role"] = message.role();
  out["content"] = message.content();
  if (message.extra_json().empty()) return out;
  const std::string field = path + ".extra_json";
  auto extra = ParseJsonField(field, message.extra_json(), JsonKind::kObject, values_left);
  if (!extra.ok()) return extra.status();
  for (auto& [key, value] : extra->items()) {
    if (key == "role" || key == "content") {
      return InvalidField(field, "has the key " + Quoted(key),
                          "keys that have no field of their own");
    }
    out[key] = std::move(value);
  }
  return out;
}

}  // namespace

absl::StatusOr<ChatInput> ToChatInput(const v1::Chat& chat) {
  if (chat.messages().empty()) {
    return InvalidField("chat.messages", "empty", "at least one message");
  }
  if (chat.messages_size() > kMaxMessages) {
    return InvalidField("chat.messages", absl::StrCat(chat.messages_size(), " messages"),
                        absl::StrCat("at most ", kMaxMessages));
  }
  ChatInput input;
  int64_t values_left = kMaxFieldValues;
  for (int i = 0; i < chat.messages_size(); ++i) {
    auto message = ToMessage(chat.messages(i), absl::StrCat("chat.messages[", i, "]"), values_left);
    if (!message.ok()) return message.status();
    input.messages.push_back(*std::move(message));
  }
  if (chat.has_add_generation_prompt()) {
    input.add_generation_prompt = chat.add_generation_prompt();
  }
  if (!chat.template_kwargs_json().empty()) {
    auto kwargs = ParseJsonField("chat.template_kwargs_json", chat.template_kwargs_json(),
                                 JsonKind::kObject, values_left);
    if (!kwargs.ok()) return kwargs.status();
    for (const std::string_view name : kOwnVariables) {
      if (kwargs->contains(std::string(name))) {
        return InvalidField("chat.template_kwargs_json", "has the key " + Quoted(name),
                            "keys that have no field of their own");
      }
    }
    input.kwargs = *std::move(kwargs);
  }
  if (!chat.tools_json().empty()) {
    auto tools =
        ParseJsonField("chat.tools_json", chat.tools_json(), JsonKind::kArray, values_left);
    if (!tools.ok()) return tools.status();
    input.tools = *std::move(tools);
  }
  if (!chat.documents_json().empty()) {
    auto documents =
        ParseJsonField("chat.documents_json", chat.documents_json(), JsonKind::kArray, values_left);
    if (!documents.ok()) return documents.status();
    input.documents = *std::move(documents);
  }
  return input;
}

absl::Status NeedTokenizer(std::string_view field, const ModelFacts& model) {
  if (model.tokenizer != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(std::string(field), ": the model ", model.name, " has no tokenizer"));
}

absl::StatusOr<std::vector<int32_t>> EncodeChat(const ChatInput& chat,
                                                std::string_view answer_prefix,
                                                const ModelFacts& model) {
  if (absl::Status status = NeedTokenizer("chat", model); !status.ok()) return status;
  if (model.chat_template == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("chat: the model ", model.name, " has no chat template"));
  }
  auto text = model.chat_template->Render(chat);
  if (!text.ok()) {
    // Also where a limit was reached: trying again would not help.
    const absl::string_view message = text.status().message();
    return InvalidField("chat", std::string_view(message.data(), message.size()));
  }
  text->text.append(answer_prefix);
  text->trusted.resize(text->text.size(), false);
  return model.tokenizer->EncodeChat(*text);
}

absl::StatusOr<std::vector<int32_t>> EncodeText(std::string_view field, std::string_view text,
                                                const TokenizerOptions& options,
                                                const ModelFacts& model) {
  if (absl::Status status = NeedTokenizer(field, model); !status.ok()) return status;
  return model.tokenizer->Encode(text, options);
}

absl::StatusOr<std::vector<int32_t>> ToTokenIds(
    std::string_view field, const google::protobuf::RepeatedField<uint32_t>& ids,
    const ModelFacts& model) {
  std::vector<int32_t> out;
  out.reserve(ids.size());
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= static_cast<uint32_t>(model.vocab_size)) {
      return InvalidField(absl::StrCat(std::string(field), "[", i, "]"), absl::StrCat(ids[i]),
                          absl::StrCat("0 ... ", model.vocab_size - 1));
    }
    out.push_back(static_cast<int32_t>(ids[i]));
  }
  return out;
}

std::string PromptForLog(const v1::GenerateRequest& request) {
  if (request.has_prompt()) {
    return Shortened(request.prompt() + request.answer_prefix(), kMaxLoggedPromptBytes);
  }
  std::string text;
  for (const uint32_t id : request.prompt_token_ids().ids()) {
    if (text.size() > kMaxLoggedPromptBytes) break;
    absl::StrAppend(&text, text.empty() ? "" : " ", id);
  }
  for (const v1::ChatMessage& message : request.chat().messages()) {
    if (text.size() > kMaxLoggedPromptBytes) break;
    absl::StrAppend(&text, text.empty() ? "" : "\n", Shortened(message.role(), 64), ": ",
                    Shortened(message.content(), kMaxLoggedPromptBytes));
  }
  if (!request.answer_prefix().empty()) {
    absl::StrAppend(&text,
                    "\nassistant: ", Shortened(request.answer_prefix(), kMaxLoggedPromptBytes));
  }
  return Shortened(text, kMaxLoggedPromptBytes);
}

std::string_view InputField(const v1::GenerateRequest& request) {
  switch (request.input_case()) {
    case v1::GenerateRequest::kPrompt:
      return "prompt";
    case v1::GenerateRequest::kPromptTokenIds:
      return "prompt_token_ids";
    case v1::GenerateRequest::kChat:
      return "chat";
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return "input";
}

absl::StatusOr<std::vector<int32_t>> PromptIds(const v1::GenerateRequest& request,
                                               const ModelFacts& model) {
  absl::StatusOr<std::vector<int32_t>> ids;
  switch (request.input_case()) {
    case v1::GenerateRequest::kPrompt: {
      if (request.prompt().empty()) return InvalidField("prompt", "empty", "at least one byte");
      TokenizerOptions options;
      if (request.has_add_special_tokens()) {
        options.add_special_tokens = request.add_special_tokens();
      }
      options.parse_special_tokens = request.parse_special_tokens();
      options.parsed_bytes = request.prompt().size();
      ids = EncodeText("prompt", request.prompt() + request.answer_prefix(), options, model);
      break;
    }
    case v1::GenerateRequest::kPromptTokenIds:
      if (!request.answer_prefix().empty()) {
        return InvalidField("answer_prefix", "set beside prompt_token_ids",
                            "with prompt or chat (ids can hold the answer's first ones)");
      }
      ids = ToTokenIds("prompt_token_ids.ids", request.prompt_token_ids().ids(), model);
      break;
    case v1::GenerateRequest::kChat: {
      auto chat = ToChatInput(request.chat());
      if (!chat.ok()) return chat.status();
      ids = EncodeChat(*chat, request.answer_prefix(), model);
      break;
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      return InvalidField("input", "unset", "one of prompt, prompt_token_ids, chat");
  }
  if (ids.ok() && ids->empty()) {
    return InvalidField(InputField(request), "has no tokens; allowed: at least one");
  }
  return ids;
}

}  // namespace sirocco
