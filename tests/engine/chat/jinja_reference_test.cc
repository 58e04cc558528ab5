// Against what jinja2 gives for the same templates: tests/goldens/chat.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "engine/chat/chat_template.h"
#include "tests/engine/chat/chat_testing.h"

namespace sirocco {
namespace {

void ExpectAsReference(const std::string& source, const ChatInput& input,
                       const OrderedJson& reference) {
  const absl::StatusOr<ProvenText> rendered = Render(source, input);
  if (reference.contains("text")) {
    ASSERT_TRUE(rendered.ok()) << rendered.status() << "\nof " << source;
    EXPECT_EQ(rendered->text, reference["text"].get<std::string>()) << source;
    return;
  }
  ASSERT_FALSE(rendered.ok()) << source << "\ngives " << rendered->text;
  EXPECT_EQ(rendered.status().code(), absl::StatusCode::kInvalidArgument) << rendered.status();
  const std::string error = reference["error"].get<std::string>();
  const std::string raised = "TemplateError: ";
  if (error.compare(0, raised.size(), raised) == 0) {
    EXPECT_EQ(std::string(rendered.status().message()), error.substr(raised.size()));
  }
}

TEST(JinjaReferenceTest, Expressions) {
  const auto lines = ReadGoldenLines("chat/expressions.jsonl");
  ASSERT_GT(lines.size(), 300u);
  const ChatInput input = InputOf(lines[0]);
  for (size_t i = 1; i < lines.size(); ++i) {
    ExpectAsReference(lines[i]["template"].get<std::string>(), input, lines[i]);
  }
}

TEST(JinjaReferenceTest, TemplatesOfTheStylesInUse) {
  const OrderedJson conversations = OrderedJson::parse(ReadGolden("chat/conversations.json"));
  std::map<std::string, std::string> templates;
  for (const OrderedJson& reference : ReadGoldenLines("chat/rendered.jsonl")) {
    const std::string name = reference["template"].get<std::string>();
    const std::string conversation = reference["conversation"].get<std::string>();
    SCOPED_TRACE(name + ", " + conversation);
    const auto [found, added] = templates.try_emplace(name);
    if (added) found->second = ReadGolden("chat/templates/" + name);
    ExpectAsReference(found->second, InputOf(conversations[conversation]), reference);
  }
  EXPECT_GE(templates.size(), 25u);
}

}  // namespace
}  // namespace sirocco
