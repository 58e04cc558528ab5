// sirocco generate: streams a completion from a server to the terminal.
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/commands/client.h"
#include "server/commands/commands.h"
#include "server/commands/report.h"

namespace sirocco {
namespace {

struct Options {
  GenerateOptions call;
  std::string prompt;
  std::string answer_prefix;
  uint32_t num_return_sequences = 0;
  bool chat = false;
  bool json = false;
};

int PrintJson(const Client& client, const Options& options, const v1::GenerateRequest& request) {
  auto context = client.NewContext(options.call.timeout_seconds);
  v1::GenerateResponse response;
  const grpc::Status status = client.stub().Generate(context.get(), request, &response);
  if (!status.ok()) return FailCall(options.call.server.address, status);
  std::string text;
  const auto converted = google::protobuf::util::MessageToJsonString(response, &text);
  if (!converted.ok()) return Fail(absl::InternalError(converted.ToString()));
  std::cout << text << std::endl;
  return 0;
}

int Stream(const Client& client, const Options& options, const v1::GenerateRequest& request) {
  auto context = client.NewContext(options.call.timeout_seconds);
  const StreamOutcome outcome =
      StreamAnswer(client.stub(), *context, request,
                   [](const std::string& text) { std::cout << text << std::flush; });
  if (outcome.text.empty() || outcome.text.back() != '\n') std::cout << std::endl;
  if (!outcome.status.ok()) return FailCall(options.call.server.address, outcome.status);
  if (isatty(STDERR_FILENO) == 1) {
    const double decode = outcome.total_seconds - outcome.first_token_seconds;
    std::fprintf(stderr, "[%u tokens, first after %.0f ms", outcome.completion_tokens,
                 outcome.first_token_seconds * 1e3);
    if (outcome.completion_tokens > 1 && decode > 0) {
      std::fprintf(stderr, ", then %.0f a second", (outcome.completion_tokens - 1) / decode);
    }
    std::fputs("]\n", stderr);
  }
  return 0;
}

int Generate(Options& options, bool prompt_given) {
  if (!prompt_given) {
    options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    if (!options.prompt.empty() && options.prompt.back() == '\n') options.prompt.pop_back();
  }
  v1::GenerateRequest request = options.call.ToRequest();
  if (options.chat) {
    if (!options.call.system.empty()) {
      v1::ChatMessage* message = request.mutable_chat()->add_messages();
      message->set_role("system");
      message->set_content(options.call.system);
    }
    v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(options.prompt);
  } else {
    request.set_prompt(options.prompt);
  }
  request.set_answer_prefix(options.answer_prefix);
  if (options.num_return_sequences > 0) {
    request.mutable_beam()->set_num_return_sequences(options.num_return_sequences);
  }
  const absl::StatusOr<Client> client = Client::Open(options.call.server);
  if (!client.ok()) return Fail(client.status());
  return options.json ? PrintJson(*client, options, request) : Stream(*client, options, request);
}

}  // namespace

void AddGenerate(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("generate",
                         "Stream a completion from a server to the terminal\n\n"
                         "  sirocco generate 'Once upon a time'\n"
                         "  sirocco generate --chat --max-new-tokens 100 'Why is it windy?'\n"
                         "  sirocco generate --json --temperature 0.8 --seed 7 <prompt.txt");
  CLI::Option* prompt = command->add_option(
      "PROMPT", options->prompt, "the text to go on from; default: standard input, to its end");
  command->add_flag("--chat", options->chat, "the prompt is a user's message of a chat");
  command->add_option("--system", options->call.system, "with --chat: the system message");
  command->add_option("--answer-prefix", options->answer_prefix,
                      "the answer starts with this text");
  CLI::Option* const json =
      command->add_flag("--json", options->json, "print the whole GenerateResponse as JSON");
  options->call.AddTo(*command);
  command
      ->add_option("--num-return-sequences", options->num_return_sequences,
                   "with --json: so many answers of a beam search, the best first [1]")
      ->needs(json)
      ->needs("--num-beams");
  command->callback(
      [options, prompt, &exit_status] { exit_status = Generate(*options, prompt->count() > 0); });
}

}  // namespace sirocco
