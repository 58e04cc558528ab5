#include "server/api/methods.h"

#include <gtest/gtest.h>

#include "server/api/version.h"
#include "tests/server/testing/fakes.h"

namespace sirocco {
namespace {

class MethodsTest : public testing::Test {
 protected:
  FakeTokenizer tokenizer_;
  ModelFacts facts_ = FakeFacts(&tokenizer_);
};

TEST_F(MethodsTest, Model) {
  const v1::Model model = ToModel(facts_);
  EXPECT_EQ(model.name(), "fake");
  EXPECT_EQ(model.architecture(), "llama");
  EXPECT_EQ(model.max_length(), 64u);
  EXPECT_EQ(model.max_batch_size(), 4u);
  EXPECT_EQ(model.vocab_size(), 259u);
  EXPECT_EQ(model.dtype(), "float32");
  EXPECT_EQ(model.backend(), "cpu");
  EXPECT_EQ(model.device(), "a fake");
  EXPECT_EQ(model.mode(), "layer_graph");
  ASSERT_EQ(model.end_token_ids_size(), 1);
  EXPECT_EQ(model.end_token_ids(0), 257u);
  EXPECT_TRUE(model.has_tokenizer());
  EXPECT_FALSE(model.has_chat_template());
  EXPECT_EQ(model.version(), kVersion);
  EXPECT_EQ(model.parameter_count(), 12u);
}

TEST_F(MethodsTest, Tokenize) {
  v1::TokenizeRequest request;
  EXPECT_EQ(Tokenize(request, facts_).status().code(), absl::StatusCode::kInvalidArgument);
  request.set_text("");
  EXPECT_EQ(Tokenize(request, facts_)->token_ids_size(), 1);
  request.set_text("ab");
  request.set_add_special_tokens(false);
  const auto response = Tokenize(request, facts_);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(std::vector<uint32_t>(response->token_ids().begin(), response->token_ids().end()),
            (std::vector<uint32_t>{'a', 'b'}));
  facts_.tokenizer = nullptr;
  EXPECT_EQ(Tokenize(request, facts_).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(MethodsTest, Detokenize) {
  v1::DetokenizeRequest request;
  EXPECT_EQ(Detokenize(request, facts_)->text(), "");
  for (const uint32_t id : {256u, 104u, 105u}) request.add_token_ids(id);
  EXPECT_EQ(Detokenize(request, facts_)->text(), "hi");
  request.set_skip_special_tokens(false);
  EXPECT_EQ(Detokenize(request, facts_)->text(), "<s>hi");
  request.add_token_ids(259);
  EXPECT_EQ(std::string(Detokenize(request, facts_).status().message()),
            "token_ids[3]: is 259; allowed: 0 ... 258");
  facts_.tokenizer = nullptr;
  EXPECT_EQ(Detokenize(request, facts_).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(MethodsTest, AFewBytesCannotAskForGigabytes) {
  v1::DetokenizeRequest request;
  for (int i = 0; i < 100'000; ++i) request.add_token_ids(FakeTokenizer::kLong);
  EXPECT_EQ(Detokenize(request, facts_).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sirocco
