#include "server/api/beam.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "server/api/to_request.h"
#include "tests/server/testing/fakes.h"

namespace sirocco {
namespace {

class BeamOptionsTest : public testing::Test {
 protected:
  absl::StatusOr<Request> From(const std::string& text) {
    v1::GenerateRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString("prompt: 'x' " + text, &request));
    return ToRequest(request, facts_);
  }
  std::string Refusal(const std::string& text) {
    const absl::Status status = From(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(status.message());
  }

  FakeTokenizer tokenizer_;
  ModelFacts facts_ = FakeFacts(&tokenizer_);
};

TEST_F(BeamOptionsTest, AreThoseOfTheSearch) {
  const auto plain = From("beam { num_beams: 3 }");
  ASSERT_TRUE(plain.ok()) << plain.status();
  ASSERT_TRUE(plain->beam.has_value());
  EXPECT_EQ(plain->beam->num_beams, 3);
  EXPECT_EQ(plain->beam->length_penalty, 1);
  EXPECT_FALSE(plain->beam->early_stopping);
  EXPECT_EQ(plain->n, 1);
  const auto all = From(
      "beam { num_beams: 4 length_penalty: 0 early_stopping: true num_return_sequences: 2 } n: 1 "
      "sampling { temperature: 0 repetition_penalty: 1.2 min_new_tokens: 2 } stop { token_ids: 7 "
      "}");
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->beam->num_beams, 4);
  EXPECT_EQ(all->beam->length_penalty, 0);
  EXPECT_TRUE(all->beam->early_stopping);
  EXPECT_EQ(all->n, 2);
  EXPECT_EQ(all->sampling.repetition_penalty, 1.2f);
}

TEST_F(BeamOptionsTest, OneBeamIsGreedy) {
  const auto request = From("beam { num_beams: 1 num_return_sequences: 1 }");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_FALSE(request->beam.has_value());
  EXPECT_EQ(request->n, 1);
}

TEST_F(BeamOptionsTest, AModelThatSamplesByDefaultDoesNot) {
  facts_.generation.do_sample = true;
  facts_.generation.temperature = 0.6f;
  facts_.generation.top_p = 0.9f;
  ASSERT_GT(From("")->sampling.temperature, 0);
  for (const char* beams : {"1", "2"}) {
    const auto request = From("beam { num_beams: " + std::string(beams) + " }");
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_EQ(request->sampling.temperature, 0);
    EXPECT_EQ(request->sampling.top_p, 1);
  }
}

TEST_F(BeamOptionsTest, OutOfRange) {
  // max_batch_size is 4.
  EXPECT_EQ(Refusal("beam {}"), "beam.num_beams: is 0; allowed: 1 ... 4");
  EXPECT_EQ(Refusal("beam { num_beams: 5 }"), "beam.num_beams: is 5; allowed: 1 ... 4");
  facts_.max_batch_size = 64;
  EXPECT_EQ(Refusal("beam { num_beams: 4294967295 }"),
            "beam.num_beams: is 4294967295; allowed: 1 ... 10");
  EXPECT_EQ(Refusal("beam { num_beams: 3 num_return_sequences: 4 }"),
            "beam.num_return_sequences: is 4; allowed: at most 3 (num_beams)");
  EXPECT_EQ(Refusal("beam { num_beams: 3 length_penalty: nan }"),
            "beam.length_penalty: is nan; allowed: -10 ... 10");
  EXPECT_EQ(Refusal("beam { num_beams: 3 length_penalty: -10.5 }"),
            "beam.length_penalty: is -10.5; allowed: -10 ... 10");
}

TEST_F(BeamOptionsTest, WhatCannotBeCombined) {
  EXPECT_EQ(Refusal("beam { num_beams: 2 } n: 2"),
            "n: is 2; allowed: 1 beside beam, which has num_return_sequences");
  EXPECT_EQ(Refusal("beam { num_beams: 2 } sampling { temperature: 0.5 }"),
            "sampling.temperature: is 0.5; allowed: 0 beside beam");
  EXPECT_EQ(Refusal("beam { num_beams: 2 } stop { strings: 'x' }"),
            "stop.strings: cannot be combined with beam; stop.token_ids can");
  EXPECT_EQ(Refusal("beam { num_beams: 2 } logprobs {} sampling { banned_token_ids: 5 }"),
            "logprobs: cannot be combined with beam where penalties, logit_bias, "
            "no_repeat_ngram_size, allowed_token_ids or banned_token_ids apply");
  std::string stops;
  for (int id = 0; id < 18; ++id) stops += " token_ids: " + std::to_string(id);
  EXPECT_EQ(Refusal("beam { num_beams: 2 } stop {" + stops + "}"),
            "beam.num_beams: is 2; allowed: with 19 end and stop tokens at most 1");
}

}  // namespace
}  // namespace sirocco
