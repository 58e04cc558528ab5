#include "engine/chat/chat_template.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/chat/ast.h"
#include "engine/chat/interpreter.h"
#include "engine/chat/json_reader.h"
#include "engine/chat/parser.h"
#include "engine/chat/runtime.h"
#include "engine/chat/status_macros.h"
#include "engine/chat/unicode.h"

namespace sirocco {
namespace {

using jinja::NameId;
using jinja::Value;

// Larger than any template there is; keeps positions and counts small.
constexpr size_t kMaxSourceBytes = 1u << 20;

// The variables that a caller cannot set by kwargs.
constexpr std::string_view kOwnVariables[] = {"messages", "tools", "documents",
                                              "add_generation_prompt"};

bool IsOwnVariable(std::string_view name) {
  for (const std::string_view own : kOwnVariables) {
    if (name == own) return true;
  }
  return false;
}

ProvenText ToProvenText(const jinja::Text& text) {
  ProvenText proven;
  proven.text = std::string(text.bytes());
  proven.trusted.reserve(text.size());
  for (const jinja::Text::Run& run : text.runs()) proven.trusted.resize(run.end, run.trusted);
  return proven;
}

}  // namespace

struct ChatTemplate::Program {
  std::unique_ptr<const jinja::Template> parsed;
  std::string bos_token;
  std::string eos_token;

  jinja::ValueOr VariableFor(jinja::Runtime& runtime, const std::string& name,
                             const ChatInput& input, bool* known) const;
};

// The value of a variable of the context; `known` tells whether there is one of that name.
jinja::ValueOr ChatTemplate::Program::VariableFor(jinja::Runtime& runtime, const std::string& name,
                                                  const ChatInput& input, bool* known) const {
  const auto optional = [&](const std::optional<OrderedJson>& json) {
    return json.has_value() ? jinja::FromJson(runtime, *json, name) : jinja::ValueOr(Value::None());
  };
  *known = true;
  if (name == "messages") return jinja::FromJson(runtime, input.messages, name);
  if (name == "tools") return optional(input.tools);
  if (name == "documents") return optional(input.documents);
  if (name == "add_generation_prompt") return Value::Bool(input.add_generation_prompt);
  if (const auto found = input.kwargs.find(name); found != input.kwargs.end()) {
    return jinja::FromJson(runtime, *found, name);
  }
  if (name == "bos_token" && !bos_token.empty()) return runtime.String(bos_token, true);
  if (name == "eos_token" && !eos_token.empty()) return runtime.String(eos_token, true);
  *known = false;
  return Value();
}

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program) : program_(std::move(program)) {}

ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                                  std::string_view bos_token,
                                                                  std::string_view eos_token) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the chat template has ", source.size(), " bytes; at most ", kMaxSourceBytes));
  }
  for (const std::string_view text : {source, bos_token, eos_token}) {
    if (!jinja::IsValidUtf8(text)) {
      return absl::InvalidArgumentError("the chat template or its bos/eos token is not UTF-8");
    }
  }
  auto program = std::make_unique<Program>();
  SIROCCO_CHAT_ASSIGN_OR_RETURN(program->parsed, jinja::ParseTemplate(source));
  program->bos_token = std::string(bos_token);
  program->eos_token = std::string(eos_token);
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(program)));
}

absl::StatusOr<ProvenText> ChatTemplate::Render(const ChatInput& input,
                                                const ChatLimits& limits) const {
  if (!input.kwargs.is_object()) {
    return absl::InvalidArgumentError("the template's keyword arguments must be an object");
  }
  for (const auto& [name, value] : input.kwargs.items()) {
    if (IsOwnVariable(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the template's keyword arguments must not set '", name, "'"));
    }
  }
  jinja::Meter meter(limits.max_steps, limits.max_memory_bytes, limits.max_depth);
  jinja::Runtime runtime(&meter, input.now.value_or(std::chrono::system_clock::now()));
  const jinja::Template& parsed = *program_->parsed;
  jinja::Interpreter interpreter(runtime, parsed);
  for (NameId name = 0; name < parsed.names.size(); ++name) {
    bool known = false;
    SIROCCO_CHAT_ASSIGN_OR_RETURN(
        Value value, program_->VariableFor(runtime, parsed.names[name], input, &known));
    if (known) interpreter.SetVariable(name, std::move(value));
  }
  const absl::StatusOr<jinja::Text> text = interpreter.Run(limits.max_output_bytes);
  if (text.ok()) return ToProvenText(*text);
  const absl::Status& error = text.status();
  const bool located = absl::IsInvalidArgument(error) || absl::IsUnimplemented(error);
  if (!located || runtime.raised()) return error;
  return absl::Status(error.code(), absl::StrCat("chat template line ", interpreter.error_line(),
                                                 ": ", error.message()));
}

}  // namespace sirocco
