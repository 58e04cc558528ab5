// What the tests of chat templates share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat/chat_template.h"

namespace sirocco {

// A file of tests/goldens. A missing one fails the test and is empty.
std::string ReadGolden(std::string_view relative);
std::vector<OrderedJson> ReadGoldenLines(std::string_view relative);

// messages, add_generation_prompt, tools, documents and kwargs of a reference case.
ChatInput InputOf(const OrderedJson& test_case);

// Parses and renders with bos "<s>" and eos "</s>".
absl::StatusOr<ProvenText> Render(std::string_view source, const ChatInput& input = {},
                                  const ChatLimits& limits = {});

// The text, or "error: " and the message.
std::string RenderedText(std::string_view source, const ChatInput& input = {});

// The text with [ and ] around what is not trusted.
std::string Marked(const ProvenText& text);

}  // namespace sirocco
