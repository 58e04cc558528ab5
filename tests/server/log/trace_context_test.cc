#include "server/log/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace sirocco {
namespace {

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c";
const std::string kParent = "b7ad6b7169203331";

TEST(Traceparent, IsRead) {
  const auto trace = ParseTraceparent("00-" + kTrace + "-" + kParent + "-01");
  ASSERT_TRUE(trace.has_value());
  EXPECT_EQ(trace->trace_id, kTrace);
  EXPECT_EQ(trace->parent_id, kParent);
}

TEST(Traceparent, OfALaterVersionMayHaveMore) {
  EXPECT_TRUE(ParseTraceparent("01-" + kTrace + "-" + kParent + "-01").has_value());
  EXPECT_TRUE(ParseTraceparent("cc-" + kTrace + "-" + kParent + "-01-what").has_value());
  EXPECT_FALSE(ParseTraceparent("cc-" + kTrace + "-" + kParent + "-01.what").has_value());
}

TEST(Traceparent, IsIgnoredWhereItIsNotWhatTheStandardAllows) {
  const std::string zeros(32, '0');
  for (const std::string& bad : {
           std::string(), std::string("00"), std::string(55, '-'),
           "ff-" + kTrace + "-" + kParent + "-01",                    // a version that is none
           "0x-" + kTrace + "-" + kParent + "-01",                    //
           "00-" + zeros + "-" + kParent + "-01",                     // an id that is none
           "00-" + kTrace + "-" + zeros.substr(16) + "-01",           //
           "00-0AF7651916CD43DD8448EB211C80319C-" + kParent + "-01",  // upper case
           "00-" + kTrace + "-" + kParent + "-01-more",               // of version 00
           "00-" + kTrace + "-" + kParent + "-0",                     // too short
           "00-" + kTrace + "_" + kParent + "-01",                    //
           "00-" + kTrace + "-" + kParent + "-0\n",                   //
       }) {
    EXPECT_FALSE(ParseTraceparent(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace sirocco
