// sirocco tokenize: text or chats to ids, and ids to text, offline; JSON lines.
#include <algorithm>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/chat/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/api/json.h"
#include "server/api/prompt.h"
#include "server/commands/commands.h"
#include "server/commands/json_lines.h"
#include "server/commands/report.h"

namespace sirocco {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kKeys[] = {
    "text",      "messages",        "ids",   "add_special_tokens",  "parse_special_tokens",
    "documents", "template_kwargs", "tools", "skip_special_tokens", "add_generation_prompt"};

absl::StatusOr<bool> Flag(const ordered_json& line, const char* key, bool value) {
  if (!line.contains(key)) return value;
  if (!line[key].is_boolean()) {
    return absl::InvalidArgumentError(absl::StrCat(key, " must be true or false"));
  }
  return line[key].get<bool>();
}

absl::Status Array(const ordered_json& line, const char* key, std::optional<OrderedJson>& out) {
  if (!line.contains(key) || line[key].is_null()) return absl::OkStatus();
  if (!line[key].is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(key, " must be an array"));
  }
  out = line[key];
  return absl::OkStatus();
}

absl::StatusOr<ChatInput> ReadChat(const ordered_json& line) {
  ChatInput input;
  absl::StatusOr<bool> prompt = Flag(line, "add_generation_prompt", true);
  if (!prompt.ok()) return prompt.status();
  input.add_generation_prompt = *prompt;
  input.messages = line["messages"];
  if (!input.messages.is_array()) return absl::InvalidArgumentError("messages must be an array");
  for (const ordered_json& message : input.messages) {
    if (!message.is_object()) return absl::InvalidArgumentError("a message must be an object");
  }
  if (line.contains("template_kwargs")) {
    input.kwargs = line["template_kwargs"];
    if (!input.kwargs.is_object()) {
      return absl::InvalidArgumentError("template_kwargs must be an object");
    }
  }
  if (absl::Status status = Array(line, "tools", input.tools); !status.ok()) return status;
  if (absl::Status status = Array(line, "documents", input.documents); !status.ok()) {
    return status;
  }
  return input;
}

// A tokenizer and template alone, seen as the model whose requests the server's code checks.
class LineTokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<LineTokenizer>> Open(const std::string& path) {
    auto self = std::make_unique<LineTokenizer>();
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(path);
    if (!tokenizer.ok()) return tokenizer.status();
    if (*tokenizer == nullptr) {
      return absl::NotFoundError(absl::StrCat(path, ": no tokenizer files"));
    }
    self->tokenizer_ = *std::move(tokenizer);
    self->facts_.tokenizer = self->tokenizer_.get();
    self->facts_.vocab_size = self->tokenizer_->vocab_size();
    if (const auto& source = self->tokenizer_->chat_template(); source.has_value()) {
      absl::StatusOr<std::unique_ptr<ChatTemplate>> chat = ChatTemplate::Parse(
          *source, self->tokenizer_->bos_token(), self->tokenizer_->eos_token());
      // A template that does not parse is an error of the lines that need it.
      self->template_status_ = chat.status();
      if (chat.ok()) self->template_ = *std::move(chat);
      self->facts_.chat_template = self->template_.get();
    }
    return self;
  }

  // The answer to one line.
  absl::StatusOr<ordered_json> Answer(const ordered_json& line) const {
    for (const auto& item : line.items()) {
      if (std::find(std::begin(kKeys), std::end(kKeys), item.key()) == std::end(kKeys)) {
        return absl::InvalidArgumentError(absl::StrCat("unknown key '", item.key(), "'"));
      }
    }
    const int inputs = line.contains("text") + line.contains("messages") + line.contains("ids");
    if (inputs != 1) {
      return absl::InvalidArgumentError("a line has one of the keys text, messages and ids");
    }
    if (line.contains("ids")) return Text(line);
    absl::StatusOr<std::vector<int32_t>> ids =
        line.contains("messages") ? ChatIds(line) : TextIds(line);
    if (!ids.ok()) return ids.status();
    return ordered_json{{"ids", *ids}};
  }

 private:
  absl::StatusOr<std::vector<int32_t>> TextIds(const ordered_json& line) const {
    if (!line["text"].is_string()) return absl::InvalidArgumentError("text must be a string");
    absl::StatusOr<bool> add = Flag(line, "add_special_tokens", true);
    if (!add.ok()) return add.status();
    absl::StatusOr<bool> parse = Flag(line, "parse_special_tokens", false);
    if (!parse.ok()) return parse.status();
    return EncodeText("text", line["text"].get_ref<const std::string&>(),
                      {.add_special_tokens = *add, .parse_special_tokens = *parse}, facts_);
  }

  absl::StatusOr<std::vector<int32_t>> ChatIds(const ordered_json& line) const {
    if (!template_status_.ok()) return template_status_;
    absl::StatusOr<ChatInput> input = ReadChat(line);
    if (!input.ok()) return input.status();
    return EncodeChat(*input, /*answer_prefix=*/"", facts_);
  }

  absl::StatusOr<ordered_json> Text(const ordered_json& line) const {
    absl::StatusOr<bool> skip = Flag(line, "skip_special_tokens", true);
    if (!skip.ok()) return skip.status();
    if (!line["ids"].is_array()) return absl::InvalidArgumentError("ids must be an array");
    std::vector<int32_t> ids;
    for (const ordered_json& id : line["ids"]) {
      const bool valid = id.is_number_integer() && id.get<int64_t>() >= 0 &&
                         id.get<int64_t>() < tokenizer_->vocab_size();
      if (!valid) {
        return absl::InvalidArgumentError(absl::StrCat(
            "id ", id.dump(), " is not allowed; allowed: 0 to ", tokenizer_->vocab_size() - 1));
      }
      ids.push_back(id.get<int32_t>());
    }
    return ordered_json{{"text", tokenizer_->Decode(ids, *skip)}};
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> template_;
  absl::Status template_status_;
  ModelFacts facts_;
};

