#include "server/commands/line_run.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/server/testing/fakes.h"

namespace sirocco {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

// Ends requests when it is told to.
class HandEngine final : public Engine {
 public:
  absl::StatusOr<std::shared_ptr<TokenStream>> Submit(Request request,
                                                      TokenStream::Listener listener) override {
    const std::lock_guard lock(mutex_);
    if (!fault_.ok()) return fault_;
    if (open_ >= most_open) return absl::ResourceExhaustedError("the queue is full");
    ++open_;
    streams_.push_back(std::make_shared<TokenStream>(std::move(listener)));
    ids_.push_back(request.id);
    return streams_.back();
  }
  bool Drain(std::chrono::milliseconds) override { return true; }
  absl::Status fault() const override {
    const std::lock_guard lock(mutex_);
    return fault_;
  }
  Clock::time_point last_step() const override { return {}; }
  bool has_work() const override { return false; }
  const Executor& executor() const override { return executor_; }

  size_t submitted() const {
    const std::lock_guard lock(mutex_);
    return streams_.size();
  }
  bool WaitForSubmitted(size_t count) const {
    return Eventually([&] { return submitted() >= count; });
  }
  // Ends the request that came as this one, with its id as text.
  void End(size_t number, const absl::Status& status = absl::OkStatus()) {
    StreamUpdate update;
    std::shared_ptr<TokenStream> stream;
    {
      const std::lock_guard lock(mutex_);
      --open_;
      stream = streams_[number];
      OutputDelta delta;
      delta.text = ids_[number];
      delta.finish_reason = FinishReason::kLength;
      update.deltas.push_back(std::move(delta));
    }
    update.done = true;
    update.status = status;
    stream->Put(std::move(update));
  }
  void Fail(const absl::Status& fault) {
    const std::lock_guard lock(mutex_);
    fault_ = fault;
  }

  size_t most_open = 1000;

 private:
  FakeExecutor executor_;
  mutable std::mutex mutex_;
  absl::Status fault_;
  size_t open_ = 0;
  std::vector<std::shared_ptr<TokenStream>> streams_;
  std::vector<std::string> ids_;
};

std::string Line(int number) {
  return absl::StrCat(R"({"prompt": "x", "requestId": "r)", number, "\"}\n");
}

class LineRunTest : public testing::Test {
 protected:
  void SetUp() override {
    std::remove(path_.c_str());
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    out_ = OwnedFd(fds[0]);
    in_ = OwnedFd(fds[1]);
    ASSERT_EQ(pipe(fds), 0);
    stop_out_ = OwnedFd(fds[0]);
    stop_in_ = OwnedFd(fds[1]);
    options_.stop_fd = stop_out_.get();
  }
  void TearDown() override {
    if (thread_.joinable()) {  // a test failed in its midst
      Stop();
      thread_.join();
    }
    std::remove(path_.c_str());
  }

