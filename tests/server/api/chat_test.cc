#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "server/api/methods.h"
#include "server/api/prompt.h"
#include "tests/server/testing/fakes.h"

namespace sirocco {
namespace {

v1::Chat FromText(const std::string& text) {
  v1::Chat chat;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &chat)) << text;
  return chat;
}

TEST(ToChatInput, KeepsAllThatWasSaid) {
  const auto input = ToChatInput(FromText(R"pb(
    messages { role: 'system' content: 's' }
    messages { role: 'assistant' extra_json: '{"z":[1,2],"a":{"n":12345678901234567}}' }
    messages { role: 'tool' content: 't' extra_json: '{"name":"f"}' }
    add_generation_prompt: false
    template_kwargs_json: '{"enable_thinking":false}'
    tools_json: '[{"type":"function"}]'
    documents_json: '[]')pb"));
  ASSERT_TRUE(input.ok()) << input.status();
  EXPECT_EQ(input->messages.dump(),
            R"([{"role":"system","content":"s"},)"
            R"({"role":"assistant","content":"","z":[1,2],"a":{"n":12345678901234567}},)"
            R"({"role":"tool","content":"t","name":"f"}])");
  EXPECT_FALSE(input->add_generation_prompt);
  EXPECT_EQ(input->kwargs.dump(), R"({"enable_thinking":false})");
  EXPECT_EQ(input->tools->dump(), R"([{"type":"function"}])");
  EXPECT_EQ(input->documents->dump(), "[]");
}

TEST(ToChatInput, Defaults) {
  const auto input = ToChatInput(FromText("messages { role: 'developer' }"));
  ASSERT_TRUE(input.ok()) << input.status();
  EXPECT_TRUE(input->add_generation_prompt);
  EXPECT_TRUE(input->kwargs.empty());
  EXPECT_FALSE(input->tools.has_value());
  EXPECT_FALSE(input->documents.has_value());
}

TEST(ToChatInput, BoundsWhatItHolds) {
  v1::Chat chat;
  for (int i = 0; i < kMaxMessages; ++i) chat.add_messages()->set_role("user");
  EXPECT_TRUE(ToChatInput(chat).ok()) << ToChatInput(chat).status();
  chat.add_messages()->set_role("user");
  EXPECT_EQ(std::string(ToChatInput(chat).status().message()),
            "chat.messages: is 32769 messages; allowed: at most 32768");

  // Each field is within the bound, together they are not.
  std::string list = "{\"a\":[0";
  for (int i = 0; i < 50'000; ++i) list += ",0";
  list += "]}";
  v1::Chat values = FromText("messages { role: 'user' } messages { role: 'tool' }");
  for (auto& message : *values.mutable_messages()) message.set_extra_json(list);
  EXPECT_TRUE(ToChatInput(values).ok()) << ToChatInput(values).status();
  values.set_template_kwargs_json(list);
  EXPECT_EQ(std::string(ToChatInput(values).status().message()),
            "chat.template_kwargs_json: holds too many values, with those of other fields; "
            "allowed: 131072");
}

// Keeps what it was given.
class ChatRecorder final : public FakeTokenizer {
 public:
  absl::StatusOr<std::vector<int32_t>> EncodeChat(const ProvenText& chat) const override {
    last = chat;
    return FakeTokenizer::EncodeChat(chat);
  }
  mutable ProvenText last;
};

class EncodeChatTest : public testing::Test {
 protected:
  // The text that a chat of one message is rendered to.
  absl::StatusOr<std::string> Render(const std::string& source, const std::string& content) {
    auto chat_template = ChatTemplate::Parse(source, "<s>", "</s>");
    EXPECT_TRUE(chat_template.ok()) << chat_template.status();
    facts_.chat_template = chat_template->get();
    v1::TokenizeRequest request;
    auto* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(content);
    const auto ids = Tokenize(request, facts_);
    if (!ids.ok()) return ids.status();
    return std::string(ids->token_ids().begin(), ids->token_ids().end());
  }

  ChatRecorder tokenizer_;
  ModelFacts facts_ = FakeFacts(&tokenizer_);
};

TEST_F(EncodeChatTest, Renders) {
  const auto text = Render("{{ bos_token }}{{ messages[0]['content'] }}", "hi");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "<s>hi");
}

TEST_F(EncodeChatTest, TheAnswerBeginsBehindThePrompt) {
  auto chat_template = ChatTemplate::Parse(
      "{{ messages[0]['content'] }}{% if add_generation_prompt %}<a>{% endif %}", "<s>", "</s>");
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  facts_.chat_template = chat_template->get();
  v1::GenerateRequest request;
  auto* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("hi");
  request.set_answer_prefix("</s>Sure");
  const auto ids = PromptIds(request, facts_);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(std::string(ids->begin(), ids->end()), "hi<a></s>Sure");
  EXPECT_EQ(tokenizer_.last.text, "hi<a></s>Sure");
  // What the client writes is never trusted, the template's own text is.
  const std::vector<bool> trusted = tokenizer_.last.trusted;
  EXPECT_EQ(std::vector<bool>(trusted.begin(), trusted.begin() + 5),
            (std::vector<bool>{false, false, true, true, true}));
  EXPECT_EQ(std::vector<bool>(trusted.begin() + 5, trusted.end()), std::vector<bool>(8, false));
}

TEST_F(EncodeChatTest, WhatATemplateRaisesIsTheClientsFault) {
  const auto text = Render("{{ raise_exception('roles must alternate') }}", "hi");
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(text.status().message().find("roles must alternate"), absl::string_view::npos);
  EXPECT_EQ(text.status().message().find("chat: "), 0u);
}

TEST_F(EncodeChatTest, ALimitOfRenderingIsInvalidToo) {
  const auto text = Render(
      "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}", "hi");
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << text.status();
}

}  // namespace
}  // namespace sirocco