int TokenizeLines(const std::string& path, const std::string& input) {
  const absl::StatusOr<OwnedFd> in = OpenInput(input);
  if (!in.ok()) return Fail(in.status());
  absl::StatusOr<std::unique_ptr<LineTokenizer>> tokenizer = LineTokenizer::Open(path);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  int exit_status = 0;
  LineReader lines(in->get());
  std::string text;
  absl::Status status;
  while (lines.Wait(&text, &status)) {
    int64_t values_left = kMaxLineBytes;  // as many as a line of one's own can hold
    absl::StatusOr<ordered_json> answer =
        status.ok() ? ParseJsonField("line", text, JsonKind::kObject, values_left) : status;
    if (answer.ok()) answer = (*tokenizer)->Answer(*answer);
    if (!answer.ok()) exit_status = 1;
    // Escaped to ASCII: some readers take U+2028 and the like for the end of a line.
    const std::string out =
        answer.ok() ? answer->dump(-1, ' ', /*ensure_ascii=*/true) : ErrorLine(answer.status());
    std::cout << out << '\n';
    if (!std::cout.good()) return Fail(absl::UnavailableError("standard output is closed"));
  }
  std::cout.flush();
  return status.ok() ? exit_status : Fail(status);
}

}  // namespace

void AddTokenize(CLI::App& app, int& exit_status) {
  struct Options {
    std::string model, input;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "tokenize",
      "Text or chats to ids and ids to text, offline. Reads JSON lines:\n"
      "  {\"text\": \"Hello\"}              -> {\"ids\": [...]}\n"
      "  {\"messages\": [{\"role\": ...}]}  -> {\"ids\": [...]}\n"
      "  {\"ids\": [1, 2]}                -> {\"text\": \"...\"}\n"
      "Options a line: add_special_tokens (true), parse_special_tokens (false),\n"
      "skip_special_tokens (true), add_generation_prompt (true), template_kwargs, tools, "
      "documents.\n\n"
      "  sirocco tokenize --model MODEL.gguf lines.jsonl");
  command->add_option("--model", options->model, "a GGUF file or a folder with tokenizer files")
      ->required();
  command->add_option("INPUT", options->input, "a file of JSON lines; default: standard input");
  command->callback(
      [options, &exit_status] { exit_status = TokenizeLines(options->model, options->input); });
}

}  // namespace sirocco
