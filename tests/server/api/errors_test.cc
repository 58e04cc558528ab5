#include "server/api/errors.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"

namespace sirocco {
namespace {

template <typename Detail>
Detail DetailOf(const grpc::Status& status) {
  google::rpc::Status rpc;
  EXPECT_TRUE(rpc.ParseFromString(status.error_details()));
  EXPECT_EQ(rpc.code(), status.error_code());
  EXPECT_EQ(rpc.message(), status.error_message());
  Detail detail;
  for (const auto& any : rpc.details()) {
    if (any.UnpackTo(&detail)) return detail;
  }
  ADD_FAILURE() << "no " << Detail::descriptor()->full_name();
  return detail;
}

TEST(Errors, InvalidFieldNamesFieldValueAndRange) {
  const grpc::Status status =
      ToGrpcStatus(InvalidField("sampling.top_p", "1.5", "above 0, at most 1"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "sampling.top_p: is 1.5; allowed: above 0, at most 1");
  const auto detail = DetailOf<google::rpc::BadRequest>(status);
  ASSERT_EQ(detail.field_violations_size(), 1);
  EXPECT_EQ(detail.field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(detail.field_violations(0).description(), "is 1.5; allowed: above 0, at most 1");
}

TEST(Errors, RetryInfo) {
  const grpc::Status status = ToGrpcStatus(WithRetryInfo(
      absl::ResourceExhaustedError("the queue is full"), std::chrono::milliseconds(1500)));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto detail = DetailOf<google::rpc::RetryInfo>(status);
  EXPECT_EQ(detail.retry_delay().seconds(), 1);
  EXPECT_EQ(detail.retry_delay().nanos(), 500'000'000);
}

TEST(Errors, WithoutDetailsOnlyCodeAndMessage) {
  const grpc::Status status = ToGrpcStatus(UnsupportedField("adapter"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(status.error_message(), "adapter: this server does not support it");
  EXPECT_EQ(status.error_details(), "");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

// Clients take 8 KiB of trailers, with the message percent-encoded and the details in base64.
TEST(Errors, WhateverIsQuotedTheTrailersStaySmall) {
  std::string text;
  for (int i = 0; i < 1'000'000; ++i) text += "é";
  for (const absl::Status& error :
       {InvalidField("chat", text), InvalidField("role", Quoted(text), text),
        absl::InternalError(text)}) {
    const grpc::Status status = ToGrpcStatus(error);
    EXPECT_LT(3 * status.error_message().size() + status.error_details().size() * 4 / 3, 6000);
    google::rpc::Status rpc;
    EXPECT_TRUE(status.error_details().empty() || rpc.ParseFromString(status.error_details()));
  }
}

TEST(Errors, TextIsCutWhereACharacterEnds) {
  EXPECT_EQ(Shortened("abc", 3), "abc");
  EXPECT_EQ(Shortened("abcd", 3), "abc...");
  EXPECT_EQ(Shortened("aéé", 4), "aé...");
  EXPECT_EQ(Shortened("a😀", 4), "a...");
  EXPECT_EQ(Shortened("😀", 2), "...");
}

TEST(Errors, QuotesEscapeWhatWouldForgeALogLine) {
  EXPECT_EQ(Quoted("a\nb\"c\\"), "\"a\\x0ab\\\"c\\\\\"");
  EXPECT_EQ(Quoted(std::string(100, 'x')), "\"" + std::string(64, 'x') + "...\"");
}

}  // namespace
}  // namespace sirocco
