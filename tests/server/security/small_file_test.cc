#include "server/security/small_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <string>

namespace sirocco {
namespace {

std::string PathOf(const char* name) { return testing::TempDir() + "/" + name; }

std::string Write(const char* name, const std::string& text) {
  std::ofstream(PathOf(name), std::ios::binary) << text;
  return PathOf(name);
}

void ExpectRefused(const std::string& path, absl::StatusCode code, const char* what) {
  const auto text = ReadSmallFile("some_key", path);
  EXPECT_EQ(text.status().code(), code) << text.status();
  const std::string message(text.status().message());
  EXPECT_EQ(message.find("some_key: " + path + ": "), 0u) << message;
  EXPECT_NE(message.find(what), std::string::npos) << message;
}

TEST(SmallFile, WholeWithEveryByte) {
  const std::string text("a\0\xff\n", 4);
  EXPECT_EQ(ReadSmallFile("k", Write("bytes", text)).value(), text);
  const std::string large(1 << 20, 'x');
  EXPECT_EQ(ReadSmallFile("k", Write("large", large)).value(), large);
}

TEST(SmallFile, WhatIsNone) {
  ExpectRefused(PathOf("nothing"), absl::StatusCode::kNotFound, "No such file");
  ExpectRefused(Write("empty", ""), absl::StatusCode::kInvalidArgument, "empty");
  ExpectRefused(Write("larger", std::string((1 << 20) + 1, 'x')),
                absl::StatusCode::kInvalidArgument, "larger than 1048576 bytes");
  ExpectRefused(testing::TempDir(), absl::StatusCode::kInvalidArgument, "no plain file");
  // Nobody writes into it: reading would take for ever.
  ASSERT_EQ(mkfifo(PathOf("pipe").c_str(), 0600), 0);
  ExpectRefused(PathOf("pipe"), absl::StatusCode::kInvalidArgument, "no plain file");
}

}  // namespace
}  // namespace sirocco
