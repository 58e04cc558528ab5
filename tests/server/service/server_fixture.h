// A real server on a port of its own, with a fake engine behind it, and real clients.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/service/server.h"
#include "sirocco/v1/inference.grpc.pb.h"
#include "tests/server/testing/fakes.h"

namespace sirocco {

class ServerTest : public testing::Test {
 protected:
  ~ServerTest() override {
    if (server_ != nullptr) server_->Shutdown(std::chrono::seconds(5));
  }

  // Starts it with `options_`; `ready` or still loading.
  void Start(bool ready = true) {
    auto server = GrpcServer::Start(options_, metrics_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = NewChannel({});
    stub_ = v1::Inference::NewStub(channel_);
    health_ = grpc::health::v1::Health::NewStub(channel_);
    if (ready) SetReady();
  }

  void SetReady() {
    metrics_.SetModel(facts_);
    server_->SetReady(facts_, engine_);
  }

  // A connection of its own.
  std::shared_ptr<grpc::Channel> NewChannel(grpc::ChannelArguments arguments) {
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(),
                                     arguments);
  }

  static v1::GenerateRequest Ask(const std::string& prompt, uint32_t max_new_tokens) {
    v1::GenerateRequest request;
    request.set_prompt(prompt);
    request.set_max_new_tokens(max_new_tokens);
    request.mutable_sampling()->set_seed(7);
    return request;
  }

  // All events, and how the stream ended.
  struct Streamed {
    std::vector<v1::GenerateEvent> events;
    grpc::Status status;
    std::multimap<grpc::string_ref, grpc::string_ref> trailers;
  };
  Streamed Stream(const v1::GenerateRequest& request, grpc::ClientContext& context) {
    Streamed out;
    const auto reader = stub_->GenerateStream(&context, request);
    v1::GenerateEvent event;
    while (reader->Read(&event)) out.events.push_back(event);
    out.status = reader->Finish();
    return out;
  }

  // Any bytes to any method, as a unary call or as a stream's first message.
  grpc::Status CallRaw(const std::string& method, const std::string& bytes) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const grpc::Slice slice(bytes);
    const auto call = stub.PrepareUnaryCall(&context, "/sirocco.v1.Inference/" + method,
                                            grpc::ByteBuffer(&slice, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return status;
  }

  template <typename Detail>
  static Detail DetailOf(const grpc::Status& status) {
    google::rpc::Status rpc;
    EXPECT_TRUE(rpc.ParseFromString(status.error_details()));
    Detail detail;
    for (const auto& any : rpc.details()) {
      if (any.UnpackTo(&detail)) return detail;
    }
    ADD_FAILURE() << "no such detail in " << rpc.DebugString();
    return detail;
  }

  grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::string& name) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    grpc::health::v1::HealthCheckResponse response;
    const grpc::Status status = health_->Check(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.status();
  }

  // The count of sirocco_requests_total.
  int Calls(const std::string& method, const std::string& code) const {
    return Count("sirocco_requests_total{code=\"" + code + "\",method=\"" + method + "\"}");
  }
  int Count(const std::string& series) const {
    const std::string page = metrics_.Render();
    const size_t at = page.find("\n" + series + " ");
    EXPECT_NE(at, std::string::npos) << series;
    return at == std::string::npos ? -1 : std::stoi(page.substr(at + series.size() + 2));
  }

  GrpcServerOptions options_ = [] {
    GrpcServerOptions options;
    options.listen = "127.0.0.1:0";
    options.mode = Mode::kLayerGraph;
    return options;
  }();
  FakeTokenizer tokenizer_;
  ModelFacts facts_ = FakeFacts(&tokenizer_);
  Metrics metrics_{/*vllm_names=*/false};
  FakeEngine engine_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace sirocco
