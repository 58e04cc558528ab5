#include "server/api/methods.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "server/api/errors.h"
#include "server/api/prompt.h"
#include "server/api/version.h"

namespace sirocco {
namespace {

// A few bytes of a request can stand for a long token each.
constexpr size_t kMaxDetokenizedBytes = 64u << 20;

}  // namespace

v1::Model ToModel(const ModelFacts& model) {
  v1::Model out;
  out.set_name(model.name);
  out.set_architecture(model.architecture);
  out.set_max_length(model.max_length);
  out.set_max_batch_size(model.max_batch_size);
  out.set_vocab_size(model.vocab_size);
  out.set_dtype(model.dtype);
  out.set_backend(model.backend);
  out.set_device(model.device);
  out.set_mode(std::string(NameOf(model.mode)));
  out.mutable_end_token_ids()->Add(model.end_token_ids.begin(), model.end_token_ids.end());
  out.set_has_tokenizer(model.tokenizer != nullptr);
  out.set_has_chat_template(model.chat_template != nullptr);
  out.set_version(kVersion);
  out.set_parameter_count(model.parameter_count);
  return out;
}

absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                              const ModelFacts& model) {
  absl::StatusOr<std::vector<int32_t>> ids;
  switch (request.input_case()) {
    case v1::TokenizeRequest::kText: {
      TokenizerOptions options;
      if (request.has_add_special_tokens()) {
        options.add_special_tokens = request.add_special_tokens();
      }
      options.parse_special_tokens = request.parse_special_tokens();
      ids = EncodeText("text", request.text(), options, model);
      break;
    }
    case v1::TokenizeRequest::kChat: {
      auto chat = ToChatInput(request.chat());
      if (!chat.ok()) return chat.status();
      ids = EncodeChat(*chat, /*answer_prefix=*/"", model);
      break;
    }
    case v1::TokenizeRequest::INPUT_NOT_SET:
      return InvalidField("input", "unset", "one of text, chat");
  }
  if (!ids.ok()) return ids.status();
  v1::TokenizeResponse out;
  out.mutable_token_ids()->Add(ids->begin(), ids->end());
  return out;
}

absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                  const ModelFacts& model) {
  if (auto status = NeedTokenizer("token_ids", model); !status.ok()) return status;
  auto ids = ToTokenIds("token_ids", request.token_ids(), model);
  if (!ids.ok()) return ids.status();
  size_t bytes = 0;
  for (const int32_t id : *ids) bytes += model.tokenizer->TokenBytes(id).size();
  if (bytes > kMaxDetokenizedBytes) {
    return InvalidField("token_ids", absl::StrCat("stand for ", bytes, " bytes; allowed: at most ",
                                                  kMaxDetokenizedBytes));
  }
  const bool skip = !request.has_skip_special_tokens() || request.skip_special_tokens();
  v1::DetokenizeResponse out;
  out.set_text(model.tokenizer->Decode(*ids, skip));
  return out;
}

}  // namespace sirocco
