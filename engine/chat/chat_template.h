// Chat templates: the subset of Jinja that published models use, rendered as transformers does
// (trim_blocks, lstrip_blocks, raise_exception, tojson), with limits, and with a record of which
// bytes came from the template itself.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/proven_text.h"

namespace sirocco {

using OrderedJson = nlohmann::ordered_json;

// What a template sees. Every string in here is text and can forge nothing.
struct ChatInput {
  OrderedJson messages = OrderedJson::array();  // objects: role, content, and further keys
  bool add_generation_prompt = true;
  OrderedJson kwargs = OrderedJson::object();  // further variables (enable_thinking, ...)
  std::optional<OrderedJson> tools;            // array
  std::optional<OrderedJson> documents;        // array
  // What strftime_now() says, in local time; now where absent.
  std::optional<std::chrono::system_clock::time_point> now;
};

// Whatever a template or its input does, rendering ends within these.
struct ChatLimits {
  int64_t max_steps = 5'000'000;  // expressions, statements, items; long texts count for more
  int32_t max_depth = 200;        // of lists and dicts in each other, and of macro calls
  size_t max_output_bytes = 16u << 20;
  size_t max_memory_bytes = 256u << 20;  // of all values at a time
};

// Immutable after Parse; any thread, with 2 MiB of stack left for templates that recurse.
class ChatTemplate {
 public:
  // INVALID_ARGUMENT with the line for a syntax error; UNIMPLEMENTED names what is not supported.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(std::string_view source,
                                                             std::string_view bos_token,
                                                             std::string_view eos_token);
  ~ChatTemplate();

  // INVALID_ARGUMENT: raise_exception's message, or what went wrong and the line;
  // RESOURCE_EXHAUSTED: a limit, by name.
  absl::StatusOr<ProvenText> Render(const ChatInput& input, const ChatLimits& limits = {}) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace sirocco
