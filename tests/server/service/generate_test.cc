#include <array>
#include <atomic>
#include <future>
#include <thread>

#include "tests/server/service/server_fixture.h"

namespace sirocco {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

class GenerateTest : public ServerTest {
 protected:
  GenerateTest() {
    facts_.max_length = 100'000;
    Start();
  }

  v1::GenerateResponse MustGenerate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    v1::GenerateResponse response;
    const grpc::Status status = stub_->Generate(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
};

TEST_F(GenerateTest, StreamEqualsUnary) {
  v1::GenerateRequest request = Ask("hello", 12);
  request.set_n(3);
  request.set_request_id("r1");
  request.mutable_logprobs()->set_top(2);
  request.mutable_logprobs()->set_prompt(true);
  const v1::GenerateResponse whole = MustGenerate(request);
  ASSERT_EQ(whole.completions_size(), 3);
  EXPECT_EQ(whole.completions(1).text(), "bcdefghijklm");
  EXPECT_EQ(whole.completions(1).logprobs_size(), 12);
  EXPECT_EQ(whole.prompt_logprobs_size(), 6);
  EXPECT_EQ(whole.usage().completion_tokens(), 36u);
  EXPECT_EQ(whole.seed(), 7u);

  grpc::ClientContext context;
  const Streamed stream = Stream(request, context);
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  v1::GenerateResponse joined;
  joined.set_request_id("r1");
  for (uint32_t i = 0; i < 3; ++i) joined.add_completions()->set_index(i);
  *joined.mutable_prompt_logprobs() = stream.events[0].prompt_logprobs();
  for (size_t i = 0; i < stream.events.size(); ++i) {
    const v1::GenerateEvent& event = stream.events[i];
    EXPECT_EQ(event.request_id(), "r1");
    EXPECT_EQ(event.has_usage(), i + 1 == stream.events.size());
    v1::Completion& completion = *joined.mutable_completions(event.index());
    EXPECT_EQ(completion.finish_reason(), v1::FINISH_REASON_UNSPECIFIED);
    completion.mutable_text()->append(event.text());
    completion.mutable_token_ids()->MergeFrom(event.token_ids());
    completion.mutable_logprobs()->MergeFrom(event.logprobs());
    completion.set_finish_reason(event.finish_reason());
    completion.set_cumulative_logprob(event.cumulative_logprob());
  }
  *joined.mutable_usage() = stream.events.back().usage();
  *joined.mutable_timing() = stream.events.back().timing();
  joined.set_seed(stream.events.back().seed());
  EXPECT_EQ(joined.SerializeAsString(), whole.SerializeAsString());
  EXPECT_EQ(Calls("Generate", "OK"), 1);
  EXPECT_EQ(Calls("GenerateStream", "OK"), 1);
}

TEST_F(GenerateTest, ManyStreamsAtOnce) {
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 64; ++i) {
    threads.emplace_back([this, i] {
      grpc::ClientContext context;
      const Streamed stream = Stream(Ask("x", 1 + i), context);
      EXPECT_TRUE(stream.status.ok());
      size_t tokens = 0;
      for (const auto& event : stream.events) tokens += event.token_ids_size();
      EXPECT_EQ(tokens, 1 + i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Calls("GenerateStream", "OK"), 64);
}

TEST_F(GenerateTest, CallsThatComeAndGoAreEachCountedOnce) {
  engine_.step = milliseconds(1);
  constexpr int kThreads = 8, kCalls = 40;
  std::atomic<int> ok = 0, cancelled = 0, expired = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < kCalls; ++j) {
        grpc::ClientContext context;
        if (j % 3 == 1) context.set_deadline(system_clock::now() + milliseconds(1 + (i * j) % 40));
        const auto reader = stub_->GenerateStream(&context, Ask("x", 1 + (7 * i + j) % 30));
        v1::GenerateEvent event;
        for (int reads = 0; reader->Read(&event); ++reads) {
          if (j % 3 == 2 && reads == (i + j) % 5) context.TryCancel();
        }
        const grpc::StatusCode code = reader->Finish().error_code();
        ++(code == grpc::StatusCode::OK          ? ok
           : code == grpc::StatusCode::CANCELLED ? cancelled
                                                 : expired);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto calls = [&] {
    return Calls("GenerateStream", "OK") + Calls("GenerateStream", "CANCELLED") +
           Calls("GenerateStream", "DEADLINE_EXCEEDED");
  };
  // A call that its client gave up before it was sent never came.
  EXPECT_TRUE(Eventually([&] { return calls() >= ok + cancelled; }));
  server_->Shutdown(std::chrono::seconds(5));
  EXPECT_LE(calls(), kThreads * kCalls);
  EXPECT_GE(Calls("GenerateStream", "OK"), ok);
  EXPECT_GT(ok, 0);
  EXPECT_GT(cancelled, 0);
  EXPECT_TRUE(engine_.WaitForEnds(engine_.requests().size()));
}

TEST_F(GenerateTest, ScoringAPromptAlone) {
  v1::GenerateRequest request = Ask("hello", 0);
  request.mutable_logprobs()->set_prompt(true);
  const v1::GenerateResponse response = MustGenerate(request);
  EXPECT_EQ(response.prompt_logprobs_size(), 6);
  EXPECT_EQ(response.completions(0).finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(response.completions(0).token_ids_size(), 0);
}

// More than a client takes in one message, unless told otherwise.
TEST_F(GenerateTest, LargeEventsAreSplit) {
  v1::GenerateRequest request = Ask(std::string(20'000, 'x'), 0);
  request.mutable_logprobs()->set_prompt(true);
  request.mutable_logprobs()->set_top(20);
  grpc::ClientContext context;
  const Streamed stream = Stream(request, context);
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  int scores = 0;
  for (const auto& event : stream.events) scores += event.prompt_logprobs_size();
  EXPECT_EQ(scores, 20'001);
  EXPECT_GT(stream.events.size(), 2u);
}

TEST_F(GenerateTest, ACancelledStreamEnds) {
  engine_.step = milliseconds(1);
  grpc::ClientContext context;
  const auto reader = stub_->GenerateStream(&context, Ask("x", 50'000));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(engine_.WaitForEnds(1));
  EXPECT_EQ(engine_.ends()[0], absl::StatusCode::kCancelled);
  EXPECT_TRUE(Eventually([&] { return Calls("GenerateStream", "CANCELLED") == 1; }));
  EXPECT_EQ(Calls("GenerateStream", "OK"), 0);
}

TEST_F(GenerateTest, ACancelledUnaryCallEnds) {
  engine_.step = milliseconds(1);
  grpc::ClientContext context;
  std::thread canceller([&] {
    EXPECT_TRUE(Eventually([&] { return !engine_.requests().empty(); }));
    context.TryCancel();
  });
  v1::GenerateResponse response;
  EXPECT_EQ(stub_->Generate(&context, Ask("x", 50'000), &response).error_code(),
            grpc::StatusCode::CANCELLED);
  canceller.join();
  ASSERT_TRUE(engine_.WaitForEnds(1));
  EXPECT_EQ(engine_.ends()[0], absl::StatusCode::kCancelled);
  EXPECT_TRUE(Eventually([&] { return Calls("Generate", "CANCELLED") == 1; }));
}

TEST_F(GenerateTest, ADeadlineIsToldFromACancellation) {
  engine_.step = milliseconds(1);
  for (int i = 0; i < 5; ++i) {
    grpc::ClientContext context;
    context.set_deadline(system_clock::now() + milliseconds(150 + 237 * i));
    const Streamed stream = Stream(Ask("x", 50'000), context);
    EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    EXPECT_FALSE(stream.events.empty());
  }
  ASSERT_TRUE(engine_.WaitForEnds(5));
  for (const absl::StatusCode end : engine_.ends()) {
    EXPECT_EQ(end, absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_TRUE(Eventually([&] { return Calls("GenerateStream", "DEADLINE_EXCEEDED") == 5; }));
  EXPECT_EQ(Calls("GenerateStream", "CANCELLED"), 0);
  EXPECT_EQ(Count("sirocco_deadline_exceeded_total{stage=\"decode\"}"), 5);
}

TEST_F(GenerateTest, TheEngineKnowsTheDeadline) {
  grpc::ClientContext context;
  context.set_deadline(system_clock::now() + std::chrono::seconds(30));
  Stream(Ask("x", 1), context);
  grpc::ClientContext none;
  Stream(Ask("x", 1), none);
  ASSERT_EQ(engine_.requests().size(), 2u);
  ASSERT_TRUE(engine_.requests()[0].deadline.has_value());
  const auto left = *engine_.requests()[0].deadline - Clock::now();
  EXPECT_GT(left, std::chrono::seconds(20));
  EXPECT_LT(left, std::chrono::seconds(31));
  EXPECT_FALSE(engine_.requests()[1].deadline.has_value());
}

TEST_F(GenerateTest, ASlowReaderGetsItsTokensMergedAndSlowsNobody) {
  engine_.step = std::chrono::microseconds(10);
  engine_.token_text = std::string(200, 'x');
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // takes 64 KiB ahead, not megabytes
  const auto slow = v1::Inference::NewStub(NewChannel(arguments));
  grpc::ClientContext context;
  const auto reader = slow->GenerateStream(&context, Ask("x", 20'000));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  int tokens = event.token_ids_size();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(MustGenerate(Ask("x", 5)).usage().completion_tokens(), 5u);
  ASSERT_TRUE(engine_.WaitForEnds(6));  // the slow one's too, though nobody read it
  int events = 1;
  for (; reader->Read(&event); ++events) tokens += event.token_ids_size();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 20'000);
  EXPECT_LT(events, 5'000);
}

TEST_F(GenerateTest, WhatTheEngineRefusesMayBeTriedAgain) {
  engine_.refusal = absl::ResourceExhaustedError("the queue is full: 1024 requests wait");
  grpc::ClientContext context;
  const grpc::Status status = Stream(Ask("x", 1), context).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "the queue is full: 1024 requests wait");
  EXPECT_GT(DetailOf<google::rpc::RetryInfo>(status).retry_delay().seconds(), 0);
  EXPECT_EQ(Calls("GenerateStream", "RESOURCE_EXHAUSTED"), 1);
}

class StalledReaderTest : public ServerTest {
 protected:
  StalledReaderTest() {
    facts_.max_length = 100'000;
    options_.write_stall_timeout = milliseconds(300);
    Start();
  }
};

TEST_F(StalledReaderTest, IsEnded) {
  engine_.step = std::chrono::microseconds(10);
  engine_.token_text = std::string(2000, 'x');
  grpc::ClientContext context;
  const auto reader = stub_->GenerateStream(&context, Ask("x", 50'000));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_TRUE(Eventually([&] { return Calls("GenerateStream", "CANCELLED") == 1; }));
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

// Keeps all threads on which gRPC calls back in this process, the server's among them.
class ThreadsThatWait {
 public:
  explicit ThreadsThatWait(v1::Inference::Stub& stub) {
    for (Call& call : calls_) {
      stub.async()->GetModel(&call.context, &call.request, &call.response,
                             [this](const grpc::Status&) {
                               ++begun_;
                               go_.wait();
                               ++ended_;
                             });
    }
    EXPECT_TRUE(Eventually([this] { return begun_ > 0; }));
  }
  ~ThreadsThatWait() {
    promise_.set_value();
    EXPECT_TRUE(Eventually([this] { return ended_ == calls_.size(); }));
  }

 private:
  struct Call {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    v1::Model response;
  };
  std::array<Call, 64> calls_;  // more than it has threads
  std::promise<void> promise_;
  const std::shared_future<void> go_ = promise_.get_future().share();
  std::atomic<size_t> begun_{0}, ended_{0};
};

TEST_F(StalledReaderTest, AServerThatIsHeldUpHasNoStalledReader) {
  engine_.step = std::chrono::microseconds(500);
  grpc::ClientContext context;
  const auto reader = stub_->GenerateStream(&context, Ask("x", 2000));
  v1::GenerateEvent event;
  size_t tokens = 0;
  const auto read = [&] {
    const bool more = reader->Read(&event);
    if (more) tokens += event.token_ids_size();
    return more;
  };
  ASSERT_TRUE(read());
  {
    const ThreadsThatWait wait(*stub_);
    std::this_thread::sleep_for(3 * options_.write_stall_timeout);
  }
  while (read()) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(tokens, 2000u);
}

TEST_F(StalledReaderTest, AnEngineThatTakesItsTimeIsNoStalledReader) {
  engine_.step = milliseconds(700);
  grpc::ClientContext context;
  const Streamed stream = Stream(Ask("x", 2), context);
  EXPECT_TRUE(stream.status.ok()) << stream.status.error_message();
}

}  // namespace
}  // namespace sirocco
