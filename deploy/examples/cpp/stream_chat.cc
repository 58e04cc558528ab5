// Streams one chat answer.  usage: stream_chat [ADDRESS [QUESTION [SECONDS [CHARACTERS]]]]
//
// SECONDS: the call's deadline. CHARACTERS (bytes here): after so many it is cancelled.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <string>

#include "sirocco/v1/inference.grpc.pb.h"

int main(int argc, char** argv) {
  const std::string address = argc > 1 ? argv[1] : "127.0.0.1:50051";
  const std::string question = argc > 2 ? argv[2] : "What is the capital of Japan?";
  const std::chrono::duration<double> seconds(argc > 3 ? std::stod(argv[3]) : 60);
  const size_t characters = argc > 4 ? std::stoul(argv[4]) : 100000;

  const auto stub = sirocco::v1::Inference::NewStub(
      grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  sirocco::v1::GenerateRequest request;
  sirocco::v1::ChatMessage* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content(question);
  request.set_max_new_tokens(512);

  grpc::ClientContext context;
  using Clock = std::chrono::system_clock;
  context.set_deadline(Clock::now() + std::chrono::duration_cast<Clock::duration>(seconds));
  const auto events = stub->GenerateStream(&context, request);
  sirocco::v1::GenerateEvent event;
  size_t received = 0;
  while (events->Read(&event)) {
    std::cout << event.text() << std::flush;
    received += event.text().size();
    if (received >= characters) context.TryCancel();  // the server stops, and others get its place
  }
  std::cout << std::endl;
  const grpc::Status status = events->Finish();
  if (status.ok() || received >= characters) return 0;
  const std::string name = status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED
                               ? "DEADLINE_EXCEEDED"
                               : "status " + std::to_string(status.error_code());
  std::cerr << name << ": " << status.error_message() << std::endl;
  return 1;
}
