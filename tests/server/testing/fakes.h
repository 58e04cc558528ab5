// Stand-ins for what the server is built on: a tokenizer of bytes, and an engine that speaks the
// alphabet.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/model/served_model.h"

namespace sirocco {

// An id is a byte; 256 is <s> (special, put first), 257 </s> (special), 258 a token of many bytes.
class FakeTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kBos = 256, kEos = 257, kLong = 258;

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const TokenizerOptions& options) const override;
  absl::StatusOr<std::vector<int32_t>> EncodeChat(const ProvenText& chat) const override;
  std::string_view TokenBytes(int32_t id) const override;
  bool IsSpecial(int32_t id) const override { return id == kBos || id == kEos; }
  int32_t vocab_size() const override { return 259; }
  std::optional<int32_t> bos_token_id() const override { return kBos; }
  std::vector<int32_t> end_token_ids() const override { return {kEos}; }
  std::string_view bos_token() const override { return "<s>"; }
  std::string_view eos_token() const override { return "</s>"; }
  const std::optional<std::string>& chat_template() const override { return chat_template_; }

 private:
  std::optional<std::string> chat_template_;
};

// max_length 64, max_batch_size 4, 259 ids.
ModelFacts FakeFacts(const Tokenizer* tokenizer);

class FakeExecutor final : public Executor {
 public:
  absl::Status StartLane(const LaneStart&) override { return absl::OkStatus(); }
  absl::Status ForkLane(const LaneFork&) override { return absl::OkStatus(); }
  int run_ahead() const override { return 0; }
  int in_flight() const override { return 0; }
  absl::Status Launch(const Step&) override { return absl::UnimplementedError("fake"); }
  absl::StatusOr<StepResult> Collect() override { return absl::UnimplementedError("fake"); }
  absl::StatusOr<std::span<const float>> KeptLogits(int) override {
    return absl::UnimplementedError("fake");
  }
  const ExecutorOptions& options() const override { return options_; }
  const ExecutorStats& stats() const override { return stats_; }
  std::vector<PlanEntry> DecodePlan() const override { return {}; }

  ExecutorOptions options_;
  ExecutorStats stats_;
};

// Answers "abcdef..." with a thread a request. The knobs are set before Submit.
class FakeEngine final : public Engine {
 public:
  ~FakeEngine() override;

  absl::StatusOr<std::shared_ptr<TokenStream>> Submit(Request request,
                                                      TokenStream::Listener listener) override;
  bool Drain(std::chrono::milliseconds timeout) override;
  absl::Status fault() const override;
  Clock::time_point last_step() const override { return last_step_; }
  bool has_work() const override { return has_work_; }
  const Executor& executor() const override { return executor_; }

  void SetFault(absl::Status fault);
  // Requests that came, and how streams ended.
  std::vector<Request> requests() const;
  std::vector<absl::StatusCode> ends() const;
  // Waits until so many streams have ended; false: they did not.
  bool WaitForEnds(size_t count) const;

  std::chrono::microseconds step{200};  // a token
  absl::Status refusal;                 // what Submit answers
  std::string token_text;               // of each token instead of a letter
  std::atomic<bool> has_work_{false};
  std::atomic<Clock::time_point> last_step_{Clock::now()};

 private:
  void Speak(const Request& request, TokenStream& stream);

  FakeExecutor executor_;
  mutable std::mutex mutex_;
  std::atomic<bool> stopping_{false};
  absl::Status fault_;
  std::vector<Request> requests_;
  std::vector<absl::StatusCode> ends_;
  std::vector<std::thread> threads_;
};

// Polls until `condition` or 10 seconds have passed; whether it came true.
bool Eventually(const std::function<bool()>& condition);

}  // namespace sirocco
