#include "server/commands/json_lines.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace sirocco {
namespace {

struct Pipe {
  Pipe() {
    int fds[2];
    EXPECT_EQ(pipe(fds), 0);
    out = OwnedFd(fds[0]);
    in = OwnedFd(fds[1]);
  }
  void Write(const std::string& text) {
    EXPECT_EQ(write(in.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  OwnedFd out, in;
};

std::vector<std::string> Lines(const std::string& text, size_t max_line_bytes = kMaxLineBytes) {
  Pipe pipe;
  pipe.Write(text);
  pipe.in = OwnedFd();
  LineReader reader(pipe.out.get(), max_line_bytes);
  std::vector<std::string> lines;
  std::string line;
  absl::Status status;
  while (reader.Wait(&line, &status)) {
    lines.push_back(status.ok() ? line : std::string(status.message()));
  }
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(reader.consumed(), text.size());
  return lines;
}

using Strings = std::vector<std::string>;

TEST(LineReader, SplitsAndLeavesOutBlankLines) {
  EXPECT_EQ(Lines(""), Strings());
  EXPECT_EQ(Lines("\n \t\r\n\n"), Strings());
  EXPECT_EQ(Lines("a\nb\n"), (Strings{"a", "b"}));
  EXPECT_EQ(Lines("a\n\n b\r\nc"), (Strings{"a", " b\r", "c"}));
  EXPECT_EQ(Lines("  "), Strings());
}

TEST(LineReader, ALineThatIsTooLongIsOneLine) {
  EXPECT_EQ(Lines("abcd\nabcde\nab\n", 4),
            (Strings{"abcd", "the line is longer than 4 bytes", "ab"}));
  EXPECT_EQ(Lines("ab\nabcde", 4), (Strings{"ab", "the line is longer than 4 bytes"}));
  EXPECT_EQ(Lines("     \n", 4), Strings{"the line is longer than 4 bytes"});
}

TEST(LineReader, SaysWhereThereIsNothingYet) {
  Pipe pipe;
  LineReader reader(pipe.out.get());
  std::string line;
  absl::Status status;
  EXPECT_EQ(reader.Next(&line, &status), LineReader::Got::kNothing);
  pipe.Write("a\nb");
  reader.Fill();
  EXPECT_EQ(reader.Next(&line, &status), LineReader::Got::kLine);
  EXPECT_EQ(line, "a");
  EXPECT_EQ(reader.consumed(), 2u);
  EXPECT_EQ(reader.Next(&line, &status), LineReader::Got::kNothing);
  pipe.Write("c\n");
  reader.Fill();
  EXPECT_EQ(reader.Next(&line, &status), LineReader::Got::kLine);
  EXPECT_EQ(line, "bc");
  pipe.in = OwnedFd();
  EXPECT_EQ(reader.Next(&line, &status), LineReader::Got::kNothing);
  reader.Fill();
  EXPECT_EQ(reader.Next(&line, &status), LineReader::Got::kEnd);
  EXPECT_EQ(reader.Next(&line, &status), LineReader::Got::kEnd);
  EXPECT_TRUE(status.ok()) << status;
}

TEST(LineReader, LinesOverManyReads) {
  const std::string path = testing::TempDir() + "lines_over_many_reads";
  Strings expected;
  {
    std::ofstream out(path);
    for (int i = 0; i < 26; ++i) {
      expected.emplace_back(20'000 * i + 1, static_cast<char>('a' + i));
      out << expected.back() << "\n";
    }
  }
  const auto input = OpenInput(path);
  ASSERT_TRUE(input.ok()) << input.status();
  LineReader reader(input->get());
  Strings lines;
  std::string line;
  absl::Status status;
  while (reader.Wait(&line, &status)) lines.push_back(line);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(lines == expected);
  std::remove(path.c_str());
}

TEST(LineReader, WhatCannotBeReadIsAnError) {
  LineReader reader(/*fd=*/-1);
  std::string line;
  absl::Status status;
  EXPECT_FALSE(reader.Wait(&line, &status));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

TEST(OpenInput, NamesWhatIsNotThere) {
  const auto input = OpenInput("/no/such/file");
  EXPECT_EQ(input.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(input.status().message().find("/no/such/file"), absl::string_view::npos);
}

TEST(ErrorLine, BeginsAsAllDo) {
  EXPECT_EQ(ErrorLine(absl::InvalidArgumentError("a \"b\"\n\xff")),
            R"({"error":"a \"b\"\n\ufffd"})");
  EXPECT_EQ(ErrorLine(absl::InternalError("x")).find(kErrorStart), 0u);
}

}  // namespace
}  // namespace sirocco
