// The line that every call leaves in the log.
#include <nlohmann/json.hpp>
#include <sstream>

#include "server/log/log.h"
#include "tests/server/service/server_fixture.h"

namespace sirocco {
namespace {

using Json = nlohmann::json;

class RequestLogTest : public ServerTest {
 protected:
  RequestLogTest() {
    ConfigureLog("info", "json");
    testing::internal::CaptureStderr();
  }

  // The lines of all calls that have come, in their order.
  std::vector<Json> Lines() {
    server_->Shutdown(std::chrono::seconds(5));
    std::istringstream text(testing::internal::GetCapturedStderr());
    std::vector<Json> lines;
    for (std::string line; std::getline(text, line);) {
      Json parsed = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      EXPECT_FALSE(parsed.is_discarded()) << line;
      if (parsed.value("message", "") == "request") lines.push_back(std::move(parsed));
    }
    return lines;
  }
};

TEST_F(RequestLogTest, OfAStreamThatEndsWell) {
  Start();
  v1::GenerateRequest request = Ask("a secret", 5);
  request.set_request_id("r1");
  grpc::ClientContext context;
  context.AddMetadata("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  EXPECT_TRUE(Stream(request, context).status.ok());
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 1u);
  Json line = lines[0];
  EXPECT_GE(line["total_ms"].get<double>(), 1.0);  // five steps of 0.2 ms
  line.erase("total_ms");
  line.erase("time");
  EXPECT_EQ(line, Json::parse(R"({
      "level": "info", "message": "request", "method": "GenerateStream", "status": "OK",
      "id": "r1", "trace_id": "0af7651916cd43dd8448eb211c80319c", "parent_id": "b7ad6b7169203331",
      "model": "fake", "stage": "decode", "prompt_tokens": 9, "cached_prompt_tokens": 0,
      "completion_tokens": 5, "queue_ms": 1.0, "prefill_ms": 2.0, "decode_ms": 3.0})"));
}

TEST_F(RequestLogTest, OfWhatIsRefused) {
  Start();
  grpc::ClientContext context, again;
  context.AddMetadata("traceparent", "nonsense");
  v1::GenerateResponse response;
  v1::GenerateRequest hot = Ask("x", 1);
  hot.mutable_sampling()->set_temperature(-1);
  EXPECT_FALSE(stub_->Generate(&context, hot, &response).ok());
  server_->SetDraining();
  EXPECT_FALSE(stub_->Generate(&again, Ask("x", 1), &response).ok());
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["status"], "INVALID_ARGUMENT");
  EXPECT_EQ(lines[0]["error"], "sampling.temperature: is -1; allowed: 0 ... 100");
  EXPECT_EQ(lines[0]["stage"], "queue");
  EXPECT_EQ(lines[0]["completion_tokens"], 0);
  EXPECT_FALSE(lines[0].contains("trace_id"));
  EXPECT_EQ(lines[1]["status"], "UNAVAILABLE");
  EXPECT_EQ(lines[1]["error"], "the server is draining");
  EXPECT_FALSE(lines[1].contains("id"));
}

// What the engine did for a client that has gone is known when the engine has let go of it.
TEST_F(RequestLogTest, OfAClientThatHasGone) {
  facts_.max_length = 100'000;
  engine_.step = std::chrono::milliseconds(1);
  Start();
  grpc::ClientContext context;
  const auto reader = stub_->GenerateStream(&context, Ask("x", 50'000));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return Calls("GenerateStream", "CANCELLED") == 1; }));
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["status"], "CANCELLED");
  EXPECT_EQ(lines[0]["error"], "the client has gone");
  EXPECT_EQ(lines[0]["stage"], "decode");
  EXPECT_EQ(lines[0]["decode_ms"], 3.0);
}

TEST_F(RequestLogTest, OfOtherMethods) {
  Start();
  grpc::ClientContext context;
  v1::Model model;
  EXPECT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["method"], "GetModel");
  EXPECT_EQ(lines[0]["model"], "fake");
  EXPECT_FALSE(lines[0].contains("prompt_tokens"));
}

TEST_F(RequestLogTest, WithPromptsOnlyWhereTheyAreAskedFor) {
  options_.log_prompts = true;
  facts_.max_length = 100'000;
  Start();
  v1::GenerateRequest chat = Ask("", 1), ids = Ask("", 1);
  for (const char* role : {"system", "user"}) {
    v1::ChatMessage* message = chat.mutable_chat()->add_messages();
    message->set_role(role);
    message->set_content("be brief");
  }
  for (const uint32_t id : {5, 6}) ids.mutable_prompt_token_ids()->add_ids(id);
  for (const v1::GenerateRequest& request :
       {Ask("a \n line", 1), Ask(std::string(10'000, 'x'), 1), chat, ids}) {
    grpc::ClientContext context;
    v1::GenerateResponse response;
    stub_->Generate(&context, request, &response);
  }
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["prompt"], "a \n line");
  EXPECT_EQ(lines[1]["prompt"], std::string(4096, 'x') + "...");
  EXPECT_EQ(lines[2]["prompt"], "system: be brief\nuser: be brief");
  EXPECT_EQ(lines[3]["prompt"], "5 6");
}

}  // namespace
}  // namespace sirocco