  void Give(const std::string& text) {
    ASSERT_EQ(write(in_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void GiveLines(int count) {
    for (int i = 0; i < count; ++i) Give(Line(given_++));
  }
  void EndOfInput() { in_ = OwnedFd(); }
  void Stop() { ASSERT_EQ(write(stop_in_.get(), "x", 1), 1); }

  void Start(bool resume = false) {
    auto answers = AnswersFile::Open(path_, resume);
    ASSERT_TRUE(answers.ok()) << answers.status();
    answers_ = std::make_unique<AnswersFile>(*std::move(answers));
    run_ = std::make_unique<LineRun>(engine_, facts_, out_.get(), *answers_, options_);
    thread_ = std::thread([this] { status_ = run_->Run([](const LineRunProgress&) {}); });
  }
  absl::Status Join() {
    thread_.join();
    return status_;
  }

  // What each line of the output says: the answer's text, or the error.
  std::vector<std::string> Answers() const {
    std::vector<std::string> out;
    std::ifstream in(path_);
    for (std::string text; std::getline(in, text);) {
      const json line = json::parse(text);
      out.push_back(line.contains("error") ? "error: " + line["error"].get<std::string>()
                                           : line["completions"][0]["text"].get<std::string>());
    }
    return out;
  }
  bool WaitForAnswers(size_t count) const {
    return Eventually([&] { return Answers().size() >= count; });
  }
  static std::vector<std::string> Expected(int first, int end) {
    std::vector<std::string> out;
    for (int i = first; i < end; ++i) out.push_back(absl::StrCat("r", i));
    return out;
  }

  HandEngine engine_;
  FakeTokenizer tokenizer_;
  ModelFacts facts_ = FakeFacts(&tokenizer_);  // batches of 4
  LineRunOptions options_;
  const std::string path_ = testing::TempDir() + "line_run_" +
                            testing::UnitTest::GetInstance()->current_test_info()->name() +
                            ".jsonl";
  OwnedFd in_, out_, stop_in_, stop_out_;
  std::unique_ptr<AnswersFile> answers_;
  std::unique_ptr<LineRun> run_;
  std::thread thread_;
  absl::Status status_;
  int given_ = 0;
};

TEST_F(LineRunTest, AnswersInOrderWhateverEndsFirst) {
  GiveLines(8);
  EndOfInput();
  Start();
  ASSERT_TRUE(engine_.WaitForSubmitted(8));
  for (int i = 7; i > 0; --i) engine_.End(i);
  EXPECT_TRUE(Answers().empty());
  engine_.End(0);
  ASSERT_TRUE(Join().ok()) << status_;
  EXPECT_EQ(Answers(), Expected(0, 8));
  EXPECT_EQ(run_->progress().lines, 8u);
  EXPECT_EQ(run_->progress().failed, 0u);
  EXPECT_TRUE(run_->finished());
}

TEST_F(LineRunTest, ALongAnswerKeepsNoneFromBeginning) {
  GiveLines(100);
  EndOfInput();
  Start();
  // The first is never done; two batches are open all the time.
  for (size_t i = 1; i < 100; ++i) {
    ASSERT_TRUE(engine_.WaitForSubmitted(std::min<size_t>(i + 7, 100))) << i;
    ASSERT_LE(engine_.submitted(), i + 7);
    engine_.End(i);
  }
  EXPECT_TRUE(Answers().empty());
  engine_.End(0);
  ASSERT_TRUE(Join().ok()) << status_;
  EXPECT_EQ(Answers(), Expected(0, 100));
}

TEST_F(LineRunTest, WhatWaitsToBeWrittenIsBounded) {
  options_.max_held_bytes = 1;
  GiveLines(20);
  EndOfInput();
  Start();
  ASSERT_TRUE(engine_.WaitForSubmitted(8));
  engine_.End(3);
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(engine_.submitted(), 8u);
  for (size_t i = 0; i < 20; ++i) {
    ASSERT_TRUE(engine_.WaitForSubmitted(i + 1)) << i;
    if (i != 3) engine_.End(i);
  }
  ASSERT_TRUE(Join().ok()) << status_;
  EXPECT_EQ(Answers(), Expected(0, 20));
}

TEST_F(LineRunTest, AnswersAreThereBeforeTheNextLineIs) {
  Start();
  for (int i = 0; i < 3; ++i) {
    GiveLines(1);
    ASSERT_TRUE(engine_.WaitForSubmitted(i + 1));
    engine_.End(i);
    ASSERT_TRUE(WaitForAnswers(i + 1));
  }
  EndOfInput();
  ASSERT_TRUE(Join().ok()) << status_;
}

TEST_F(LineRunTest, ABadLineIsAnErrorAndTheRestGoesOn) {
  GiveLines(1);
  Give("nonsense\n\n{\"prompt\": \"\"}\n");
  GiveLines(1);
  EndOfInput();
  Start();
  ASSERT_TRUE(engine_.WaitForSubmitted(2));
  engine_.End(1, absl::DeadlineExceededError("too late"));
  engine_.End(0);
  ASSERT_TRUE(Join().ok()) << status_;
  const std::vector<std::string> answers = Answers();
  ASSERT_EQ(answers.size(), 4u);
  EXPECT_EQ(answers[0], "r0");
  EXPECT_EQ(answers[1].find("error: the line is no GenerateRequest"), 0u) << answers[1];
  EXPECT_EQ(answers[2], "error: prompt: is empty; allowed: at least one byte");
  EXPECT_EQ(answers[3], "error: too late");
  EXPECT_EQ(run_->progress().lines, 4u);
  EXPECT_EQ(run_->progress().failed, 3u);
}

TEST_F(LineRunTest, AFullQueueIsWaitedFor) {
  engine_.most_open = 2;
  GiveLines(6);
  EndOfInput();
  Start();
  for (size_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(engine_.WaitForSubmitted(i + 1)) << i;
    engine_.End(i);
  }
  ASSERT_TRUE(Join().ok()) << status_;
  EXPECT_EQ(Answers(), Expected(0, 6));
}

TEST_F(LineRunTest, WhatTheQueueNeverTakesIsAnError) {
  engine_.most_open = 0;
  GiveLines(1);
  EndOfInput();
  Start();
  ASSERT_TRUE(Join().ok()) << status_;
  EXPECT_EQ(Answers(), std::vector<std::string>{"error: the queue is full"});
}

TEST_F(LineRunTest, ResumesBehindWhatIsAnswered) {
  std::ofstream(path_) << R"({"completions":[{"text":"before"}]})"
                       << "\n"
                       << R"({"error":"x"})"
                       << "\n"
                       << R"({"comp)";
  GiveLines(3);
  EndOfInput();
  Start(/*resume=*/true);
  ASSERT_TRUE(engine_.WaitForSubmitted(1));
  engine_.End(0);
  ASSERT_TRUE(Join().ok()) << status_;
  EXPECT_EQ(Answers(), (std::vector<std::string>{"before", "error: x", "r2"}));
  EXPECT_EQ(run_->progress().lines, 3u);
  // As if it had not been interrupted.
  EXPECT_EQ(run_->progress().failed, 1u);
}

TEST_F(LineRunTest, AnswersOfAnotherInputAreSeen) {
  std::ofstream(path_) << "{}\n{}\n";
  GiveLines(1);
  EndOfInput();
  Start(/*resume=*/true);
  EXPECT_EQ(Join().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status_.message()),
            "the input has 1 lines, and there are 2 answers: they are another input's");
}

TEST_F(LineRunTest, AStopLetsEndWhatWasBegun) {
  GiveLines(50);
  Start();
  ASSERT_TRUE(engine_.WaitForSubmitted(8));
  Stop();
  std::this_thread::sleep_for(milliseconds(50));
  for (size_t i = 0; i < 8; ++i) engine_.End(i);
  ASSERT_TRUE(Join().ok()) << status_;
  EXPECT_EQ(Answers(), Expected(0, 8));
  EXPECT_FALSE(run_->finished());
}

TEST_F(LineRunTest, AStopWaitsNoLongerThanItMay) {
  options_.drain_timeout = milliseconds(50);
  GiveLines(8);
  EndOfInput();
  Start();
  ASSERT_TRUE(engine_.WaitForSubmitted(8));
  engine_.End(0);
  engine_.End(2);
  ASSERT_TRUE(WaitForAnswers(1));
  Stop();
  ASSERT_TRUE(Join().ok()) << status_;
  EXPECT_EQ(Answers(), Expected(0, 1));
  EXPECT_FALSE(run_->finished());
}

TEST_F(LineRunTest, WhatADeviceFaultEndedIsNotAnswered) {
  GiveLines(3);
  Start();
  ASSERT_TRUE(engine_.WaitForSubmitted(3));
  engine_.End(0);
  ASSERT_TRUE(WaitForAnswers(1));
  const absl::Status fault = absl::InternalError("the device has failed");
  engine_.Fail(fault);
  engine_.End(1, fault);
  EXPECT_EQ(Join(), fault);
  EXPECT_EQ(Answers(), Expected(0, 1));
}

}  // namespace
}  // namespace sirocco
