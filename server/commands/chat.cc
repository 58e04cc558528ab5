// sirocco chat: a conversation in the terminal. Ctrl-C ends an answer, Ctrl-D the conversation.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "server/commands/client.h"
#include "server/commands/commands.h"
#include "server/commands/report.h"

namespace sirocco {
namespace {

// Turns SIGINT into the cancellation of the call that runs, or else the end of the program.
class InterruptWatch {
 public:
  InterruptWatch() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::thread([this, signals] {
      for (int signal = 0; sigwait(&signals, &signal) == 0;) {
        std::lock_guard lock(mutex_);
        if (running_ == nullptr) _exit(130);
        running_->TryCancel();
      }
    }).detach();  // waits for a signal until the program ends
  }

  void Watch(grpc::ClientContext* context) {
    std::lock_guard lock(mutex_);
    running_ = context;
  }

 private:
  std::mutex mutex_;
  grpc::ClientContext* running_ = nullptr;
};

void AddMessage(v1::Chat& chat, const std::string& role, const std::string& content) {
  v1::ChatMessage* message = chat.add_messages();
  message->set_role(role);
  message->set_content(content);
}

int Converse(const GenerateOptions& options) {
  // Lives as long as the program: its thread does.
  static auto* watch = new InterruptWatch;
  const absl::StatusOr<Client> client = Client::Open(options.server);
  if (!client.ok()) return Fail(client.status());
  v1::GenerateRequest request = options.ToRequest();
  v1::Chat& chat = *request.mutable_chat();
  if (!options.system.empty()) AddMessage(chat, "system", options.system);
  const int kept = chat.messages_size();
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) std::cerr << "/reset begins anew, Ctrl-C ends an answer, Ctrl-D the chat.\n";

  for (std::string line;;) {
    if (terminal) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    if (line == "/reset") {
      chat.mutable_messages()->DeleteSubrange(kept, chat.messages_size() - kept);
      continue;
    }
    AddMessage(chat, "user", line);
    auto context = client->NewContext(options.timeout_seconds);
    watch->Watch(context.get());
    const StreamOutcome outcome =
        StreamAnswer(client->stub(), *context, request,
                     [](const std::string& text) { std::cout << text << std::flush; });
    watch->Watch(nullptr);
    std::cout << std::endl;
    if (!outcome.status.ok() && outcome.status.error_code() != grpc::StatusCode::CANCELLED) {
      return FailCall(options.server.address, outcome.status);
    }
    AddMessage(chat, "assistant", outcome.text);
  }
  return 0;
}

}  // namespace

void AddChat(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command =
      app.add_subcommand("chat",
                         "Talk with a server's model in the terminal: a line is a message, Ctrl-D "
                         "ends\n\n"
                         "  sirocco chat\n"
                         "  sirocco chat --address HOST:PORT --system 'Answer in one sentence.'");
  command->add_option("--system", options->system, "the system message");
  options->AddTo(*command);
  command->callback([options, &exit_status] { exit_status = Converse(*options); });
}

}  // namespace sirocco
