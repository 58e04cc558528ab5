#include "server/api/to_request.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "google/rpc/error_details.pb.h"
#include "tests/server/testing/fakes.h"

namespace sirocco {
namespace {

v1::GenerateRequest FromText(const std::string& text) {
  v1::GenerateRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

class ToRequestTest : public testing::Test {
 protected:
  absl::StatusOr<Request> From(const std::string& text) {
    return ToRequest(FromText(text), facts_);
  }
  // With a prompt of one byte.
  absl::StatusOr<Request> FromX(const std::string& text) { return From("prompt: 'x' " + text); }

  Request MustFromX(const std::string& text) {
    auto request = FromX(text);
    EXPECT_TRUE(request.ok()) << text << ": " << request.status();
    return request.ok() ? *request : Request();
  }

  FakeTokenizer tokenizer_;
  ModelFacts facts_ = FakeFacts(&tokenizer_);
};

TEST_F(ToRequestTest, Defaults) {
  const Request request = MustFromX("");
  EXPECT_EQ(request.prompt, (std::vector<int32_t>{FakeTokenizer::kBos, 'x'}));
  EXPECT_EQ(request.n, 1);
  EXPECT_EQ(request.max_new_tokens, 62);
  EXPECT_FALSE(request.logprobs.has_value());
  EXPECT_FALSE(request.deadline.has_value());
  EXPECT_EQ(request.sampling.temperature, 0);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_EQ(request.sampling.top_p, 1);
  EXPECT_EQ(request.sampling.min_p, 0);
  EXPECT_EQ(request.sampling.repetition_penalty, 1);
  EXPECT_EQ(request.sampling.no_repeat_ngram_size, 0);
}

TEST_F(ToRequestTest, AllThatIsSet) {
  const Request request = MustFromX(R"pb(
    model: 'fake'
    n: 4
    max_new_tokens: 10
    request_id: 'r 1'
    add_special_tokens: false
    sampling {
      temperature: 0.5
      top_k: 40
      top_p: 0.9
      min_p: 0.1
      seed: 18446744073709551615
      repetition_penalty: 1.1
      presence_penalty: -100
      frequency_penalty: 100
      min_new_tokens: 10
      no_repeat_ngram_size: 3
      logit_bias { key: 258 value: -100 }
      logit_bias { key: 0 value: 100 }
      allowed_token_ids: [ 5, 4, 5 ]
      banned_token_ids: [ 4 ]
    }
    stop {
      strings: 'a'
      strings: 'b'
      token_ids: [ 9, 8, 9 ]
      ignore_eos: true
      include_stop_in_output: true
    }
    logprobs { top: 20 prompt: true })pb");
  EXPECT_EQ(request.id, "r 1");
  EXPECT_EQ(request.prompt, std::vector<int32_t>{'x'});
  EXPECT_EQ(request.n, 4);
  EXPECT_EQ(request.max_new_tokens, 10);
  const SamplingParams& sampling = request.sampling;
  EXPECT_EQ(sampling.temperature, 0.5f);
  EXPECT_EQ(sampling.top_k, 40);
  EXPECT_EQ(sampling.top_p, 0.9f);
  EXPECT_EQ(sampling.min_p, 0.1f);
  EXPECT_EQ(sampling.seed, 18446744073709551615u);
  EXPECT_EQ(sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(sampling.presence_penalty, -100);
  EXPECT_EQ(sampling.frequency_penalty, 100);
  EXPECT_EQ(sampling.min_new_tokens, 10);
  EXPECT_EQ(sampling.no_repeat_ngram_size, 3);
  EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{0, 100}, {258, -100}}));
  EXPECT_EQ(sampling.allowed_token_ids, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(sampling.banned_token_ids, std::vector<int32_t>{4});
  EXPECT_EQ(request.stop.strings, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request.stop.token_ids, (std::vector<int32_t>{8, 9}));
  EXPECT_TRUE(request.stop.ignore_eos);
  EXPECT_TRUE(request.stop.include_stop_in_output);
  ASSERT_TRUE(request.logprobs.has_value());
  EXPECT_EQ(request.logprobs->top, 20);
  EXPECT_TRUE(request.logprobs->prompt);
}

TEST_F(ToRequestTest, EachBadFieldIsNamed) {
  const struct {
    std::string request;
    std::string field;  // of the BadRequest
  } cases[] = {
      {"", "input"},
      {"prompt: ''", "prompt"},
      {"prompt_token_ids {}", "prompt_token_ids"},
      {"prompt_token_ids { ids: [ 1, 259 ] }", "prompt_token_ids.ids[1]"},
      {"prompt_token_ids { ids: 4294967295 }", "prompt_token_ids.ids[0]"},
      {"prompt: '" + std::string(63, 'x') + "'", "prompt"},
      {"prompt: '" + std::string(64, 'x') + "' add_special_tokens: false", "prompt"},
      {"prompt: '" + std::string(65, 'x') + "' max_new_tokens: 0 logprobs { prompt: true }",
       "prompt"},
      {"chat {}", "chat.messages"},
      {"chat { messages { role: 'user' } messages { role: 'robot' } }", "chat.messages[1].role"},
      {"chat { messages { content: 'x' } }", "chat.messages[0].role"},
      {"chat { messages { role: 'user' extra_json: '[]' } }", "chat.messages[0].extra_json"},
      {"chat { messages { role: 'user' extra_json: '{\"role\":1}' } }",
       "chat.messages[0].extra_json"},
      {"chat { messages { role: 'user' } template_kwargs_json: '[1]' }",
       "chat.template_kwargs_json"},
      {"chat { messages { role: 'user' } template_kwargs_json: '{\"tools\":[]}' }",
       "chat.template_kwargs_json"},
      {"chat { messages { role: 'user' } tools_json: '{}' }", "chat.tools_json"},
      {"chat { messages { role: 'user' } documents_json: '7' }", "chat.documents_json"},
      {"prompt: 'x' sampling { temperature: -0.1 }", "sampling.temperature"},
      {"prompt: 'x' sampling { temperature: 100.5 }", "sampling.temperature"},
      {"prompt: 'x' sampling { temperature: nan }", "sampling.temperature"},
      {"prompt: 'x' sampling { temperature: inf }", "sampling.temperature"},
      {"prompt: 'x' sampling { top_k: -2 }", "sampling.top_k"},
      {"prompt: 'x' sampling { top_p: 0 }", "sampling.top_p"},
      {"prompt: 'x' sampling { top_p: 1.01 }", "sampling.top_p"},
      {"prompt: 'x' sampling { top_p: nan }", "sampling.top_p"},
      {"prompt: 'x' sampling { min_p: -0.01 }", "sampling.min_p"},
      {"prompt: 'x' sampling { min_p: 1.5 }", "sampling.min_p"},
      {"prompt: 'x' sampling { min_p: nan }", "sampling.min_p"},
      {"prompt: 'x' sampling { repetition_penalty: 0 }", "sampling.repetition_penalty"},
      {"prompt: 'x' sampling { repetition_penalty: inf }", "sampling.repetition_penalty"},
      {"prompt: 'x' sampling { repetition_penalty: nan }", "sampling.repetition_penalty"},
      {"prompt: 'x' sampling { presence_penalty: 100.5 }", "sampling.presence_penalty"},
      {"prompt: 'x' sampling { presence_penalty: nan }", "sampling.presence_penalty"},
      {"prompt: 'x' sampling { frequency_penalty: -101 }", "sampling.frequency_penalty"},
      {"prompt: 'x' sampling { frequency_penalty: -inf }", "sampling.frequency_penalty"},
      {"prompt: 'x' max_new_tokens: 4 sampling { min_new_tokens: 5 }", "sampling.min_new_tokens"},
      {"prompt: 'x' sampling { min_new_tokens: 63 }", "sampling.min_new_tokens"},
      {"prompt: 'x' sampling { logit_bias { key: 259 value: 1 } }", "sampling.logit_bias"},
      {"prompt: 'x' sampling { logit_bias { key: 5 value: 100.5 } }", "sampling.logit_bias[5]"},
      {"prompt: 'x' sampling { logit_bias { key: 5 value: nan } }", "sampling.logit_bias[5]"},
      {"prompt: 'x' sampling { allowed_token_ids: 259 }", "sampling.allowed_token_ids[0]"},
      {"prompt: 'x' sampling { banned_token_ids: 259 }", "sampling.banned_token_ids[0]"},
      {"prompt: 'x' sampling { allowed_token_ids: [ 5, 6 ] banned_token_ids: [ 6, 7, 5 ] }",
       "sampling.banned_token_ids"},
      {"prompt: 'x' stop { strings: 'a' strings: '' }", "stop.strings[1]"},
      {"prompt: 'x' stop { token_ids: 259 }", "stop.token_ids[0]"},
      {"prompt: 'x' logprobs { top: 21 }", "logprobs.top"},
      {"prompt: 'x' n: 0", "n"},
      {"prompt: 'x' n: 5", "n"},
      {"prompt: 'x' max_new_tokens: 0", "max_new_tokens"},
      {"prompt: 'x' max_new_tokens: 0 logprobs { top: 1 }", "max_new_tokens"},
      {"prompt: 'x' request_id: 'a\\nb'", "request_id"},
      {"prompt: 'x' request_id: '" + std::string(257, 'r') + "'", "request_id"},
  };
  for (const auto& [text, field] : cases) {
    const absl::Status status = From(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    google::rpc::BadRequest detail;
    const auto payload = status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
    ASSERT_TRUE(payload.has_value()) << text;
    ASSERT_TRUE(detail.ParseFromString(std::string(*payload)));
    EXPECT_EQ(detail.field_violations(0).field(), field) << text;
    EXPECT_NE(detail.field_violations(0).description(), "");
    EXPECT_EQ(status.message().find(field), 0u) << status;
  }
}

TEST_F(ToRequestTest, SeventeenStopStrings) {
  v1::GenerateRequest request = FromText("prompt: 'x'");
  for (int i = 0; i < 16; ++i) request.mutable_stop()->add_strings("s");
  EXPECT_TRUE(ToRequest(request, facts_).ok());
  request.mutable_stop()->add_strings("s");
  EXPECT_EQ(std::string(ToRequest(request, facts_).status().message()),
            "stop.strings: is 17 strings; allowed: at most 16");
}

TEST_F(ToRequestTest, BanningTheWholeVocabularyLeavesNothing) {
  v1::GenerateRequest request = FromText("prompt: 'x'");
  for (uint32_t id = 0; id < 258; ++id) request.mutable_sampling()->add_banned_token_ids(id);
  EXPECT_TRUE(ToRequest(request, facts_).ok());
  request.mutable_sampling()->add_banned_token_ids(258);
  EXPECT_EQ(ToRequest(request, facts_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ToRequestTest, FeaturesThatAreNotThereAreNamed) {
  for (const char* field : {"adapter: 'a'", "constraint {}"}) {
    const absl::Status status = FromX(field).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << field;
    const std::string name(field, strcspn(field, ": {"));
    EXPECT_EQ(status.message().find(name), 0u) << status;
  }
  EXPECT_TRUE(FromX("adapter: ''").ok());
}

TEST_F(ToRequestTest, AnAnswerPrefixIsTheEndOfThePrompt) {
  const Request request = MustFromX("answer_prefix: 'yz'");
  EXPECT_EQ(request.prompt, (std::vector<int32_t>{FakeTokenizer::kBos, 'x', 'y', 'z'}));
  EXPECT_EQ(request.answer_prefix, "yz");
  EXPECT_EQ(request.max_new_tokens, 60);
  EXPECT_EQ(MustFromX("answer_prefix: ''").answer_prefix, "");
  // It makes no prompt of its own, and takes room as one does.
  EXPECT_EQ(From("answer_prefix: 'y'").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(From("prompt: '' answer_prefix: 'y'").status().code(),
            absl::StatusCode::kInvalidArgument);
  const absl::Status too_long = FromX("answer_prefix: '" + std::string(64, 'y') + "'").status();
  EXPECT_EQ(std::string(too_long.message()),
            "prompt: has 66 tokens; allowed: 1 ... 63 (max_length is 64)");
}

TEST_F(ToRequestTest, AnAnswerPrefixNeedsAText) {
  const absl::Status status = From("prompt_token_ids { ids: 1 } answer_prefix: 'y'").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()),
            "answer_prefix: is set beside prompt_token_ids; allowed: with prompt or chat (ids can "
            "hold the answer's first ones)");
  facts_.tokenizer = nullptr;
  EXPECT_EQ(FromX("answer_prefix: 'y'").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ToRequestTest, Priority) {
  EXPECT_EQ(FromX("")->priority, 0);
  EXPECT_EQ(FromX("priority: -2147483648")->priority, std::numeric_limits<int32_t>::min());
  EXPECT_EQ(FromX("priority: 7")->priority, 7);
}

TEST_F(ToRequestTest, CacheSalt) {
  EXPECT_EQ(FromX("")->cache_salt, "");
  EXPECT_EQ(FromX("cache_salt: 's'")->cache_salt, "s");
}

TEST_F(ToRequestTest, AnotherModel) {
  const absl::Status status = FromX("model: 'another'").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(status.message().find("\"another\""), absl::string_view::npos);
}

TEST_F(ToRequestTest, WithoutTokenizer) {
  facts_.tokenizer = nullptr;
  for (const char* text : {"prompt: 'x'", "chat { messages { role: 'user' } }",
                           "prompt_token_ids { ids: 5 } stop { strings: 'x' }"}) {
    EXPECT_EQ(From(text).status().code(), absl::StatusCode::kFailedPrecondition) << text;
  }
  EXPECT_TRUE(From("prompt_token_ids { ids: 5 } stop { token_ids: 1 }").ok());
}

TEST_F(ToRequestTest, WithoutChatTemplate) {
  EXPECT_EQ(From("chat { messages { role: 'user' } }").status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(ToRequestTest, LengthsAreCutToTheRoom) {
  const std::string prompt = "prompt_token_ids { ids: [ 1, 2, 3, 4 ] } ";
  EXPECT_EQ(From(prompt)->max_new_tokens, 60);
  EXPECT_EQ(From(prompt + "max_new_tokens: 7")->max_new_tokens, 7);
  EXPECT_EQ(From(prompt + "max_new_tokens: 4294967295")->max_new_tokens, 60);
  const auto cut = From(prompt + "max_new_tokens: 100 sampling { min_new_tokens: 90 }");
  EXPECT_EQ(cut->max_new_tokens, 60);
  EXPECT_EQ(cut->sampling.min_new_tokens, 60);
}

TEST_F(ToRequestTest, ScoredPromptMayFillMaxLength) {
  v1::GenerateRequest request = FromText("max_new_tokens: 0 logprobs { prompt: true }");
  for (int i = 0; i < 64; ++i) request.mutable_prompt_token_ids()->add_ids(i);
  const auto scored = ToRequest(request, facts_);
  ASSERT_TRUE(scored.ok()) << scored.status();
  EXPECT_EQ(scored->max_new_tokens, 0);
  request.set_max_new_tokens(1);
  EXPECT_FALSE(ToRequest(request, facts_).ok());
}

TEST_F(ToRequestTest, SamplingIsOnByTemperatureOrByTheModel) {
  EXPECT_EQ(MustFromX("sampling { top_p: 0.5 }").sampling.temperature, 0);
  EXPECT_EQ(MustFromX("sampling { temperature: 0.7 }").sampling.temperature, 0.7f);
  facts_.generation.temperature = 0.6f;
  EXPECT_EQ(MustFromX("").sampling.temperature, 0);  // the file does not say do_sample
  facts_.generation.do_sample = false;
  EXPECT_EQ(MustFromX("").sampling.temperature, 0);
  facts_.generation.do_sample = true;
  EXPECT_EQ(MustFromX("").sampling.temperature, 0.6f);
  EXPECT_EQ(MustFromX("sampling { temperature: 0 }").sampling.temperature, 0);
  EXPECT_FALSE(std::signbit(MustFromX("sampling { temperature: -0 }").sampling.temperature));
  facts_.generation.temperature.reset();
  EXPECT_EQ(MustFromX("").sampling.temperature, 1);
}

TEST_F(ToRequestTest, UnsetFieldsTakeTheModelsDefaults) {
  facts_.generation = {.do_sample = true,
                       .temperature = 0.6f,
                       .top_k = 20,
                       .top_p = 0.95f,
                       .min_p = 0.05f,
                       .repetition_penalty = 1.2f,
                       .no_repeat_ngram_size = 4};
  SamplingParams sampling = MustFromX("").sampling;
  EXPECT_EQ(sampling.top_k, 20);
  EXPECT_EQ(sampling.top_p, 0.95f);
  EXPECT_EQ(sampling.min_p, 0.05f);
  EXPECT_EQ(sampling.repetition_penalty, 1.2f);
  EXPECT_EQ(sampling.no_repeat_ngram_size, 4);
  sampling = MustFromX(
                 "sampling { top_k: -1 top_p: 1 min_p: 0 repetition_penalty: 1 "
                 "no_repeat_ngram_size: 0 }")
                 .sampling;
  EXPECT_EQ(sampling.top_k, 0);
  EXPECT_EQ(sampling.top_p, 1);
  EXPECT_EQ(sampling.min_p, 0);
  EXPECT_EQ(sampling.repetition_penalty, 1);
  EXPECT_EQ(sampling.no_repeat_ngram_size, 0);
  // Greedy takes no filters, but the penalties.
  sampling = MustFromX("sampling { temperature: 0 }").sampling;
  EXPECT_EQ(sampling.top_k, 0);
  EXPECT_EQ(sampling.top_p, 1);
  EXPECT_EQ(sampling.repetition_penalty, 1.2f);
}

TEST_F(ToRequestTest, ABadDefaultIsNamedAsTheModels) {
  facts_.generation.top_p = 0.0f;
  const absl::Status status = FromX("").status();
  EXPECT_NE(status.message().find("generation_config.json"), absl::string_view::npos) << status;
  EXPECT_TRUE(FromX("sampling { top_p: 1 }").ok());
}

TEST_F(ToRequestTest, FiltersThatFilterNothingAreOff) {
  const std::string on = "temperature: 1 ";
  EXPECT_EQ(MustFromX("sampling { " + on + "top_k: 259 }").sampling.top_k, 0);
  EXPECT_EQ(MustFromX("sampling { " + on + "top_k: 258 }").sampling.top_k, 258);
  EXPECT_EQ(MustFromX("sampling { no_repeat_ngram_size: 65 }").sampling.no_repeat_ngram_size, 0);
}

TEST_F(ToRequestTest, SeedsAndIdsAreDrawn) {
  std::set<uint64_t> seeds;
  std::set<std::string> ids;
  for (int i = 0; i < 100; ++i) {
    const Request request = MustFromX("");
    seeds.insert(request.sampling.seed);
    ids.insert(request.id);
  }
  EXPECT_EQ(seeds.size(), 100u);
  EXPECT_EQ(ids.size(), 100u);
  EXPECT_EQ(MustFromX("sampling { seed: 0 }").sampling.seed, 0u);
}

}  // namespace
}  // namespace sirocco
