// A client of the engine, and what it was given.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace sirocco {

class Client {
 public:
  // kAtOnce: takes each update in the listener. kInTheEnd: takes nothing before Wait.
  enum class Reading { kAtOnce, kInTheEnd };

  static absl::StatusOr<std::unique_ptr<Client>> Submit(Engine& engine, Request request,
                                                        Reading reading = Reading::kAtOnce);
  ~Client();

  TokenStream& stream() { return *stream_; }
  // Waits for the stream's end; false: it did not come.
  bool Wait(std::chrono::seconds timeout = std::chrono::seconds(60));
  // Waits for the first token of any sequence.
  bool WaitForToken();

  // All that was taken; stable once the stream is done.
  struct Output {
    std::vector<TokenLogprob> prompt_logprobs;
    std::map<int32_t, OutputDelta> sequences;  // joined
    StreamUpdate end;
    int updates = 0;
    int ends = 0;              // must become 1
    bool after_end = false;    // something came after a sequence's end, or after the stream's
    int prompt_updates = 0;    // that held prompt logprobs
    bool late_prompt = false;  // prompt logprobs after the first delta
    bool whole_text = true;    // every text was valid UTF-8
  };
  Output output() const;

 private:
  Client() = default;
  void Announced();
  void Add(StreamUpdate update);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Reading reading_ = Reading::kAtOnce;
  std::shared_ptr<TokenStream> stream_;
  bool announced_ = false;
  Output output_;
};

// Lets the executor's steps pass, or holds them.
class Gate {
 public:
  void Close() { CloseAfter(0); }
  void CloseAfter(int passes);  // so many may still pass
  void Open();
  // Waits until it is open.
  void Pass();
  // Waits until somebody waits at the closed gate.
  void AwaitWaiter();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<int> passes_left_;  // none: open
  int waiting_ = 0;
};

}  // namespace sirocco
