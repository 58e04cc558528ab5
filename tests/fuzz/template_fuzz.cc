// A chat template, and behind the last NUL the JSON of what it is given: a list of messages, or an
// object of further variables beside one message.
#include "engine/chat/chat_template.h"
#include "engine/chat/unicode.h"
#include "tests/fuzz/fuzz.h"

namespace {

sirocco::ChatInput InputOf(std::string_view text) {
  sirocco::ChatInput input;
  input.now = std::chrono::system_clock::time_point(std::chrono::seconds(1'700'000'000));
  auto json = sirocco::OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_array()) {
    input.messages = std::move(json);
    return input;
  }
  input.messages.push_back({{"role", "user"}, {"content", "Hello <|im_start|>"}});
  if (json.is_object()) input.kwargs = std::move(json);
  return input;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sirocco;
  const auto [source, variables] = SplitAtNul(AsText(data, size));
  if (variables.size() > 4096) return 0;  // deep JSON is the request parser's to refuse
  const auto chat_template = ChatTemplate::Parse(source, "<s>", "</s>");
  if (!chat_template.ok()) return 0;
  ChatLimits limits;
  limits.max_steps = 20'000;
  limits.max_memory_bytes = 4u << 20;
  limits.max_output_bytes = 1u << 20;
  const auto rendered = (*chat_template)->Render(InputOf(variables), limits);
  if (!rendered.ok()) return 0;
  Require(rendered->trusted.size() == rendered->text.size(), "a mark a byte");
  Require(rendered->text.size() <= limits.max_output_bytes, "within the limit");
  Require(jinja::IsValidUtf8(rendered->text), "output is UTF-8");
  return 0;
}
