// The interface: variables, keyword arguments, JSON values, the clock.
#include "engine/chat/chat_template.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include <chrono>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/chat/chat_testing.h"

namespace sirocco {
namespace {

TEST(ChatTemplateTest, AbsentVariables) {
  EXPECT_EQ(RenderedText("{{ tools is none }}{{ documents is none }}{{ messages | length }}"),
            "TrueTrue0");
  const auto chat_template =
      ChatTemplate::Parse("{{ bos_token is defined }}{{ eos_token }}", "", "");
  ASSERT_TRUE(chat_template.ok());
  EXPECT_EQ((*chat_template)->Render({})->text, "False");
}

TEST(ChatTemplateTest, KwargsAreVariables) {
  ChatInput input;
  input.kwargs = {{"enable_thinking", false}, {"range", "shadowed"}};
  EXPECT_EQ(RenderedText("{{ enable_thinking is false }} {{ range }}", input), "True shadowed");
}

TEST(ChatTemplateTest, KwargsDoNotReplaceTheChat) {
  for (const char* name : {"messages", "tools", "documents", "add_generation_prompt"}) {
    ChatInput input;
    input.kwargs = {{name, true}};
    const auto rendered = Render("x", input);
    EXPECT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(rendered.status().message().find(name), absl::string_view::npos);
  }
  ChatInput input;
  input.kwargs = OrderedJson::array();
  EXPECT_EQ(Render("x", input).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplateTest, JsonKeepsOrderAndNumbers) {
  ChatInput input;
  input.tools = OrderedJson::parse(
      R"([{"z": 1, "a": -9223372036854775808, "m": 9223372036854775807, "f": 1.0, "e": 1e-7}])");
  EXPECT_EQ(
      RenderedText("{{ tools[0] | tojson }}", input),
      R"({"z": 1, "a": -9223372036854775808, "m": 9223372036854775807, "f": 1.0, "e": 1e-07})");
}

TEST(ChatTemplateTest, IntegersBeyond64BitsAreRefused) {
  ChatInput input;
  input.messages = OrderedJson::array({{{"n", std::numeric_limits<uint64_t>::max()}}});
  EXPECT_EQ(RenderedText("{{ messages }}", input),
            "error: messages holds the integer 18446744073709551615; chat templates take integers "
            "up to 9223372036854775807");
}

TEST(ChatTemplateTest, InvalidUtf8IsRefused) {
  ChatInput input;
  input.messages = OrderedJson::array({{{"content", "a\xFFz"}}});
  EXPECT_EQ(RenderedText("{{ messages }}", input), "error: messages holds invalid UTF-8");
  ChatInput key;
  key.kwargs = {{"k", {{"\xC3", 1}}}};
  EXPECT_EQ(RenderedText("{{ k }}", key), "error: k holds invalid UTF-8");
}

class ClockTest : public testing::Test {
 protected:
  void SetUp() override {
    setenv("TZ", "UTC", 1);
    tzset();
    // 2024-07-09 05:03:01.000042
    input_.now = std::chrono::system_clock::from_time_t(1720501381) + std::chrono::microseconds(42);
  }
  ChatInput input_;
};

TEST_F(ClockTest, StrftimeNow) {
  EXPECT_EQ(RenderedText("{{ strftime_now('%d %b %Y') }}", input_), "09 Jul 2024");
  EXPECT_EQ(RenderedText("{{ strftime_now('%Y-%m-%d %H:%M:%S.%f %A %j %%') }}", input_),
            "2024-07-09 05:03:01.000042 Tuesday 191 %");
  EXPECT_EQ(RenderedText("{{ strftime_now('%-d/%-m, %B') }}", input_), "9/7, July");
  // A time without a zone.
  EXPECT_EQ(RenderedText("[{{ strftime_now('%z%Z') }}]", input_), "[]");
}

TEST_F(ClockTest, OddFormatsStayAsTheyAre) {
  EXPECT_EQ(RenderedText("{{ strftime_now('%é %100d %') }}", input_), "%é %100d %");
  EXPECT_EQ(RenderedText("{{ strftime_now('') }}", input_), "");
  EXPECT_EQ(RenderedText("{{ strftime_now(5) }}", input_),
            "error: chat template line 1: argument 'format' must be a str, not 'int'");
}

TEST_F(ClockTest, WithoutAClockItIsNow) {
  const std::string year = RenderedText("{{ strftime_now('%Y') }}");
  EXPECT_GE(std::stoi(year), 2024);
}

TEST(ChatTemplateTest, OneTemplateServesManyThreads) {
  const auto chat_template = ChatTemplate::Parse(
      "{% for m in messages %}{{ '<' + m.content | upper + '>' }}{% endfor %}", "", "");
  ASSERT_TRUE(chat_template.ok());
  std::vector<std::thread> threads;
  std::vector<std::string> texts(4);
  for (size_t t = 0; t < texts.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        ChatInput input;
        input.messages = OrderedJson::array({{{"content", "c" + std::to_string(t)}}});
        texts[t] = (*chat_template)->Render(input)->text;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(texts, (std::vector<std::string>{"<C0>", "<C1>", "<C2>", "<C3>"}));
}

}  // namespace
}  // namespace sirocco
