// The chats of the tokenizers' goldens and of a real pretrained model.
#include <gtest/gtest.h>

#include <string>

#include "engine/chat/chat_template.h"
#include "tests/engine/chat/chat_testing.h"

namespace sirocco {
namespace {

std::string StringOr(const OrderedJson& config, const char* key) {
  const auto found = config.find(key);
  return found != config.end() && found->is_string() ? found->get<std::string>() : "";
}

class TokenizerChatTest : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerChatTest, RendersAsTransformersDoes) {
  const std::string folder = std::string("tokenizers/") + GetParam();
  const OrderedJson config = OrderedJson::parse(ReadGolden(folder + "/tokenizer_config.json"));
  const auto chat_template =
      ChatTemplate::Parse(config["chat_template"].get<std::string>(), StringOr(config, "bos_token"),
                          StringOr(config, "eos_token"));
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  for (const OrderedJson& test_case : ReadGoldenLines(folder + "/chat.jsonl")) {
    SCOPED_TRACE(test_case["id"].dump());
    const auto rendered = (*chat_template)->Render(InputOf(test_case));
    if (test_case.contains("error")) {
      EXPECT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument);
    } else {
      ASSERT_TRUE(rendered.ok()) << rendered.status();
      EXPECT_EQ(rendered->text, test_case["text"].get<std::string>());
      EXPECT_EQ(rendered->trusted.size(), rendered->text.size());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Styles, TokenizerChatTest,
                         testing::Values("digits_style", "gemma_style", "llama2_style",
                                         "llama3_style", "qwen2_style"));

// The template in the metadata of SmolLM2-135M-Instruct (Apache-2.0; tests/goldens/smollm2).
constexpr char kSmolLm2Template[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
    "Face<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\\n' }}{% endif %}";

TEST(SmolLm2ChatTest, RendersAsTheReference) {
  const auto chat_template = ChatTemplate::Parse(kSmolLm2Template, "<|im_start|>", "<|im_end|>");
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  int chats = 0;
  for (const OrderedJson& test_case : ReadGoldenLines("smollm2/cases.jsonl")) {
    if (!test_case.contains("rendered")) continue;
    ++chats;
    const auto rendered = (*chat_template)->Render(InputOf(test_case));
    ASSERT_TRUE(rendered.ok()) << rendered.status();
    EXPECT_EQ(rendered->text, test_case["rendered"].get<std::string>());
  }
  EXPECT_GE(chats, 2);
}

}  // namespace
}  // namespace sirocco
