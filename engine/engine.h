// The engine: one thread that owns batcher, KV cache and executor, and the delivery threads that
// turn tokens into text. It knows nothing of gRPC.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/observer.h"
#include "engine/request.h"
#include "engine/token_stream.h"
#include "engine/tokenizer/tokenizer.h"
#include "graphs/descriptor.h"
#include "graphs/executor.h"

namespace sirocco {

struct EngineOptions {
  int32_t max_queue_size = 1024;     // requests that wait
  int64_t max_queue_tokens = 0;      // prompt tokens that wait; 0: no bound
  int32_t prefill_chunk_size = 512;  // prompt tokens a step; at most the executor's
  // While others decode, no step is to take longer than this many of their steps alone: it takes
  // fewer prompt tokens, 16 at least. At least 1.
  double itl_factor = 3;
  // The model's: how far back its layers see (ModelDescriptor::groups). Empty: all the way.
  std::vector<LayerGroup> groups = {};
  std::vector<int32_t> end_token_ids = {};
  // Shares of the clients that requests name; 1 for all others. Positive.
  std::map<std::string, double> client_weights = {};
  // Whether prompts may begin with KV blocks that are there already.
  bool prefix_cache = true;
  int delivery_threads = 1;
};

class Engine {
 public:
  // Starts the threads. `tokenizer` may be null (texts stay empty); it and `observer` outlive the
  // engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Start(std::unique_ptr<Executor> executor,
                                                       const Tokenizer* tokenizer,
                                                       EngineObserver* observer,
                                                       const EngineOptions& options);
  // Stops at once: what still runs ends with UNAVAILABLE.
  virtual ~Engine() = default;

  // Any thread; never blocks on a step. The request must be valid (see Request): INVALID_ARGUMENT
  // names what is not. RESOURCE_EXHAUSTED: the queue is full (reason "queue_full" or
  // "queue_tokens"), or its blocks can never be had ("kv"); UNAVAILABLE: draining ("draining") or
  // stopped; INTERNAL: the device has failed. After OK the stream ends with one `done` update; with
  // RESOURCE_EXHAUSTED, before anything else, where the engine finds that the deadline cannot be
  // met ("deadline").
  virtual absl::StatusOr<std::shared_ptr<TokenStream>> Submit(Request request,
                                                              TokenStream::Listener listener) = 0;

  // From now on Submit refuses. Returns when all that ran has ended, at the latest after
  // `timeout`; what is left then is ended with UNAVAILABLE. True: nothing had to be ended.
  virtual bool Drain(std::chrono::milliseconds timeout) = 0;

  // A device fault that ended all calls with INTERNAL; OK while there is none. Any thread.
  virtual absl::Status fault() const = 0;
  // When the last step ended (or work came to the idle engine, if that was later), and whether
  // there is work: for health. Any thread.
  virtual Clock::time_point last_step() const = 0;
  virtual bool has_work() const = 0;

  virtual const Executor& executor() const = 0;
};

}  // namespace sirocco
