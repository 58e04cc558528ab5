// An engine over the fake model, with all that a test looks at.
#pragma once

#include <memory>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/client.h"
#include "tests/engine/counting_observer.h"
#include "tests/engine/fake_executor.h"
#include "tests/engine/fake_tokenizer.h"

namespace sirocco {

struct EngineHarness {
  ExecutorOptions executor = FakeOptions(/*max_batch_size=*/4, /*max_length=*/64, /*blocks=*/64);
  EngineOptions options = {.max_queue_size = 1000,
                           .prefill_chunk_size = 32,
                           .end_token_ids = {kFakeEnd},
                           .delivery_threads = 2};
  bool with_tokenizer = true;
  int run_ahead = 0;

  void Start();
  std::unique_ptr<Client> Submit(Request request,
                                 Client::Reading reading = Client::Reading::kAtOnce);
  // Waits until the engine holds no request, lane or block; false: it did not come to that.
  bool AwaitIdle();
  // Expects the client's answer, and the figures that come with it, to be the simulation's.
  void ExpectAnswer(Client& client, const Request& request) const;
  // Expects what a client got before its stream was ended to be a beginning of the answer.
  void ExpectBeginning(Client& client, const Request& request) const;

  FakeTokenizer tokenizer;
  CountingObserver observer;
  Gate gate;  // before each launch; open
  std::shared_ptr<FakeDevice> device = std::make_shared<FakeDevice>();
  std::unique_ptr<Engine> engine;

 private:
  const FakeTokenizer* tokenizer_or_null() const { return with_tokenizer ? &tokenizer : nullptr; }
};

Request PromptOf(int32_t length, int32_t max_new_tokens, int32_t salt = 0);

}  // namespace sirocco
