#include "server/log/lossy_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace sirocco {
namespace {

class LossyWriterTest : public testing::Test {
 protected:
  LossyWriterTest() {
    std::signal(SIGPIPE, SIG_IGN);  // as the program does
    EXPECT_EQ(pipe(ends_), 0);
    writer_ = std::make_unique<LossyWriter>(ends_[1]);
  }
  ~LossyWriterTest() override {
    for (const int end : ends_) close(end);
  }

  void Write(const std::string& line) {
    writer_->WriteLine(line, [](int64_t lost) { return std::to_string(lost) + " lost"; });
  }

  // All that can be read without waiting.
  std::string Read() {
    fcntl(ends_[0], F_SETFL, O_NONBLOCK);
    std::string out;
    char bytes[4096];
    for (ssize_t got; (got = read(ends_[0], bytes, sizeof(bytes))) > 0;) out.append(bytes, got);
    return out;
  }

  int ends_[2] = {-1, -1};
  std::unique_ptr<LossyWriter> writer_;
};

TEST_F(LossyWriterTest, WritesLines) {
  Write("one");
  Write("two");
  EXPECT_EQ(Read(), "one\ntwo\n");
}

TEST_F(LossyWriterTest, AFullPipeLosesLinesAndStopsNothing) {
  const std::string line(1000, 'x');
  for (int i = 0; i < 1000; ++i) Write(line);  // far more than a pipe holds
  const std::string full = Read();
  EXPECT_LT(full.size(), 500'000u);
  EXPECT_GT(full.size(), 1000u);
  Write("after");
  const std::string rest = Read();
  const size_t whole = full.size() / (line.size() + 1);
  EXPECT_EQ(rest.substr(rest.find_first_not_of('\n')),
            std::to_string(1000 - whole) + " lost\nafter\n");
  Write("later");
  EXPECT_EQ(Read(), "later\n");
}

// A line that is longer than what a pipe takes at once may break off; the next begins anew.
TEST_F(LossyWriterTest, ATornLineIsEnded) {
  Write(std::string(1 << 20, 'x'));
  const std::string torn = Read();
  EXPECT_EQ(torn.find('\n'), std::string::npos);
  EXPECT_GT(torn.size(), 4096u);
  Write("after");
  EXPECT_EQ(Read(), "\n1 lost\nafter\n");
}

TEST_F(LossyWriterTest, AReaderThatIsGoneIsNoError) {
  close(ends_[0]);
  Write("one");
  Write("two");
  ends_[0] = dup(ends_[1]);
}

TEST_F(LossyWriterTest, LinesOfSeveralThreadsDoNotMix) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this, i] {
      for (int j = 0; j < 10; ++j) Write(std::string(100, static_cast<char>('a' + i)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string all = Read();
  ASSERT_EQ(all.size(), 4u * 10 * 101);
  for (size_t at = 0; at < all.size(); at += 101) {
    EXPECT_EQ(std::set<char>(all.begin() + at, all.begin() + at + 100).size(), 1u);
    EXPECT_EQ(all[at + 100], '\n');
  }
}

}  // namespace
}  // namespace sirocco
