#include <gmock/gmock.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "tests/server/service/server_fixture.h"

namespace sirocco {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using std::chrono::milliseconds;

TEST_F(ServerTest, OtherMethods) {
  Start();
  grpc::ClientContext first, second, third;
  v1::Model model;
  EXPECT_TRUE(stub_->GetModel(&first, {}, &model).ok());
  EXPECT_EQ(model.name(), "fake");
  v1::TokenizeRequest tokenize;
  tokenize.set_text("ab");
  v1::TokenizeResponse tokens;
  EXPECT_TRUE(stub_->Tokenize(&second, tokenize, &tokens).ok());
  EXPECT_EQ(tokens.token_ids_size(), 3);
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse text;
  EXPECT_TRUE(stub_->Detokenize(&third, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "ab");
  for (const char* method : {"GetModel", "Tokenize", "Detokenize"}) {
    EXPECT_EQ(Calls(method, "OK"), 1) << method;
  }
}

TEST_F(ServerTest, AnEmptyAnswerIsAnAnswer) {
  Start();
  grpc::ClientContext context;
  v1::DetokenizeResponse text;
  EXPECT_TRUE(stub_->Detokenize(&context, {}, &text).ok());
}

TEST_F(ServerTest, BytesThatAreNoMessage) {
  Start();
  for (const char* method : {"Generate", "GenerateStream", "Tokenize", "Detokenize", "GetModel"}) {
    const grpc::Status status = CallRaw(method, "\xff\xff\xff\xff");
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method;
    EXPECT_EQ(Calls(method, "INVALID_ARGUMENT"), 1) << method;
  }
}

// A call whose message never comes: since its client has cancelled it, or has nothing to say.
TEST_F(ServerTest, CallsWithoutAMessage) {
  Start();
  for (const char* method : {"Generate", "GenerateStream", "Tokenize", "GetModel"}) {
    for (const bool cancel : {true, false}) {
      grpc::GenericStub stub(channel_);
      grpc::ClientContext context;
      grpc::CompletionQueue queue;
      const auto next = [&] {
        void* tag = nullptr;
        bool ok = false;
        queue.Next(&tag, &ok);
      };
      const auto call =
          stub.PrepareCall(&context, std::string("/sirocco.v1.Inference/") + method, &queue);
      call->StartCall(nullptr);
      next();
      if (cancel) {
        // The server has the call, and waits for the message.
        std::this_thread::sleep_for(milliseconds(50));
        context.TryCancel();
      } else {
        call->WritesDone(nullptr);
        next();
      }
      grpc::Status status;
      call->Finish(&status, nullptr);
      next();
      const std::string code = cancel ? "CANCELLED" : "INVALID_ARGUMENT";
      EXPECT_EQ(status.error_code(),
                cancel ? grpc::StatusCode::CANCELLED : grpc::StatusCode::INVALID_ARGUMENT);
      EXPECT_TRUE(Eventually([&] { return Calls(method, code) == 1; })) << method << code;
    }
    EXPECT_EQ(Calls(method, "CANCELLED"), 1) << method;
    EXPECT_EQ(Calls(method, "INVALID_ARGUMENT"), 1) << method;
  }
}

TEST_F(ServerTest, InvalidUtf8NamesItsField) {
  Start();
  const std::string chat("\x22\x08\x0a\x06\x0a\x01u\x12\x01\xff", 10);
  for (const char* method : {"Generate", "GenerateStream"}) {
    const grpc::Status status = CallRaw(method, chat);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(status.error_message(), "chat.messages[0].content: is not valid UTF-8");
    EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status).field_violations(0).field(),
              "chat.messages[0].content");
  }
}

TEST_F(ServerTest, BadRequestsHaveDetails) {
  Start();
  v1::GenerateRequest request = Ask("x", 1);
  request.mutable_sampling()->set_top_p(1.5f);
  grpc::ClientContext context;
  const grpc::Status status = Stream(request, context).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf<google::rpc::BadRequest>(status).field_violations(0).field(),
            "sampling.top_p");
}

