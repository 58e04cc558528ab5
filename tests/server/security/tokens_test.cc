#include "server/security/tokens.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace sirocco {
namespace {

TokenRefusal Check(const Tokens& tokens, std::string_view method,
                   const std::vector<std::string_view>& authorization) {
  const TokenVerdict verdict = tokens.Check(method, authorization);
  const absl::StatusCode expected = verdict.refusal == TokenRefusal::kNone ? absl::StatusCode::kOk
                                    : verdict.refusal == TokenRefusal::kForbidden
                                        ? absl::StatusCode::kPermissionDenied
                                        : absl::StatusCode::kUnauthenticated;
  EXPECT_EQ(verdict.status.code(), expected);
  return verdict.refusal;
}

TEST(Tokens, WhoMayCallWhat) {
  const auto tokens = Tokens::Parse(
      "# all\n"
      "alpha\n"
      "\n"
      "  beta\tGenerate,GetModel \r\n");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->size(), 2u);
  EXPECT_EQ(Check(*tokens, "Tokenize", {"Bearer alpha"}), TokenRefusal::kNone);
  EXPECT_EQ(Check(*tokens, "Tokenize", {"BEARER alpha"}), TokenRefusal::kNone);
  EXPECT_EQ(Check(*tokens, "Generate", {"Bearer beta"}), TokenRefusal::kNone);
  EXPECT_EQ(Check(*tokens, "GetModel", {"Bearer beta"}), TokenRefusal::kNone);
  EXPECT_EQ(Check(*tokens, "Tokenize", {"Bearer beta"}), TokenRefusal::kForbidden);
  EXPECT_EQ(Check(*tokens, "", {"Bearer beta"}), TokenRefusal::kForbidden);
  EXPECT_EQ(Check(*tokens, "Generate", {"Bearer gamma"}), TokenRefusal::kUnknown);
  EXPECT_EQ(Check(*tokens, "Generate", {"Bearer Alpha"}), TokenRefusal::kUnknown);
  EXPECT_EQ(Check(*tokens, "Generate", {"Bearer "}), TokenRefusal::kUnknown);
  EXPECT_EQ(Check(*tokens, "Generate", {"Bearer # all"}), TokenRefusal::kUnknown);
  for (const std::vector<std::string_view>& none : {std::vector<std::string_view>{},
                                                    {""},
                                                    {"alpha"},
                                                    {"Bearer"},
                                                    {"Basic alpha"},
                                                    {"Bearer alpha", "Bearer alpha"}}) {
    EXPECT_EQ(Check(*tokens, "Generate", none), TokenRefusal::kMissing);
  }
}

TEST(Tokens, ErrorsNameTheLineAndNothingOfIt) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "holds no token"},
      {"# none\n\n", "holds no token"},
      {"secret-a\nsecret,b\n", "line 2"},
      {"secret-a Generate, GetModel\n", "line 1"},
      {"\nsecret-a generate\n", "line 2"},
      {"secret-a Generate,\n", "line 1"},
      {"secret-a\nsecret-b\nsecret-a GetModel\n", "line 3"},
      {std::string(4097, 's') + "\n", "line 1"},
      {"secret-\xff\n", "line 1"},
  };
  for (const auto& [text, expected] : cases) {
    const auto tokens = Tokens::Parse(text);
    ASSERT_FALSE(tokens.ok()) << text;
    const std::string message(tokens.status().message());
    EXPECT_NE(message.find(expected), std::string::npos) << message;
    EXPECT_EQ(message.find("secret"), std::string::npos) << message;
  }
}

TEST(Tokens, TheFirst) {
  EXPECT_EQ(FirstToken("# mine\n\n alpha Generate\nbeta\n").value(), "alpha");
  EXPECT_EQ(FirstToken("alpha").value(), "alpha");
  EXPECT_FALSE(FirstToken("# none\n").ok());
}

}  // namespace
}  // namespace sirocco
