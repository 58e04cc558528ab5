// A GenerateRequest on the wire: parsed, checked, tokenised.
#include <memory>

#include "engine/chat/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/api/parse.h"
#include "server/api/to_request.h"
#include "tests/fuzz/fuzz.h"
#include "tests/testing/paths.h"

namespace {

// A model without weights.
struct Model {
  std::unique_ptr<sirocco::Tokenizer> tokenizer;
  std::unique_ptr<sirocco::ChatTemplate> chat_template;
  sirocco::ModelFacts facts;
};

const Model& TheModel() {
  static const Model& model = *[] {
    auto* made = new Model;
    auto tokenizer =
        sirocco::OpenTokenizer(sirocco::GoldenPath("tokenizers/digits_style/tokenizer.json"));
    sirocco::Require(tokenizer.ok(), "the golden tokenizer opens");
    made->tokenizer = *std::move(tokenizer);
    auto chat = sirocco::ChatTemplate::Parse(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
        "{% endfor %}{{ tools | tojson if tools }}{{ documents | length if documents }}",
        "<s>", "</s>");
    sirocco::Require(chat.ok(), "the template parses");
    made->chat_template = *std::move(chat);
    made->facts.name = "model";
    made->facts.max_length = 512;
    made->facts.max_batch_size = 8;
    made->facts.vocab_size = made->tokenizer->vocab_size();
    made->facts.tokenizer = made->tokenizer.get();
    made->facts.chat_template = made->chat_template.get();
    return made;
  }();
  return model;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sirocco;
  const ModelFacts& facts = TheModel().facts;
  v1::GenerateRequest message;
  if (!ParseMessage(AsText(data, size), message).ok()) return 0;
  const auto request = ToRequest(message, facts);
  if (!request.ok()) return 0;
  Require(request->n >= 1 && request->n <= facts.max_batch_size, "n");
  Require(!request->prompt.empty(), "a prompt");
  Require(request->prompt.size() + static_cast<size_t>(request->max_new_tokens) <=
              static_cast<size_t>(facts.max_length),
          "it fits into max_length");
  for (const int32_t id : request->prompt) Require(id >= 0 && id < facts.vocab_size, "ids");
  return 0;
}
