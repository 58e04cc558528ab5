#include "server/log/log.h"

#include <gtest/gtest.h>

#include <string>

namespace sirocco {
namespace {

std::string Text(const LogFields& fields) {
  return LogLine(/*json=*/false, "NOW", LogLevel::kWarning, "a thing happened", fields);
}

std::string Json(const LogFields& fields) {
  return LogLine(/*json=*/true, "NOW", LogLevel::kInfo, "a thing happened", fields);
}

TEST(Log, TextIsOneLineOfWords) {
  EXPECT_EQ(Text({}), "NOW warning a thing happened");
  EXPECT_EQ(Text({{"name", "x"}, {"count", 3}, {"ms", 0.25}}),
            "NOW warning a thing happened name=x count=3 ms=0.25");
}

TEST(Log, WhatAClientSendsCannotForgeALineOrAField) {
  EXPECT_EQ(Text({{"id", "a\nNOW error b"}}),
            "NOW warning a thing happened id=\"a\\nNOW error b\"");
  EXPECT_EQ(Text({{"id", "a status=OK"}}), "NOW warning a thing happened id=\"a status=OK\"");
  EXPECT_EQ(Text({{"id", "\"a"}}), "NOW warning a thing happened id=\"\\\"a\"");
  EXPECT_EQ(Text({{"id", ""}}), "NOW warning a thing happened id=\"\"");
}

TEST(Log, JsonKeepsNumbersAndOrder) {
  EXPECT_EQ(Json({{"z", "x\n"}, {"count", int64_t{1} << 40}, {"ms", 1.5}}),
            "{\"time\":\"NOW\",\"level\":\"info\",\"message\":\"a thing happened\","
            "\"z\":\"x\\n\",\"count\":1099511627776,\"ms\":1.5}");
}

TEST(Log, WhatIsNoUtf8IsReplaced) {
  EXPECT_NE(Json({{"path", "a\xff z"}}).find("\"a\xef\xbf\xbd z\""), std::string::npos);
  EXPECT_NE(Text({{"path", "a\xff z"}}).find("\"a\xef\xbf\xbd z\""), std::string::npos);
}

}  // namespace
}  // namespace sirocco
