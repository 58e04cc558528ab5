#include "tests/engine/chat/chat_testing.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "tests/testing/paths.h"

namespace sirocco {

std::string ReadGolden(std::string_view relative) {
  std::ifstream stream(GoldenPath(relative), std::ios::binary);
  EXPECT_TRUE(stream.good()) << "cannot read tests/goldens/" << relative;
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::vector<OrderedJson> ReadGoldenLines(std::string_view relative) {
  std::vector<OrderedJson> lines;
  std::istringstream stream(ReadGolden(relative));
  for (std::string line; std::getline(stream, line);) lines.push_back(OrderedJson::parse(line));
  EXPECT_FALSE(lines.empty()) << relative;
  return lines;
}

ChatInput InputOf(const OrderedJson& test_case) {
  ChatInput input;
  input.messages = test_case.value("messages", OrderedJson::array());
  input.add_generation_prompt = test_case.value("add_generation_prompt", false);
  input.kwargs = test_case.value("kwargs", OrderedJson::object());
  if (test_case.contains("tools")) input.tools = test_case["tools"];
  if (test_case.contains("documents")) input.documents = test_case["documents"];
  return input;
}

absl::StatusOr<ProvenText> Render(std::string_view source, const ChatInput& input,
                                  const ChatLimits& limits) {
  const auto chat_template = ChatTemplate::Parse(source, "<s>", "</s>");
  if (!chat_template.ok()) return chat_template.status();
  return (*chat_template)->Render(input, limits);
}

std::string RenderedText(std::string_view source, const ChatInput& input) {
  const absl::StatusOr<ProvenText> rendered = Render(source, input);
  if (!rendered.ok()) return absl::StrCat("error: ", rendered.status().message());
  return rendered->text;
}

std::string Marked(const ProvenText& text) {
  std::string marked;
  bool inside = false;
  for (size_t i = 0; i < text.text.size(); ++i) {
    if (inside == text.trusted[i]) {
      marked += inside ? ']' : '[';
      inside = !inside;
    }
    marked += text.text[i];
  }
  if (inside) marked += ']';
  return marked;
}

}  // namespace sirocco