TEST_F(ServerTest, AMessageThatIsTooLarge) {
  options_.max_message_size = 10'000;
  Start();
  grpc::ClientContext context;
  const grpc::Status status = Stream(Ask(std::string(11'000, 'x'), 1), context).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), testing::HasSubstr("10000 (max_message_size)"));
  EXPECT_EQ(Calls("GenerateStream", "RESOURCE_EXHAUSTED"), 1);
  for (const char* method : {"Generate", "Tokenize", "Detokenize", "GetModel"}) {
    EXPECT_EQ(CallRaw(method, std::string(10'001, '\0')).error_code(),
              grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(Calls(method, "RESOURCE_EXHAUSTED"), 1);
    EXPECT_EQ(CallRaw(method, std::string(10'000, '\0')).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_EQ(Count("sirocco_too_large_total{what=\"message\"}"), 5);
  // From twice as much on gRPC refuses it itself, uncounted.
  EXPECT_EQ(CallRaw("Tokenize", std::string(20'001, '\0')).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Count("sirocco_too_large_total{what=\"message\"}"), 5);
  EXPECT_TRUE(engine_.requests().empty());
}

// A small one may become any size.
TEST_F(ServerTest, ACompressedMessage) {
  Start();
  for (const grpc_compression_algorithm algorithm : {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    EXPECT_EQ(Stream(Ask(std::string(100'000, 'x'), 1), context).status.error_code(),
              grpc::StatusCode::UNIMPLEMENTED);
  }
  EXPECT_TRUE(engine_.requests().empty());
}

// Runs each method in turn and looks at its trailers.
class TrailersTest : public ServerTest {
 protected:
  void ExpectTrailers(const grpc::ClientContext& context, const std::string& decode_ms) {
    std::map<std::string, std::string> trailers;
    for (const auto& [key, value] : context.GetServerTrailingMetadata()) {
      trailers.emplace(std::string(key.data(), key.size()),
                       std::string(value.data(), value.size()));
    }
    EXPECT_EQ(trailers["sirocco-mode"], "layer_graph");
    const bool ran = decode_ms != "0.000";
    EXPECT_EQ(trailers["sirocco-queue-ms"], ran ? "1.000" : "0.000");
    EXPECT_EQ(trailers["sirocco-prefill-ms"], ran ? "2.000" : "0.000");
    EXPECT_EQ(trailers["sirocco-decode-ms"], decode_ms);
  }

  void ExpectAll(grpc::StatusCode code, const std::string& generate_ms, size_t metadata_bytes = 0) {
    for (int method = 0; method < kRpcMethods; ++method) {
      SCOPED_TRACE(NameOf(static_cast<RpcMethod>(method)));
      grpc::ClientContext context;
      if (metadata_bytes > 0) context.AddMetadata("x-some", std::string(metadata_bytes, 'x'));
      const grpc::Status status = Call(static_cast<RpcMethod>(method), context);
      EXPECT_EQ(status.error_code(), code) << status.error_message();
      ExpectTrailers(context, method < 2 ? generate_ms : "0.000");
    }
  }

  grpc::Status Call(RpcMethod method, grpc::ClientContext& context) {
    v1::GenerateResponse response;
    v1::TokenizeRequest tokenize;
    tokenize.set_text("x");
    v1::TokenizeResponse tokens;
    v1::DetokenizeResponse text;
    v1::Model model;
    switch (method) {
      case RpcMethod::kGenerate:
        return stub_->Generate(&context, Ask("x", 2), &response);
      case RpcMethod::kGenerateStream:
        return Stream(Ask("x", 2), context).status;
      case RpcMethod::kTokenize:
        return stub_->Tokenize(&context, tokenize, &tokens);
      case RpcMethod::kDetokenize:
        return stub_->Detokenize(&context, {}, &text);
      case RpcMethod::kGetModel:
        return stub_->GetModel(&context, {}, &model);
    }
    return grpc::Status::CANCELLED;
  }
};

TEST_F(TrailersTest, OfEveryCallInEveryState) {
  Start(/*ready=*/false);
  ExpectAll(grpc::StatusCode::UNAVAILABLE, "0.000");
  SetReady();
  ExpectAll(grpc::StatusCode::OK, "3.000");
  server_->SetDraining();
  ExpectAll(grpc::StatusCode::UNAVAILABLE, "0.000");
  EXPECT_EQ(Calls("Generate", "UNAVAILABLE"), 2);
  EXPECT_EQ(Calls("Generate", "OK"), 1);
  EXPECT_EQ(Count("sirocco_rejected_total{reason=\"draining\"}"), 2);
}

TEST_F(TrailersTest, OfCallsWithTooMuchMetadata) {
  Start();
  ExpectAll(grpc::StatusCode::OK, "3.000", 7'900);
  ExpectAll(grpc::StatusCode::RESOURCE_EXHAUSTED, "0.000", 8'300);
  EXPECT_EQ(Count("sirocco_too_large_total{what=\"metadata\"}"), kRpcMethods);
  EXPECT_EQ(Calls("Generate", "RESOURCE_EXHAUSTED"), 1);
}

TEST_F(ServerTest, HealthFromLoadingToDraining) {
  Start(/*ready=*/false);
  EXPECT_EQ(Health(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("sirocco.v1.Inference"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(server_->WhyNotReady(), "loading");
  SetReady();
  EXPECT_EQ(Health(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("sirocco.v1.Inference"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(server_->WhyNotReady(), "");
  server_->SetDraining();
  EXPECT_EQ(Health(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("sirocco.v1.Inference"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("liveness"), HealthCheckResponse::SERVING);
}

TEST_F(ServerTest, HealthOfANameThatIsNot) {
  Start();
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service("nobody");
  HealthCheckResponse response;
  EXPECT_EQ(health_->Check(&context, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  grpc::ClientContext watching;
  const auto watch = health_->Watch(&watching, request);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  watching.TryCancel();
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServerTest, AWatchTellsEachChangeAndDoesNotHoldUpTheEnd) {
  Start(/*ready=*/false);
  grpc::ClientContext context;
  const auto watch = health_->Watch(&context, HealthCheckRequest());
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  SetReady();
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  server_->SetDraining();
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  const auto start = Clock::now();
  server_->Shutdown(std::chrono::seconds(60));
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(1));
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServerTest, AStalledEngineIsNotReadyUntilItGoesOn) {
  options_.health_stall_timeout = milliseconds(100);
  Start();
  engine_.last_step_ = Clock::now();
  engine_.has_work_ = true;
  EXPECT_TRUE(Eventually([&] { return server_->WhyNotReady() == "stalled"; }));
  EXPECT_TRUE(Eventually([&] { return Health("") == HealthCheckResponse::NOT_SERVING; }));
  EXPECT_EQ(Health("liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(server_->WhyNotHealthy(), "");
  engine_.has_work_ = false;
  EXPECT_TRUE(Eventually([&] { return Health("") == HealthCheckResponse::SERVING; }));
}

TEST_F(ServerTest, AFaultIsToldOnceAndForGood) {
  std::atomic<int> told = 0;
  options_.on_fault = [&](const absl::Status& fault) {
    EXPECT_EQ(fault.code(), absl::StatusCode::kInternal);
    ++told;
  };
  Start();
  engine_.SetFault(absl::InternalError("the device has failed"));
  EXPECT_TRUE(Eventually([&] { return told > 0; }));
  EXPECT_EQ(Health(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("liveness"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(server_->WhyNotHealthy(), "the device has failed");
  grpc::ClientContext context;
  const grpc::Status status = Stream(Ask("x", 1), context).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(status.error_message(), "the server has failed; its log says why");
  std::this_thread::sleep_for(milliseconds(600));
  EXPECT_EQ(told, 1);
}

TEST_F(ServerTest, ATakenAddressIsNamed) {
  Start();
  GrpcServerOptions options = options_;
  options.listen = server_->address();
  const auto second = GrpcServer::Start(options, metrics_);
  EXPECT_EQ(second.status(), absl::UnavailableError("cannot listen on " + server_->address() +
                                                    ": Address already in use"));
  options.listen = "nonsense";
  EXPECT_EQ(GrpcServer::Start(options, metrics_).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ServerTest, RunningCallsEndWithinTheGrace) {
  engine_.step = milliseconds(10);
  facts_.max_length = 100'000;
  Start();
  grpc::ClientContext context;
  const auto reader = stub_->GenerateStream(&context, Ask("x", 30));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  int tokens = event.token_ids_size();
  std::thread shutdown([&] { server_->Shutdown(std::chrono::seconds(30)); });
  while (reader->Read(&event)) tokens += event.token_ids_size();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 30);
  shutdown.join();
}

TEST_F(ServerTest, WhatIsLeftAfterTheGraceIsCancelled) {
  engine_.step = milliseconds(1);
  facts_.max_length = 100'000;
  Start();
  grpc::ClientContext context;
  const auto reader = stub_->GenerateStream(&context, Ask("x", 50'000));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  const auto start = Clock::now();
  server_->Shutdown(milliseconds(100));
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(20));
  EXPECT_TRUE(engine_.WaitForEnds(1));
  while (reader->Read(&event)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
}

// A tokenizer that waits to be let go on.
class BlockingTokenizer final : public Tokenizer {
 public:
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view,
                                              const TokenizerOptions&) const override {
    std::unique_lock lock(mutex_);
    ++inside_;
    wake_.wait(lock, [this] { return open_; });
    return std::vector<int32_t>{1};
  }
  absl::StatusOr<std::vector<int32_t>> EncodeChat(const ProvenText&) const override {
    return std::vector<int32_t>{1};
  }
  std::string_view TokenBytes(int32_t) const override { return ""; }
  bool IsSpecial(int32_t) const override { return false; }
  int32_t vocab_size() const override { return 259; }
  std::optional<int32_t> bos_token_id() const override { return std::nullopt; }
  std::vector<int32_t> end_token_ids() const override { return {}; }
  std::string_view bos_token() const override { return ""; }
  std::string_view eos_token() const override { return ""; }
  const std::optional<std::string>& chat_template() const override { return none_; }

  int inside() const {
    const std::lock_guard lock(mutex_);
    return inside_;
  }
  void Open() {
    {
      const std::lock_guard lock(mutex_);
      open_ = true;
    }
    wake_.notify_all();
  }

 private:
  const std::optional<std::string> none_;
  mutable std::mutex mutex_;
  mutable std::condition_variable wake_;
  mutable int inside_ = 0;
  bool open_ = false;
};

class SlowTokenizingTest : public ServerTest {
 protected:
  SlowTokenizingTest() {
    facts_.tokenizer = &blocking_;
    options_.work = {.threads = 1, .max_jobs = 1, .max_bytes = 1000};
    Start();
  }
  ~SlowTokenizingTest() override {
    blocking_.Open();
    for (std::thread& thread : threads_) thread.join();
  }

  // A call that is being tokenised, and after it others that wait.
  void Occupy() {
    threads_.emplace_back([this] {
      grpc::ClientContext context;
      EXPECT_TRUE(Stream(Ask("x", 1), context).status.ok());
    });
    EXPECT_TRUE(Eventually([&] { return blocking_.inside() == 1; }));
  }

  BlockingTokenizer blocking_;
  std::vector<std::thread> threads_;
};

TEST_F(SlowTokenizingTest, TheQueueIsBoundedAndTheRestStillAnswers) {
  Occupy();
  // Of two more calls one waits, whichever arrives first, and the other is refused.
  std::mutex mutex;
  std::vector<grpc::Status> ended;
  const auto count = [&] {
    const std::lock_guard lock(mutex);
    return ended.size();
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 2; ++i) {
    callers.emplace_back([&] {
      grpc::ClientContext context;
      grpc::Status status = Stream(Ask("x", 1), context).status;
      const std::lock_guard lock(mutex);
      ended.push_back(std::move(status));
    });
  }
  EXPECT_TRUE(Eventually([&] { return count() == 1; }));
  EXPECT_GE(Count("sirocco_rejected_total{reason=\"queue_full\"}"), 1);
  grpc::ClientContext context;
  v1::Model model;
  EXPECT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  EXPECT_EQ(Health(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(count(), 1u);
  blocking_.Open();
  for (std::thread& caller : callers) caller.join();
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0].error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(DetailOf<google::rpc::RetryInfo>(ended[0]).retry_delay().seconds(), 0);
  EXPECT_TRUE(ended[1].ok()) << ended[1].error_message();
}

TEST_F(SlowTokenizingTest, ADeadlineThatPassesBeforeTheEngineIsOfTheQueue) {
  Occupy();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + milliseconds(200));
  EXPECT_EQ(Stream(Ask("x", 1), context).status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // The server's clock may run a little behind the client's, and gRPC rounds timeouts up.
  std::this_thread::sleep_for(milliseconds(100));
  blocking_.Open();
  EXPECT_TRUE(
      Eventually([&] { return Count("sirocco_deadline_exceeded_total{stage=\"queue\"}") == 1; }));
  EXPECT_TRUE(Eventually([&] { return Calls("GenerateStream", "DEADLINE_EXCEEDED") == 1; }));
  EXPECT_TRUE(Eventually([&] { return Calls("GenerateStream", "OK") == 1; }));
  EXPECT_EQ(engine_.requests().size(), 1u);
}

}  // namespace
}  // namespace sirocco
