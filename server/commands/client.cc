#include "server/commands/client.h"

#include <chrono>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/commands/report.h"

namespace sirocco {

void GenerateOptions::AddTo(CLI::App& command) {
  AddClientFlags(command, server);
  command.add_option("--max-new-tokens", max_new_tokens, "most tokens of the answer");
  command.add_option("--temperature", temperature, "0: always the most probable token");
  command.add_option("--top-k", top_k, "choose among the k most probable tokens");
  command.add_option("--top-p", top_p, "choose among the most probable tokens that make up p");
  command.add_option("--min-p", min_p, "drop tokens less probable than this share of the best");
  command.add_option("--repetition-penalty", repetition_penalty, "above 1: repeat less");
  command.add_option("--seed", seed, "the same seed gives the same answer");
  command.add_option("--stop", stop, "end the answer before this text; may be given again")
      ->allow_extra_args(false);
  CLI::Option* const beams = command.add_option(
      "--num-beams", num_beams, "beam search: the best of so many answers, shown when it is found");
  command
      .add_option("--length-penalty", length_penalty,
                  "of a beam search: above 0 for longer answers [1]")
      ->needs(beams);
  command
      .add_flag("--early-stopping", early_stopping,
                "end a beam search as soon as it has as many answers as beams")
      ->needs(beams);
  command.add_option("--timeout", timeout_seconds, "seconds until the call is given up; 0: never");
}

v1::GenerateRequest GenerateOptions::ToRequest() const {
  v1::GenerateRequest request;
  if (max_new_tokens) request.set_max_new_tokens(*max_new_tokens);
  v1::SamplingParams& sampling = *request.mutable_sampling();
  if (temperature) sampling.set_temperature(*temperature);
  if (top_k) sampling.set_top_k(*top_k);
  if (top_p) sampling.set_top_p(*top_p);
  if (min_p) sampling.set_min_p(*min_p);
  if (repetition_penalty) sampling.set_repetition_penalty(*repetition_penalty);
  if (seed) sampling.set_seed(*seed);
  for (const std::string& text : stop) request.mutable_stop()->add_strings(text);
  if (num_beams) request.mutable_beam()->set_num_beams(*num_beams);
  if (length_penalty) request.mutable_beam()->set_length_penalty(*length_penalty);
  if (early_stopping) request.mutable_beam()->set_early_stopping(true);
  return request;
}

void AddClientFlags(CLI::App& command, ClientOptions& options) {
  command.add_option("--address", options.address, "the server's HOST:PORT [127.0.0.1:50051]");
  command.add_flag("--tls", options.tls, "call by TLS; so does each of the next three");
  command.add_option("--ca", options.ca,
                     "a PEM file: the authorities that the server's certificate must come from; "
                     "default: this machine's");
  command.add_option("--client-certificate", options.certificate,
                     "a PEM file: the certificate that the server asks of its clients");
  command.add_option("--client-key", options.key, "a PEM file: its private key");
  command.add_option("--token-file", options.token_file,
                     "a file whose first word is the token that the server asks for");
}

Client::Client(ClientChannel channel) : channel_(std::move(channel)) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  stub_ = v1::Inference::NewStub(channel_.Connect(arguments));
}

absl::StatusOr<Client> Client::Open(const ClientOptions& options) {
  absl::StatusOr<ClientChannel> channel = ClientChannel::Open(options);
  if (!channel.ok()) return channel.status();
  return Client(*std::move(channel));
}

std::unique_ptr<grpc::ClientContext> Client::NewContext(double timeout_seconds) const {
  auto context = std::make_unique<grpc::ClientContext>();
  channel_.Authorize(*context);
  if (timeout_seconds > 0) {
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::duration_cast<std::chrono::system_clock::duration>(
                              std::chrono::duration<double>(timeout_seconds)));
  }
  return context;
}

StreamOutcome StreamAnswer(v1::Inference::Stub& stub, grpc::ClientContext& context,
                           const v1::GenerateRequest& request,
                           const std::function<void(const std::string& text)>& show) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  const auto since = [begin] {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  StreamOutcome outcome;
  auto reader = stub.GenerateStream(&context, request);
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
    if (outcome.first_token_seconds == 0 && event.token_ids_size() > 0) {
      outcome.first_token_seconds = since();
    }
    outcome.completion_tokens += static_cast<uint32_t>(event.token_ids_size());
    outcome.text += event.text();
    if (!event.text().empty()) show(event.text());
  }
  outcome.status = reader->Finish();
  outcome.total_seconds = since();
  return outcome;
}

int FailCall(const std::string& address, const grpc::Status& status) {
  std::string hint;
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    hint = "; is a server listening there? 'sirocco serve --model MODEL' starts one";
  }
  Fail(absl::UnavailableError(absl::StrCat(address, ": ", status.error_message(), hint)));
  return 1;
}

}  // namespace sirocco
