#include "tests/faults/schedule.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>

namespace sirocco::faults {
namespace {

// Which of the next calls of that kind fail: 'x', the others '.'.
std::string Next(Schedule& schedule, int calls, const char* kind = "file",
                 const char* call = "read") {
  std::string text;
  for (int i = 0; i < calls; ++i) text += schedule.Fails(kind, call) ? 'x' : '.';
  return text;
}

TEST(ScheduleTest, CountsFromOne) {
  Schedule once("file:read@3"), from("file:read@3+"), every("file:read@3/2"), none("");
  EXPECT_EQ(Next(once, 8), "..x.....");
  EXPECT_EQ(Next(from, 8), "..xxxxxx");
  EXPECT_EQ(Next(every, 8), "..x.x.x.");
  EXPECT_EQ(Next(none, 8), "........");
  EXPECT_EQ(from.fired(), 6);
}

TEST(ScheduleTest, EachRuleCountsItsOwn) {
  Schedule schedule("file@2,file:open@2,socket:write@1");
  ASSERT_TRUE(schedule.good());
  EXPECT_EQ(Next(schedule, 1, "file", "read"), ".");
  EXPECT_EQ(Next(schedule, 1, "file", "open"), "x");  // the second of the kind
  EXPECT_EQ(Next(schedule, 1, "file", "open"), "x");  // the second of the call
  EXPECT_EQ(Next(schedule, 2, "socket", "write"), "x.");
  EXPECT_EQ(Next(schedule, 3, "device", "launch"), "...");
}

TEST(ScheduleTest, TellsWhatIsNoSchedule) {
  for (const char* text : {"file", "file:read", "file:read@", "file:read@0", "file:read@-1", "@3",
                           "file:read@3-", "file:read@3/", "file:read@3/0", "file:read@3+4", ",",
                           "file@1,socket", "file@99999999999999999999"}) {
    EXPECT_FALSE(Schedule(text).good()) << text;
  }
  std::string many = "file@1";
  for (int i = 0; i < 15; ++i) many += ",file@1";
  EXPECT_TRUE(Schedule(many).good());
  EXPECT_FALSE(Schedule(many + ",file@1").good());
  EXPECT_FALSE(Schedule(std::string(2000, ',')).good());
}

TEST(ScheduleTest, FollowsAFile) {
  const std::string path = testing::TempDir() + "/schedule", made = path + ".new";
  const auto say = [&](const char* text) {
    std::ofstream(made) << text;
    ASSERT_EQ(std::rename(made.c_str(), path.c_str()), 0);
  };
  Schedule schedule(path);
  EXPECT_EQ(Next(schedule, 3), "...");
  say("file:read@2\n");
  EXPECT_EQ(Next(schedule, 4), ".x..");
  say("file:read@2+");
  EXPECT_EQ(Next(schedule, 3), ".xx");
  EXPECT_EQ(schedule.fired(), 2);
  std::remove(path.c_str());
  EXPECT_EQ(Next(schedule, 3), "...");
}

}  // namespace
}  // namespace sirocco::faults
